"""data_prep/set_verification.py and what it is made of: faults F10, F11, F12, F20 and F21 of the fault table."""

import contextlib
import io
import pickle
import random
import re
import shutil
import tarfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import webdataset

from data_prep.set_verification import SetVerification
from data_prep.shards import make_shards
from data_prep.tar_members import TarMembers
from data_prep.tar_walk import TarWalk
from data_prep.verification_report import fault_lines, summary_lines
from ifvit.config.errors import UserError
from ifvit.data.sealed_json import unsealed
from ifvit.data.shard_format import FLOAT, npy_header
from tests.drawn_coco import draw_coco, edit_annotations, tiny_recipe
from tests.forged_shards import copy_shard, forge_members
from tests.made_tars import END, block
from tests.verified_sets import faults, verified

TAR = "shard-000001.tar"
MOMENTS_HEADER = len(npy_header(FLOAT, (8, 4, 4)))


@pytest.fixture
def shards(own_shards: Path) -> Path:
    return own_shards / "train"


def test_a_sound_set(made_shards: Path) -> None:
    found = verified(made_shards / "train")
    assert not found.faults and not found.faults.kept
    assert (found.num_shards, found.num_samples, found.num_prompts) == (3, 10, 19)
    tars = sorted((made_shards / "train").glob("*.tar"))
    assert found.num_bytes == sum(tar.stat().st_size for tar in tars)
    samples = list(webdataset.WebDataset([str(tar) for tar in tars], shardshuffle=False).decode())
    mean, logvar = np.split(np.stack([sample["latents.npy"] for sample in samples]).astype(np.float64), 2, axis=1)
    for number, channel in enumerate(found.latents.channels()):
        own, variance = mean[:, number], np.exp(logvar[:, number])
        assert channel.mean == pytest.approx(own.mean())
        assert channel.deviation == pytest.approx(np.sqrt(own.var() + variance.mean()))
        assert (channel.lowest, channel.highest) == (own.min(), own.max())
    assert found.recomputed_scaling_factor == pytest.approx(1 / np.sqrt(mean.var() + np.exp(logvar).mean()))
    ids = np.concatenate([sample["input_ids.npy"] for sample in samples])
    end = found.sound_index.tokens.end
    lengths = [row.tolist().index(end) + 1 for row in ids]
    assert found.lengths.counts.tolist() == np.bincount(lengths, minlength=13).tolist()
    lines = summary_lines(found)
    assert lines[0].endswith("train: sound: 3 shards, 10 samples, 19 captions, 102 KB")
    assert all(line.isascii() for line in lines)  # a terminal may be no more than that
    assert any(
        "0.23010, the paper's, was measured with Stable Diffusion v1's autoencoder on COCO at 256 px" in line
        for line in lines
    )


def test_token_ids_alone(drawn_coco: Path, tmp_path: Path) -> None:
    make_shards(tiny_recipe(drawn_coco, tmp_path, "data.text_storage=token_ids"))
    found = verified(tmp_path / "train")
    assert not found.faults and found.num_prompts == 19


def test_samples_to_picture_are_spread_evenly(made_shards: Path) -> None:
    found = SetVerification(made_shards / "train")
    found.run(num_pictured=5)
    assert [sample.id for sample in found.pictured] == [7 + 3 * number for number in (1, 3, 5, 7, 9)]
    assert [sample.shard for sample in found.pictured] == [0, 0, 1, 1, 2]
    found = SetVerification(made_shards / "train")
    found.run(num_pictured=24)
    assert len(found.pictured) == 10


def test_what_is_left_out_is_accounted_for(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path / "coco")
    (coco / "train2014" / "COCO_train2014_000000000016.jpg").write_text("no image")
    edit_annotations(coco, lambda content: content["annotations"][0].update(caption=" "))
    make_shards(tiny_recipe(coco, tmp_path, "data.max_bad_share=0.5"))
    found = verified(tmp_path / "train")
    assert not found.faults
    assert (found.num_samples, found.num_prompts) == (8, 17)
    lines = summary_lines(found)
    first, second = (f"COCO_train2014_{id_:012d}.jpg" for id_ in (34, 16))
    assert f"quarantined samples: 1 no captions (id 34, {first}), 1 not an image (id 16, {second})" in lines
    assert f"dropped captions: 1 empty (id 34, {first})" in lines


