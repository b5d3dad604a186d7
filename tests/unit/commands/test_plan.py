"""`ifvit plan` on the command line, and the plans in the heads of recipes."""

import json
from pathlib import Path

import pytest

from ifvit.commands.main import main
from ifvit.commands.plan_header import with_plan
from ifvit.config.loading import load_recipe

REPOSITORY = Path(__file__).parents[3]
PAPERS_BEST = str(REPOSITORY / "recipes/coco256/cross_intermediate.yaml")
SCALE = sorted((REPOSITORY / "recipes/scale").glob("*.yaml"))


def test_one_screen(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", PAPERS_BEST, "--gpus-per-node", "8", "--set", "train.micro_batch_size=32"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) < 40
    assert max(map(len, lines)) <= 180


def test_what_a_gpu_does_can_be_given(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", PAPERS_BEST, "--json", "--tflops", "500", "--memory-gb", "10", "--mfu", "0.5"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert record["seconds"]["forward_and_backward"] == pytest.approx(3 * 256 * 25.567e9 / (0.5 * 500e12), rel=1e-3)
    assert record["fits"] is False
    assert (record["device"]["bf16_tflops"], record["device"]["fp32_tflops"]) == (500, 66.9)  # the text encoder's


@pytest.mark.parametrize(
    "options, message",
    [
        (["--gpu", "abacus"], "--gpu: abacus is not in the table"),
        (["--nodes", "0"], "--nodes: is 0, must be at least 1"),
        (["--mfu", "40"], "--mfu: is 40, must be at most 1"),
        (["--memory-gb", "-1"], "--memory-gb: is -1, must be above 0"),
        (["--mfu", "nan"], "--mfu: is nan, must be above 0"),
        (["--check", "--set", "runtime.compile=true"], "--check: the tensors of compiled blocks cannot be counted"),
        (
            ["--check", "--set", "runtime.zero_stage=2", "--set", "runtime.offload_optimizer=true"],
            "--check: what is offloaded cannot be told from what is not",
        ),
        (["--gpus-per-node", "3"], "train.global_batch_size: 256 cannot be split evenly over 3 ranks"),
    ],
)
def test_mistakes_are_told_in_one_line(options: list[str], message: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["plan", PAPERS_BEST, *options]) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert message in line


@pytest.mark.parametrize("path", SCALE, ids=lambda path: path.stem)
def test_the_head_of_a_recipe_says_what_the_planner_says(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a change: python -m ifvit.commands.plan_header recipes/scale/*.yaml"""
    monkeypatch.chdir(REPOSITORY)
    assert with_plan(path) == path.read_text()


def test_the_family_has_the_sizes_that_were_asked_for() -> None:
    """Width, depth, heads, and how many blocks of the image's and the text's side fuse nothing."""
    sizes = {}
    for path in SCALE:
        model = load_recipe(path, ["data.shards_root=nowhere"]).model
        fusion = model.fusion.model_dump()
        assert (model.conditioning, fusion.pop("schedule")) == ("cross_attention", "intermediate")
        sizes[path.stem] = (model.hidden_size, model.depth, model.num_attention_heads, *fusion.values())
    assert sizes == {
        "m": (768, 16, 12, 5, 1),
        "l": (1024, 20, 16, 7, 2),
        "h": (1152, 28, 16, 9, 2),
        "xl": (1536, 32, 24, 11, 3),
        "xxl": (2048, 40, 32, 13, 3),
    }
