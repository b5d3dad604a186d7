"""`python -m data_prep shards` from each kind of source, with everything that faults F22 and F23 put into it."""

import contextlib
import io
import json
import re
import shutil
from pathlib import Path

import numpy as np
import pytest
import webdataset
import yaml
from PIL import Image

from data_prep.array_task import ArrayTask
from data_prep.main import main
from data_prep.shard_writer import ShardWriter
from data_prep.shards import make_shards
from ifvit.config.errors import UserError
from ifvit.data import images as images_module
from ifvit.data.coco import read_coco
from ifvit.data.shard_format import FLOAT
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, draw_image, edit_annotations, tiny_recipe, tiny_values
from tests.made_tars import make_tar
from tests.stored_samples import stored_ids


def samples_of(folder: Path) -> list[dict]:
    tars = [str(path) for path in sorted(folder.glob("*.tar"))]
    return list(webdataset.WebDataset(tars, shardshuffle=False).decode())


def recipe_of(field: str, value: object, shards_root: Path, *overrides: str):
    return tiny_recipe(Path("unused"), shards_root, "data.coco_root=null", f"data.{field}={value}", *overrides)


def test_the_same_images_give_the_same_samples_from_every_source(tmp_path: Path) -> None:
    """But for their ids: a folder and tars number theirs from 0."""
    coco = draw_coco(tmp_path / "coco")
    make_shards(tiny_recipe(coco, tmp_path / "a"))
    folder, members = tmp_path / "folder", {}
    folder.mkdir()
    for image in read_coco(coco, "train"):
        shutil.copy(image.path, folder / f"{image.id:06d}.jpg")
        (folder / f"{image.id:06d}.txt").write_text("\n".join(image.prompts) + "\n")
        members[f"{image.id:06d}.jpg"] = image.path.read_bytes()
        members[f"{image.id:06d}.json"] = json.dumps({"prompts": image.prompts}).encode()
    names = list(members)
    make_tar(tmp_path / "tars" / "0.tar", {name: members[name] for name in names[:6]})
    make_tar(tmp_path / "tars" / "1.tar", {name: members[name] for name in names[6:]})
    make_shards(recipe_of("image_folder", folder, tmp_path / "b"))
    make_shards(recipe_of("image_tars", f"{tmp_path}/tars/*.tar", tmp_path / "c"))
    expected = samples_of(tmp_path / "a" / "train")
    for root in ("b", "c"):
        samples = samples_of(tmp_path / root / "train")
        assert [sample["__key__"] for sample in samples] == [f"{number:012d}" for number in range(10)]
        for sample, other in zip(samples, expected, strict=True):
            assert sample.keys() == other.keys()
            assert all(np.array_equal(sample[key], other[key]) for key in sample if key.endswith(".npy"))
            assert sample["prompts.json"] == other["prompts.json"]
    shard = [name for name in ("b", "c") if (tmp_path / name / "train" / "shard-000000.tar").is_file()]
    assert len({(tmp_path / name / "train" / "shard-000000.tar").read_bytes() for name in shard}) == 1


CONVERTED = {
    "L": lambda path: Image.new("L", (40, 40), 7).save(path, "PNG"),
    "LA": lambda path: Image.new("LA", (40, 40), (7, 9)).save(path, "PNG"),
    "P": lambda path: Image.new("P", (40, 40), 7).save(path, "PNG"),
    "RGBA": lambda path: Image.new("RGBA", (40, 40), (1, 2, 3, 4)).save(path, "PNG"),
    "CMYK": lambda path: Image.new("CMYK", (40, 40), (1, 2, 3, 4)).save(path, "JPEG"),
    "16 bit": lambda path: Image.fromarray(np.full((40, 40), 999, np.uint16)).save(path, "PNG"),
    "1x1": lambda path: Image.new("RGB", (1, 1)).save(path, "PNG"),
    "1x20000": lambda path: Image.new("RGB", (1, 20_000)).save(path, "PNG"),
    "animated": lambda path: Image.new("P", (9, 9), 1).save(
        path, "GIF", save_all=True, append_images=[Image.new("P", (9, 9), 2)]
    ),
}
QUARANTINED = {
    "truncated": ("damaged", lambda path: (draw_image(path, 1), path.write_bytes(path.read_bytes()[:-600]))),
    "bomb": ("too many pixels", lambda path: Image.new("1", (13_000, 13_000)).save(path, "PNG")),
    "text": ("not an image", lambda path: path.write_text("this is text")),
    "empty": ("empty file", lambda path: path.write_bytes(b"")),
    "float": ("unsupported mode", lambda path: Image.fromarray(np.zeros((9, 9), np.float32)).save(path, "TIFF")),
    "broken link": ("missing file", lambda path: path.symlink_to("nowhere")),
    "\x1b[31m\u202e": ("not an image", lambda path: path.write_text("escape")),
}
CAPTIONS = {
    "good": ["fine", "\x1b[31mred", "\u202eback", "a 🐈", "the <|endoftext|> inside", "w " * 4000],
    "fifty": [str(number) for number in range(50)],
    "partly": ["fine", "", "a\0b", "x" * 100_000],
}


