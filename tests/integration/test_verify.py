"""`python -m data_prep verify` and `repair` as commands, on drawn images and on real ones."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from data_prep.main import main
from data_prep.shards import make_shards
from tests.drawn_coco import draw_coco, tiny_recipe, tiny_values
from tests.shard_folders import contents


@pytest.fixture(scope="module")
def coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="module")
def made(coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(coco, root))
    return root


@pytest.fixture
def folder(made: Path, tmp_path: Path) -> Path:
    return shutil.copytree(made, tmp_path / "shards") / "train"


@pytest.fixture
def recipe(coco: Path, folder: Path, tmp_path: Path) -> Path:
    path = tmp_path / "tiny.yaml"
    path.write_text(yaml.safe_dump(tiny_values(coco, folder.parent)))
    return path


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 3] ^= 1
    path.write_bytes(content)


def test_damage_is_found_repaired_and_gone(command: Callable, folder: Path, recipe: Path) -> None:
    sound = contents(folder)
    done = command("data_prep", "verify", folder, "--recipe", recipe)
    page = folder / "summary" / "index.html"
    lines = done.stdout.splitlines()
    assert lines[0] == f"{folder}: sound: 3 shards, 10 samples, 19 captions, 102 KB"
    assert lines[-1] == str(page)
    assert page.read_text().count("<img ") == 20
    assert "verifying: 3/3 shards" in done.stderr

    for name in ("shard-000001.tar", "shard-000002.json", "index.json"):
        flip(folder / name)
    done = command("data_prep", "verify", folder, code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert [line.split(": ")[1] for line in errors[:-1]] == [
        str(folder / name) for name in ("index.json", "shard-000001.tar", "shard-000002.json")
    ]
    repair = f"python -m data_prep repair RECIPE --split train --out {folder.parent}"
    assert errors[-1].startswith("error: 3 faults in all; what is damaged is made again, with every --set that ")
    assert errors[-1].endswith(f" by: {repair}")
    assert "Traceback" not in done.stderr and not done.stdout
    assert not page.exists()

    done = command("data_prep", "repair", recipe, *repair.split()[5:])
    assert f"{folder}: repaired: 2 shards made again, and verified" in done.stdout
    assert contents(folder) == sound
    command("data_prep", "verify", folder, "--no-page")
    assert contents(folder) == sound


def test_a_wrong_folder_of_images_is_told(command: Callable, folder: Path, recipe: Path) -> None:
    options = ["--recipe", recipe, "--set", "data.coco_root=/no/such"]
    done = command("data_prep", "verify", folder, *options)
    assert "note: Originals are not shown: data.coco_root: /no/such is no folder" in done.stderr


def test_as_json(command: Callable, folder: Path) -> None:
    done = command("data_prep", "verify", folder, "--json")
    report = json.loads(done.stdout)
    assert report["is_sound"] and report["samples"] == 10 and report["faults"] == []
    assert report["measured_scaling_factor"] == pytest.approx(report["scaling_factor"], rel=1e-9)
    assert len(report["latents"]) == 4 and sum(report["caption_lengths"]["counts"]) == 19
    assert str(folder / "summary" / "index.html") in done.stderr
    (folder / "shard-000001.tar").unlink()
    done = command("data_prep", "verify", folder, "--json", code=2)
    report = json.loads(done.stdout)
    assert not report["is_sound"] and report["damaged_shards"] == [1]
    assert report["faults"] == [{"file": "shard-000001.tar", "what": "is missing", "shard": 1, "is_foreign": False}]


@pytest.mark.parametrize("task", [[], ["--task", "0", "--num-tasks", "2"]])
def test_a_set_that_is_not_finished_is_not_called_damaged(folder: Path, command: Callable, task: list[str]) -> None:
    for name in ("index.json", "shard-000001.json", "shard-000001.tar"):
        (folder / name).unlink()
    done = command("data_prep", "verify", folder, *task, code=2)
    assert "is not finished: 1 of 3 shards are still to be made; `python -m data_prep shards" in done.stderr
    (folder / "shard-000001.json").write_text("{")  # damage, and repair is what mends it
    assert "faults in all" in command("data_prep", "verify", folder, *task, code=2).stderr


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["verify", "{folder}/.."], "holds no shards; give the folder of one split, such as "),
        (["verify", "{folder}" + "x" * 300], "xxx/listing/listing.json: cannot be read (File name"),
        (["verify", "{folder}", "--set", "data.split=x"], "--set: changes a recipe; give that one with --recipe"),
        (["verify", "{folder}", "--no-page", "--recipe", "x.yaml"], "--recipe: says where images for the page are"),
        (["verify", "{folder}", "--recipe", "no.yaml"], "no.yaml: no such recipe"),
        (["repair", "{recipe}", "--split", "val"], "val: is no folder"),
        (["repair", "{recipe}", "--set", "data.sampels=3"], "data.sampels: unknown field"),
    ],
)
def test_a_mistake_is_one_line(
    command: Callable, folder: Path, recipe: Path, arguments: list[str], message: str
) -> None:
    before = contents(folder)
    done = command("data_prep", *(word.format(folder=folder, recipe=recipe) for word in arguments), code=2)
    errors = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1 and message in errors[0], done.stderr
    assert contents(folder) == before


@pytest.mark.coco
def test_real_images_and_encoders(command: Callable, test_data: Path, tmp_path: Path) -> None:
    settings = {
        "data.coco_root": test_data / "coco_mini",
        "encoders.autoencoder": test_data / "vae_f8c4",
        "encoders.tokenizer": test_data / "clip_tokenizer",
        "data.text_storage": "token_ids",
    }
    overrides = [word for field, value in settings.items() for word in ("--set", f"{field}={value}")]
    options = ["recipes/coco_mini.yaml", *overrides]
    command("data_prep", "shards", *options, "--split", "val", "--out", tmp_path)
    done = command("data_prep", "verify", tmp_path / "val", "--json", "--recipe", *options)
    report = json.loads(done.stdout)
    assert report["is_sound"] and (report["samples"], report["prompts"]) == (100, 500)
    assert report["measured_scaling_factor"] == pytest.approx(0.575, rel=0.05)  # the data's README, on another split
    assert report["caption_lengths"]["mean"] == pytest.approx(13.5, abs=0.5)  # the data's README
    assert report["caption_lengths"]["cut"] == 0
    assert (tmp_path / "val" / "summary" / "index.html").read_text().count("<img ") == 48


def test_tasks_verify_a_share_each(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["verify", str(folder), "--task", "1", "--num-tasks", "2"]) == 0
    assert "1 of 3 shards were read again and are sound (task 1 of 2)" in capsys.readouterr().out
    assert not (folder / "summary").exists()
    flip(folder / "shard-000002.tar")
    assert main(["verify", str(folder), "--task", "1", "--num-tasks", "2", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["is_sound"]
    assert main(["verify", str(folder), "--task", "0", "--num-tasks", "2", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["damaged_shards"] == [2]
    assert main(["verify", str(folder), "--task", "0"]) == 2
    assert "--num-tasks: is missing" in capsys.readouterr().err
    assert main(["verify", str(folder), "--task", "0", "--num-tasks", "2", "--recipe", "x"]) == 2
    assert "--task leaves that out" in capsys.readouterr().err