CUTS = {  # the tar's first member is a header at 0 and 384 bytes at 512; the second begins at 1024
    "nothing left": lambda end: 0,
    "in a header": lambda end: 1100,
    "at a header": lambda end: 1024,
    "in a payload": lambda end: 700,
    "in padding": lambda end: 900,
    "in a later sample": lambda end: end - 600,
    "before the end mark": lambda end: end,
    "in the end mark": lambda end: end + 100,
    "behind half of the end mark": lambda end: end + 512,
}


@pytest.mark.fault(
    "F10",
    injected="a shard's tar cut at six kinds of offset",
    detected="verify names the shard, the byte, expected and found size and the count of whole samples",
    recovered="repair makes the shard again",
    lost="nothing",
)
@pytest.mark.parametrize("name", CUTS)
def test_a_cut_tar_is_named_with_the_count_of_whole_samples(shards: Path, name: str) -> None:
    """F10."""
    tar = shards / TAR
    whole = tar.read_bytes()
    *_, last = TarMembers(tar)
    end = last.offset + -(-last.size // 512) * 512
    size = CUTS[name](end)
    tar.write_bytes(whole[:size])
    first, *others = faults(shards)
    assert first == f"{TAR}: has {size:,} bytes instead of {len(whole):,}"
    num_whole = 0 if size <= 1100 else 3 if size < end else 4
    if name == "behind half of the end mark":
        assert not others
    else:
        (second,) = others
        assert second.startswith(f"{TAR}: at byte "), second
        assert second.endswith(f"; checking stopped there, after {num_whole} of its 4 samples"), second
        assert "it is cut off; " in second or f"is cut off: the tar ends at byte {size}" in second


@pytest.mark.fault(
    "F11",
    injected="100 random bit flips in all files of a set of shards",
    detected="verify finds all 100",
    recovered="repair makes the shards again",
    lost="nothing",
)
def test_a_hundred_flipped_bits_are_all_found(shards: Path) -> None:
    """F11: half of them in a byte of any file alike, half in a file of any kind alike."""
    generator = random.Random(0)
    files = sorted(path for path in shards.rglob("*") if path.is_file() and path.name not in (".lock", ".claims"))
    sizes = [path.stat().st_size for path in files]
    assert {path.suffix for path in files} == {".tar", ".index", ".json", ".jsonl", ".npy"}
    for number in range(100):
        (path,) = generator.choices(files, sizes if number % 2 else None)
        whole = path.read_bytes()
        content = bytearray(whole)
        place = generator.randrange(len(content))
        content[place] ^= 1 << generator.randrange(8)
        path.write_bytes(content)
        assert any(fault.startswith(str(path.relative_to(shards))) for fault in faults(shards)), (path, place)
        path.write_bytes(whole)
    assert not faults(shards)


def test_every_bit_of_index_json_and_of_a_mark_is_guarded(shards: Path) -> None:
    for name in ("index.json", "shard-000000.json", "listing/listing.json"):
        content = (shards / name).read_bytes()
        for place in range(0, 8 * len(content), 7):
            flipped = bytearray(content)
            flipped[place // 8] ^= 1 << place % 8
            with pytest.raises(ValueError):
                unsealed(bytes(flipped))


# F12


MISPLACED: dict[str, tuple[Callable[[Path], object], str]] = {
    "missing": (lambda folder: (folder / TAR).unlink(), rf"{TAR}: is missing"),
    "empty": (lambda folder: (folder / TAR).write_bytes(b""), rf"{TAR}: has 0 bytes instead of 40,960"),
    "garbage": (
        lambda folder: (folder / TAR).write_bytes(b"garbage " * 5120),
        rf"{TAR}: at byte 0: the header is damaged: .*; checking stopped there, after 0 of its 4 samples",
    ),
    "folder": (lambda folder: ((folder / TAR).unlink(), (folder / TAR).mkdir()), rf"{TAR}: "),
    "duplicate": (
        lambda folder: copy_shard(folder, 0, 1),
        r"shard-000001\.json: is the done-mark of another shard, shard-000000\.tar",
    ),
    "duplicate tar": (
        lambda folder: shutil.copy(folder / "shard-000000.tar", folder / TAR),
        rf"{TAR}: .*at byte 512 lie \d+ bytes of 000000000007\.latents\.npy, but its index has .*000000000019\.latents",
    ),
    "extra": (lambda folder: copy_shard(folder, 0, 3), r"shard-000003\.tar: is none of the set's 3 shards"),
    "extra tar": (lambda folder: shutil.copy(folder / TAR, folder / "old.tar"), r"old\.tar: is none of the set's"),
    "mark": (lambda folder: (folder / "shard-000001.json").unlink(), r"shard-000001\.json: is missing"),
    "index": (lambda folder: (folder / "shard-000001.index").unlink(), r"shard-000001\.index: is missing"),
    "samples.index": (lambda folder: (folder / "samples.index").unlink(), r"samples\.index: is missing"),
    "null": (lambda folder: (folder / "null_prompt_embeds.npy").unlink(), r"null_prompt_embeds\.npy: is missing"),
    "index.json": (lambda folder: (folder / "index.json").unlink(), r"index\.json: is missing"),
    "rows": (
        lambda folder: (folder / "listing/shard-000000.jsonl").unlink(),
        r"listing/shard-000000\.jsonl: is missing",
    ),
}


@pytest.mark.fault(
    "F12",
    injected="shards, marks and indices missing, empty, garbage, duplicate or too many",
    detected="verify names each file",
    recovered="repair makes them again",
    lost="nothing",
)
@pytest.mark.parametrize("name", MISPLACED)
def test_what_is_missing_doubled_or_too_much_is_named(shards: Path, name: str) -> None:
    damage, message = MISPLACED[name]
    damage(shards)
    assert any(re.match(message, fault) for fault in faults(shards)), faults(shards)


def test_all_faults_are_told_and_too_many_counted(shards: Path) -> None:
    for name in (TAR, "shard-000000.index", "shard-000002.json", "null_prompt_embeds.npy"):
        (shards / name).unlink()
    found = verified(shards)
    assert [fault.file for fault in found.faults.kept] == [
        "shard-000000.index", TAR, "shard-000002.json", "null_prompt_embeds.npy",
    ]  # fmt: skip
    assert found.faults.shards == {0, 1, 2}


def test_of_many_faults_the_first_are_told(shards: Path) -> None:
    for number in range(1000):
        (shards / f"other{number}.tar").touch()
    found = verified(shards)
    assert (found.faults.count, len(found.faults.kept)) == (1000, 1000)
    lines = fault_lines(found, "REPAIR")
    assert len(lines) == 52
    assert lines[-2] == "and 950 more"
    assert lines[-1].startswith("1,000 faults in all; ") and lines[-1].endswith(" by: REPAIR")


def test_damage_in_every_member_is_cut_short(shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tar = bytearray((shards / TAR).read_bytes())
    members = list(TarMembers(shards / TAR))
    for member in members:
        tar[member.offset + member.size - 1] ^= 1
    (shards / TAR).write_bytes(tar)
    monkeypatch.setattr("data_prep.shard_verification.MAX_KEPT_OF_SHARD", 5)
    found = verified(shards)
    assert [str(fault) for fault in found.faults.kept] == [
        f"{TAR}: {member.name}: its crc32 differs" for member in members[:5]
    ]
    assert found.faults.count == len(members) == 20


class Opened:
    """Calls `open` where it is unpickled."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple:
        return open, (str(self.path), "w")


@pytest.mark.fault(
    "F20",
    injected="an array of objects in an .npy member with right checksums",
    detected="the member is named",
    recovered="the shard is made again",
    lost="nothing; no code runs",
)
def test_a_pickle_in_a_member_is_named_and_never_run(shards: Path, tmp_path: Path) -> None:
    """F20: an .npy array of objects, in a member whose crc32 and digests are right."""
    header = npy_header(FLOAT, (8, 4, 4)).replace(b"'<f2'", b"'|O' ")
    content = header + pickle.dumps(Opened(tmp_path / "run"))

    def forge(name: str, payload: bytearray) -> None:
        if name == "000000000022.latents.npy":
            payload[: len(content)] = content

    forge_members(shards, 1, forge)
    with contextlib.suppress(ValueError):
        np.load(io.BytesIO(content), allow_pickle=True)
    assert (tmp_path / "run").exists()
    (tmp_path / "run").unlink()
    assert faults(shards) == [
        f"{TAR}: 000000000022.latents.npy: is no .npy array of float16 (8, 4, 4): its header differs"
    ]
    assert not (tmp_path / "run").exists()


@pytest.mark.fault(
    "F20",
    injected="pickles as .pyd, .pkl, .pth and .npz in a shard",
    detected="the member is named",
    recovered="the shard is made again",
    lost="nothing; no code runs",
)
@pytest.mark.parametrize("suffix", ["pyd", "pkl", "pth", "npz"])
def test_members_of_other_kinds_are_refused(shards: Path, tmp_path: Path, suffix: str) -> None:
    with tarfile.open(shards / TAR, "a") as tar:
        content = pickle.dumps(Opened(tmp_path / "run"))
        member = tarfile.TarInfo(f"000000000028.{suffix}")
        member.size = len(content)
        tar.addfile(member, io.BytesIO(content))
    assert any(f"000000000028.{suffix} lies behind the last one" in fault for fault in faults(shards))
    assert not (tmp_path / "run").exists()


HOSTILE = {
    "above": (block(b"../x.npy") + END, r"'\.\./x\.npy' is not allowed"),
    "absolute": (block(b"/etc/x.npy") + END, "'/etc/x.npy' is not allowed"),
    "link": (block(b"000000000019.latents.npy", b"2") + END, "is a link"),
    "device": (block(b"000000000019.latents.npy", b"3") + END, "is a device"),
    "escape": (block(b"\x1b[31m") + END, r"\\x1b\[31m"),
    "long": (b"".join(block(b"%06d.npy" % number) for number in range(100_000)) + END, "000000.npy, but its index"),
    "huge": (block(b"000000000019.latents.npy", size=8**11 - 1) + END, "is cut off"),
}


@pytest.mark.fault(
    "F21",
    injected="a shard with .., absolute names, links, devices, 100,000 members",
    detected="the first member that does not belong is named",
    recovered="the shard is made again",
    lost="nothing; no file is written",
)
@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_tar_is_refused(shards: Path, name: str) -> None:
    """F21: of 100,000 members the first that does not belong ends it."""
    content, message = HOSTILE[name]
    (shards / TAR).write_bytes(content)
    before = {path.relative_to(shards.parent) for path in shards.parent.rglob("*")}
    found = faults(shards)
    assert any(re.search(message, fault) for fault in found), found
    assert all(line.isprintable() for line in fault_lines(verified(shards), ""))
    assert {path.relative_to(shards.parent) for path in shards.parent.rglob("*")} == before


def test_a_copy_without_its_listing_is_sound(shards: Path) -> None:
    shutil.rmtree(shards / "listing")
    found = verified(shards)
    assert not found.faults
    assert any("no listing" in line for line in summary_lines(found))


def test_without_index_json_the_marks_are_compared(shards: Path) -> None:
    (shards / "index.json").write_text("{")
    content = bytearray((shards / TAR).read_bytes())
    content[5000] ^= 1
    (shards / TAR).write_bytes(content)
    assert faults(shards) == [
        "index.json: is damaged or of an earlier version (its content_sha256 differs)",
        f"{TAR}: its sha256 differs",
    ]
    shutil.rmtree(shards / "listing")
    assert len(faults(shards)) == 2


@pytest.mark.parametrize(
    "below, message", [("", "give the folder of one split, such as .*shards/train"), ("no", "is no")]
)
def test_a_folder_without_shards(own_shards: Path, below: str, message: str) -> None:
    with pytest.raises(UserError, match=f"holds no shards.*{message}"):
        SetVerification(own_shards / below)


def test_memory_is_that_of_a_batch(made_shards: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sizes = []
    monkeypatch.setattr("data_prep.tar_walk.BATCH", 2)
    sum_up = TarWalk.sum_up
    monkeypatch.setattr(TarWalk, "sum_up", lambda walk, samples: (sizes.append(len(samples)), sum_up(walk, samples)))
    assert not verified(made_shards / "train").faults
    assert sizes == [2, 2, 2, 2, 2]