@pytest.fixture(scope="module")
def faulty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("faulty")
    for name, make in (CONVERTED | {name: make for name, (_, make) in QUARANTINED.items()}).items():
        make(folder / f"{name}.jpg")
        (folder / f"{name}.txt").write_text("a caption\n")
    for name, captions in CAPTIONS.items():
        draw_image(folder / f"{name}.jpg", 3)
        (folder / f"{name}.txt").write_text("\n".join(captions) + "\n", encoding="utf-8")
    draw_image(folder / "mute.jpg", 4)
    draw_image(folder / "blank.jpg", 4)
    (folder / "blank.txt").write_bytes(b" \ncaf\xe9")
    return folder


@pytest.fixture(scope="module")
def names(faulty: Path) -> dict[int, str]:
    return {number: path.stem for number, path in enumerate(sorted(faulty.glob("*.jpg")))}


@pytest.fixture(scope="module")
def made(faulty: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Shards of all that, and what was printed meanwhile in stdout.txt and stderr.txt."""
    root = tmp_path_factory.mktemp("made")
    values = tiny_values(Path("unused"), root)
    values["data"] |= {"coco_root": None, "image_folder": str(faulty), "max_bad_share": 0.6}
    (root / "recipe.yaml").write_text(yaml.safe_dump(values))
    out, err = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        assert main(["shards", str(root / "recipe.yaml")]) == 0
    (root / "stdout.txt").write_text(out.getvalue())
    (root / "stderr.txt").write_text(err.getvalue())
    return root


@pytest.fixture(scope="module")
def good(made: Path, names: dict[int, str]) -> dict[str, dict]:
    """The samples in the shards, by the name of their image."""
    return {names[int(sample["__key__"])]: sample for sample in samples_of(made / "train")}


@pytest.mark.fault(
    "F22",
    injected="images of every mode and size, truncated, a bomb, text named .jpg",
    detected="quarantined with reason and count",
    recovered="converted where that is possible",
    lost="the quarantined images, counted",
)
def test_every_fault_has_its_policy_its_reason_and_its_count(
    made: Path, names: dict[int, str], good: dict[str, dict]
) -> None:
    assert good.keys() == CONVERTED.keys() | CAPTIONS.keys()
    marks = [json.loads(path.read_bytes()) for path in sorted((made / "train").glob("shard-*.json"))]
    reasons = {names[entry["id"]]: entry["reason"] for mark in marks for entry in mark["quarantined"]}
    expected = {name: reason for name, (reason, _) in QUARANTINED.items()} | dict.fromkeys(
        ("mute", "blank"), "no captions"
    )
    assert reasons == expected
    index = json.loads((made / "train" / "index.json").read_bytes())
    counts = {reason: value["count"] for reason, value in index["quarantined"].items()}
    assert counts == {reason: list(expected.values()).count(reason) for reason in expected.values()}
    dropped = {reason: value["count"] for reason, value in index["dropped_captions"].items()}
    assert dropped == {"empty": 2, "NUL character": 1, "too long": 1, "invalid utf-8": 1}
    assert (index["samples"], index["listed_samples"]) == (len(good), len(names))
    out, err = ((made / name).read_text() for name in ("stdout.txt", "stderr.txt"))
    assert "quarantined samples: 2 no captions (ids " in out
    assert "1 too many pixels (id " in out
    assert "dropped captions: 2 empty (ids " in out
    assert all(line.isprintable() for text in (out, err) for line in text.split("\n")), out + err
    assert {mark["settings"]["data.samples_per_shard"] for mark in marks} == {4}
    assert all(mark["seconds"] > 0 and mark["autoencoder"]["random"] for mark in marks)


@pytest.mark.fault(
    "F23",
    injected="captions: empty, 100 KB, NUL, ANSI, bidi, emoji, bad utf-8, <|endoftext|>, none or 50 per image",
    detected="bad ones dropped and counted by reason",
    recovered="the others have the right ids, start and end",
    lost="the bad captions, counted",
)
def test_each_caption_has_its_ids_with_start_and_end(made: Path, good: dict[str, dict]) -> None:
    """Whatever stands in a caption is text, cut to the model's length."""
    for name, count in (("good", 6), ("fifty", 50), ("partly", 1)):
        ids = good[name]["input_ids.npy"]
        assert ids.shape == (count, 12)
        start, end = ids[0, 0], ids.max()
        assert (ids[:, 0] == start).all()
        assert ((ids == start).sum(axis=1) == 1).all()
        assert (ids == end).any(axis=1).all()
    assert good["good"]["prompts.json"] == CAPTIONS["good"]
    inside = good["good"]["input_ids.npy"][4]
    first_end = np.flatnonzero(inside == inside.max())[0]
    assert (inside[first_end:] == inside.max()).all()  # nothing follows the end but padding
    assert ShardSet.open(made / "train").num_samples == len(good)


def test_too_many_bad_samples_stop_it_before_the_first_mark(faulty: Path, tmp_path: Path) -> None:
    recipe = recipe_of("image_folder", faulty, tmp_path, "data.max_bad_share=0.12", "data.samples_per_shard=100")
    with pytest.raises(UserError, match=r"^data\.max_bad_share: allows 0\.12 of the 21 samples.* 2 no captions"):
        make_shards(recipe)
    assert not list(tmp_path.glob("train/shard-*.json"))
    assert not list(tmp_path.glob("train/index.json"))
    make_shards(recipe_of("image_folder", faulty, tmp_path, "data.max_bad_share=0.5", "data.samples_per_shard=100"))
    assert ShardSet.open(tmp_path / "train").num_samples == 12


def test_too_many_bad_captions_stop_it_before_the_encoders_load(faulty: Path, tmp_path: Path) -> None:
    folder = tmp_path / "images"
    folder.mkdir()
    for number in range(4):
        draw_image(folder / f"{number}.jpg", number)
        (folder / f"{number}.txt").write_text("good\n\nbad\n")
    recipe = recipe_of("image_folder", folder, tmp_path, "encoders.autoencoder=no/such", "data.max_bad_share=0.3")
    with pytest.raises(UserError, match=r"allows 0\.3 of the 12 captions .* 4 \(0\.333\) are: 4 empty"):
        make_shards(recipe)


def test_tasks_that_are_within_the_limit_alone_may_exceed_it_together(tmp_path: Path, monkeypatch) -> None:
    coco = draw_coco(tmp_path / "coco")
    for number in (0, 4):
        (coco / "train2014" / f"COCO_train2014_{7 + 3 * number:012d}.jpg").unlink()
    recipe = tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1")
    assert [make_shards(recipe, ArrayTask(number, 3)) for number in range(2)] == [None, None]
    message = r"allows 0\.1 of the 10 samples .* at least 2 \(0\.2\) are: 2 missing file \(ids 7, 19; the first is "
    with pytest.raises(UserError, match=message):
        make_shards(recipe, ArrayTask(2, 3))
    assert len(list(tmp_path.glob("out/train/shard-*.json"))) == 3
    assert not (tmp_path / "out" / "train" / "index.json").exists()
    monkeypatch.setattr(ShardWriter, "encoded", lambda *_: pytest.fail("encoded again"))
    with pytest.raises(UserError, match=message):
        make_shards(recipe)
    index = make_shards(tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.2"))
    assert index is not None
    assert index["samples"] == 8


def test_a_quarantined_sample_moves_no_other(tmp_path: Path) -> None:
    """Shards are parts of the listing; the shards without the bad image are byte for byte what they were."""
    coco = draw_coco(tmp_path / "coco")
    make_shards(tiny_recipe(coco, tmp_path / "good"))
    (coco / "train2014" / "COCO_train2014_000000000013.jpg").write_text("no image any more")
    make_shards(tiny_recipe(coco, tmp_path / "bad", "data.max_bad_share=0.1"))
    tars = [(tmp_path / root / "train" / "shard-000001.tar").read_bytes() for root in ("good", "bad")]
    assert tars[0] == tars[1]
    keys = [sample["__key__"] for sample in samples_of(tmp_path / "bad" / "train")]
    assert keys == [f"{7 + 3 * number:012d}" for number in range(10) if number != 2]
    assert stored_ids(ShardSet.open(tmp_path / "bad" / "train")) == [int(key) for key in keys]


def test_a_shard_may_be_empty(tmp_path: Path) -> None:
    coco = draw_coco(tmp_path / "coco")
    for number in range(4, 8):
        (coco / "train2014" / f"COCO_train2014_{7 + 3 * number:012d}.jpg").unlink()
    make_shards(tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.5"))
    assert stored_ids(ShardSet.open(tmp_path / "out" / "train")) == [7, 10, 13, 16, 31, 34]
    for path in (coco / "train2014").iterdir():
        path.unlink()
    with pytest.raises(UserError, match=r"none of the 10 samples can be used: 10 missing file"):
        make_shards(tiny_recipe(coco, tmp_path / "none", "data.max_bad_share=1.0"))


def test_an_encoding_that_is_not_finite_is_quarantined(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = draw_coco(tmp_path / "coco")
    encoded = ShardWriter.encoded

    def overflowing(self: ShardWriter, images, pixels):
        for sample in encoded(self, images, pixels):
            if sample.id == 13:
                sample.moments[0, 0, 0] = np.inf
            yield sample

    monkeypatch.setattr(ShardWriter, "encoded", overflowing)
    index = make_shards(tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=0.1"))
    assert index is not None
    assert index["quarantined"] == {"not finite": {"count": 1, "ids": [13], "image": "COCO_train2014_000000000013.jpg"}}
    assert FLOAT.itemsize == 2


def test_storage_that_fails_stops_the_job_and_marks_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    coco = draw_coco(tmp_path / "coco")
    opened = images_module.open_image

    def failing(image):
        if image.id == 13:
            raise OSError(5, "Input/output error")
        return opened(image)

    monkeypatch.setattr(images_module, "open_image", failing)
    with pytest.raises(UserError, match=r"^image 13: .*reading it fails .*Input/output error"):
        make_shards(tiny_recipe(coco, tmp_path / "out", "data.max_bad_share=1.0"))
    assert not list(tmp_path.glob("out/train/shard-*.json"))


def test_damage_of_the_source_is_an_error_and_nothing_is_written(tmp_path: Path) -> None:
    path = make_tar(tmp_path / "tars" / "a.tar", {"a.jpg": b"x" * 900, "a.txt": b"a cat"})
    path.write_bytes(path.read_bytes()[:1600])
    with pytest.raises(UserError, match=rf"^{path}: at byte 1536: "):
        make_shards(recipe_of("image_tars", path, tmp_path / "out"))
    assert not list(tmp_path.glob("out/train/shard-*"))


def test_the_dry_run_says_how_many_bytes_and_makes_nothing(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    coco = draw_coco(tmp_path / "coco")
    edit_annotations(coco, lambda content: content["annotations"][0].update(caption=""))
    recipe = tmp_path / "tiny.yaml"
    values = tiny_values(coco, tmp_path / "out")
    values["data"]["max_bad_share"] = 0.2
    recipe.write_text(yaml.safe_dump(values))
    assert main(["shards", str(recipe), "--dry-run", "--workers", "4"]) == 0
    said = capsys.readouterr().out
    assert not (tmp_path / "out").exists()
    assert "10 samples with 18 captions in 3 shards: float16 moments 9.22 KB, token ids " in said
    assert "dropped captions: 1 empty (id 34, COCO_train2014_000000000034.jpg)" in said
    for storage in ("embeddings", "token_ids"):
        root = tmp_path / storage
        assert main(["shards", str(recipe), "--out", str(root), "--set", f"data.text_storage={storage}"]) == 0
        (line,) = [line for line in said.splitlines() if f"data.text_storage={storage}: " in line]
        predicted = int(line.split(": ")[1].split()[0].replace(",", ""))
        sizes = [path.stat().st_size for path in root.glob("train/*.tar")]
        assert 0 <= sum(sizes) - predicted <= 10_240 * len(sizes)
    assert re.search(r"data\.text_storage=embeddings: [\d,]+ bytes.* \(the recipe has this\)", said)
