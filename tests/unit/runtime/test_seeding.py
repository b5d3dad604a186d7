"""Seeds depend on their parts alone."""

from ifvit.runtime.seeding import derived_seed


def test_seeds_are_stable_across_versions() -> None:
    """Another value here means that no run made before can be resumed or repeated."""
    assert derived_seed(1234, "draws", 0) == 7484764206820702447


def test_seeds_are_in_range_and_differ() -> None:
    seeds = {derived_seed(seed, name, step) for seed in range(10) for name in ("draws", "noise") for step in range(100)}
    assert len(seeds) == 2000
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_parts_do_not_run_into_each_other() -> None:
    assert derived_seed(1, 23) != derived_seed(12, 3)
