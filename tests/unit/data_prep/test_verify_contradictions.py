"""data_prep/set_verification.py: files that have their digests and contradict each other, or hold what cannot be."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import FLOAT, RECORD, npy_header
from tests.forged_shards import copy_shard, forge_index, forge_members, reseal
from tests.verified_sets import faults

TAR = "shard-000001.tar"
MOMENTS_HEADER = len(npy_header(FLOAT, (8, 4, 4)))


@pytest.fixture
def shards(own_shards: Path) -> Path:
    return own_shards / "train"


def floats(payload: bytearray) -> np.ndarray:
    return np.frombuffer(payload, FLOAT, offset=MOMENTS_HEADER)


def ids(payload: bytearray) -> np.ndarray:
    return np.frombuffer(payload, "<u2", offset=MOMENTS_HEADER).reshape(-1, 12)


FORGED: dict[str, tuple[str, Callable[[bytearray], object], str]] = {
    "nan": ("latents", lambda payload: floats(payload).__setitem__(7, np.nan), "has values that are not finite"),
    "inf": (
        "prompt_embeds.0",
        lambda payload: floats(payload).__setitem__(7, -np.inf),
        "has values that are not finite",
    ),
    "id": (
        "input_ids",
        lambda payload: ids(payload).__setitem__((0, 3), 514),
        "has token id 514, but the tokenizer has 514",
    ),
    "start": (
        "input_ids",
        lambda payload: ids(payload).__setitem__((1, 0), 5),
        "caption 1 does not begin with the start",
    ),
    "end": ("input_ids", lambda payload: ids(payload).__setitem__(1, 512), "caption 1 has no end token"),
    "behind": (
        "input_ids",
        lambda payload: ids(payload).__setitem__((0, slice(1, 4)), [5, 513, 5]),
        "caption 0 has text behind its end",
    ),
    "prompts": ("prompts", lambda payload: payload.__setitem__(slice(0, 1), b"{"), "has no list of 2 usable captions"),
    "nested": ("prompts", lambda payload: payload.__setitem__(slice(None), b"[" * len(payload)), "has no list of 2"),
}


@pytest.mark.parametrize("name", FORGED)
def test_content_that_no_digest_tells_is_looked_at(shards: Path, name: str) -> None:
    """Sample 19, the first of shard 1, has 2 captions."""
    kind, edit, message = FORGED[name]

    def forge(member: str, payload: bytearray) -> None:
        if member.startswith(f"000000000019.{kind}"):
            edit(payload)

    forge_members(shards, 1, forge)
    found = faults(shards)
    assert len(found) == 1 and message in found[0], found


def test_latents_that_are_not_those_that_were_measured(shards: Path) -> None:
    def forge(member: str, payload: bytearray) -> None:
        if member.startswith("000000000019.latents"):
            floats(payload)[0] = 0.5

    forge_members(shards, 1, forge)
    first, second = faults(shards)
    assert first.startswith("shard-000001.json: has latent_sums [")
    assert second.startswith("index.json: measured_scaling_factor is 3.63") and ", the latents give 3.6" in second


RECORDS: dict[str, tuple[Callable[[np.ndarray], object], str]] = {
    "captions": (lambda records: records["num_prompts"].__setitem__(0, 3), "has 9 captions instead of 8"),
    "no captions": (lambda records: records["num_prompts"].__setitem__(0, 0), "gives samples from 0 to 3 captions"),
    "ids": (lambda records: records["id"].__setitem__(1, 19), "does not have the ids of its samples ascending"),
    "embeds": (lambda records: records["first_prompt_embeds"].__setitem__(1, 0), "numbers the prompt_embeds otherwise"),
    "text": (lambda records: records["prompts_size"].__setitem__(1, 2**32 - 1), "says that a sample has 4,294,967,295"),
    "offset": (
        lambda records: records["offset"].__setitem__(1, 2**62),
        "; checking stopped there, after 1 of its 4 samples",
    ),
    "crc32": (
        lambda records: records["moments_crc32"].__setitem__(1, 0),
        "000000000022.latents.npy: its crc32 differs",
    ),
}


@pytest.mark.parametrize("name", RECORDS)
def test_an_index_that_contradicts_its_tar_is_found(shards: Path, name: str) -> None:
    edit, message = RECORDS[name]
    content = bytearray((shards / "shard-000001.index").read_bytes())
    edit(np.frombuffer(content, RECORD, 4))
    forge_index(shards, 1, bytes(content))
    assert any(message in fault for fault in faults(shards)), faults(shards)


def test_an_index_of_another_length(shards: Path) -> None:
    forge_index(shards, 1, (shards / "shard-000001.index").read_bytes() + b"\0" * 4)
    assert "shard-000001.index: has 196 bytes instead of 192" in faults(shards)


def first_shard(name: str, value: object) -> Callable[[dict], object]:
    return lambda values: values["shards"][0].update({name: value})


LIES: dict[str, tuple[str, Callable[[dict], object], str]] = {
    "samples": ("index.json", lambda values: values.update(samples=11), "samples is 11, must be 10"),
    "size": ("index.json", lambda values: values.update(size=1), "size is 1, must be 102400"),
    "listed": ("index.json", lambda values: values.update(listed_samples=9), "listed_samples is 9, must be 10"),
    "quarantined": (
        "index.json",
        lambda values: values.update(quarantined={"damaged": {"count": 1, "ids": [7]}}),
        "quarantined is {'damaged': {'count': 1, 'ids': [7], 'image': ''}}, must be {}",
    ),
    "dropped": (
        "index.json",
        lambda values: values.update(dropped_captions={"empty": {"count": 1, "ids": [7]}}),
        "dropped_captions is {'empty'",
    ),
    "measured": ("index.json", lambda values: values.update(measured_scaling_factor=0.2301), "is 0.2301, the latents"),
    "scale": (
        "index.json",
        lambda values: values.update(scaling_factor=0.0),
        "scaling_factor: Input should be greater",
    ),
    "infinite": (
        "index.json",
        lambda values: values.update(scaling_factor=float("nan")),
        "scaling_factor: Input should",
    ),
    "version": ("index.json", lambda values: values.update(format_version=3), "format_version: Input should be 2"),
    "shapes": ("index.json", lambda values: values["shapes"].update(sample_size=-1), "must be from 1 to 65536"),
    "split": ("index.json", lambda values: values.update(split="val"), "with another data.split than index.json says"),
    "digest": (
        "index.json",
        first_shard("sha256", ""),
        "has another sha256 of shard-000000.tar than shard-000000.json",
    ),
    "count": ("index.json", first_shard("samples", 5), "has another samples of shard-000000.tar"),
    "fewer": ("index.json", lambda values: values["shards"].pop(), "number of shards is 2, must be 3"),
    "type": ("index.json", lambda values: values.update(shards=7), "malformed or of an earlier version (shards: "),
    "mark": (
        "shard-000000.json",
        lambda values: values.update(samples="4"),
        "malformed or of an earlier version (samples",
    ),
    "mark's sums": (
        "shard-000000.json",
        lambda values: values["latent_sums"].__setitem__(3, values["latent_sums"][3] * (1 + 1e-6)),
        "shard-000000.json: has latent_sums",
    ),
    "mark's listing": (
        "shard-000000.json",
        lambda values: values.update(listing_sha256=""),
        "made from other images or captions than are listed",
    ),
    "mark's count": (
        "listing/listing.json",
        lambda values: values["shards"][0].update(samples=5),
        "shard-000000.json: does not account for all of the 5 listed samples",
    ),
    "mark's encoder": (
        "shard-000000.json",
        lambda values: values["settings"].update({"encoders.autoencoder": ""}),
        "with another encoders.autoencoder than index.json says",
    ),
}


@pytest.mark.parametrize("name", LIES)
def test_files_that_contradict_each_other_are_found(shards: Path, name: str) -> None:
    file, edit, message = LIES[name]
    reseal(shards / file, edit)
    assert any(message in fault for fault in faults(shards)), faults(shards)


def test_sums_of_another_machine_are_the_same_sums(shards: Path) -> None:
    def edit(values: dict) -> None:
        values["latent_sums"] = [
            values["latent_sums"][0],
            *(value * (1 + 1e-12) for value in values["latent_sums"][1:]),
        ]

    reseal(shards / "shard-000000.json", edit)
    assert not faults(shards)


def test_a_sample_in_two_shards_is_found(shards: Path) -> None:
    """Shard 2 is shard 0 once more, and every file says so."""
    copy_shard(shards, 0, 2)
    listed = unsealed((shards / "listing/listing.json").read_bytes())["shards"][2]["sha256"]
    reseal(shards / "shard-000002.json", lambda values: values.update(tar="shard-000002.tar", listing_sha256=listed))
    forge_index(shards, 2, (shards / "shard-000002.index").read_bytes())
    message = "shard-000002.tar: begins with id 7, but shard-000001.tar ends with 28: a sample is there twice"
    assert any(fault.startswith(message) for fault in faults(shards)), faults(shards)
