"""`ifvit data audit`: what it prints, that it is about the rows that the loader reads, and a million samples' index."""

import hashlib
import itertools
import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml

import ifvit.data.order
from data_prep.shards import make_shards
from ifvit.commands.audit_text import speed_text
from ifvit.commands.data_audit import announce_size
from ifvit.config.loading import merged
from ifvit.config.schema import Recipe
from ifvit.data.audit.audited_shards import AuditedShards
from ifvit.data.loader import BatchLoader
from ifvit.data.sample_stream import SampleStream
from ifvit.data.shard_format import CRC32, RECORD, SampleShapes, ShardFiles
from ifvit.data.shard_index import write_shard_index
from ifvit.data.shard_set import ShardSet
from ifvit.data.training_data import TrainingData
from tests.drawn_coco import draw_coco, tiny_recipe, tiny_values
from tests.integration.conftest import Command
from tests.range_server import running_server

SEED, BATCH, DROPOUT = 1234, 8, 0.3
CHECKS_OF_EVERY_SET = 10  # the exact ones and those that chance decides


@pytest.fixture(scope="module")
def sets(tmp_path_factory: pytest.TempPathFactory) -> TrainingData:
    """Two sets of shards, of 10 and of 23 samples, three to one."""
    root = tmp_path_factory.mktemp("sets")
    shard_sets = []
    for split, num_images in (("first", 10), ("second", 23)):
        draw_coco(root / "coco", split, num_images)
        make_shards(tiny_recipe(root / "coco", root / "shards", f"data.split={split}"))
        shard_sets.append(ShardSet.open(root / "shards" / split))
    return TrainingData(tuple(shard_sets), (3.0, 1.0))


@pytest.mark.parametrize("num_sets", [1, 2])
@pytest.mark.parametrize("rank, world_size", [(0, 1), (1, 4), (3, 4)])
def test_the_stream_that_is_audited_is_what_the_loader_reads(
    sets: TrainingData, num_sets: int, rank: int, world_size: int
) -> None:
    data = TrainingData(sets.sets[:num_sets], sets.weights[:num_sets])
    sizes = [AuditedShards.of(shard_set).num_samples_of for shard_set in data.sets]
    stream = SampleStream.of(sizes, data.weights, SEED, BATCH)
    with BatchLoader(data, SEED, BATCH, DROPOUT, rank, world_size, first_step=5) as loader:
        for step, batch in zip(range(5, 25), itertools.islice(loader, 20), strict=False):
            visits = stream.visits(stream.rank_positions(step, rank, world_size))
            assert (stream.ranks(visits.positions, world_size) == rank).all()
            ids = [
                int(data.sets[number].samples.records(np.array([sample]))["id"][0])
                for number, sample in zip(visits.sets, visits.samples, strict=True)
            ]
            assert batch.sample_ids.tolist() == ids
            is_dropped = [
                stream.orders[number].is_dropped(np.array([position]), np.array([sample]), DROPOUT)[0]
                for number, position, sample in zip(visits.sets, visits.own_positions, visits.samples, strict=True)
            ]
            assert batch.is_dropped.tolist() == is_dropped


@pytest.fixture
def recipe_file(sets: TrainingData, tmp_path: Path) -> Path:
    values = tiny_values(tmp_path / "coco", sets.sets[0].folder.parent)
    values["data"]["split"] = sets.sets[0].split
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def test_what_the_command_says_of_real_shards(recipe_file: Path, sets: TrainingData, ifvit_main: Command) -> None:
    done = ifvit_main("data", "audit", recipe_file, "--epochs", 3)
    assert f"{sets.sets[0].folder}: 10 samples in 3 shards" in done.stdout
    assert "each sample exactly once in an epoch" in done.stdout
    assert "10 of 10, 0 missing, 0 repeated in each of 3 epochs" in done.stdout
    assert "1, 2, 4 ranks: each row is read by one rank" in done.stdout  # of 4 rows
    assert done.stdout.splitlines()[-1].startswith("pass: ")
    assert "auditing: 32/32 samples" in done.stderr


def test_json_holds_the_whole_report(recipe_file: Path, sets: TrainingData, ifvit_main: Command) -> None:
    report = json.loads(ifvit_main("data", "audit", recipe_file, "--json", "--world-size", 2, 4).stdout)
    assert report["verdict"] == "pass"
    (audited,) = report["sets"]
    assert (audited["samples"], audited["shards"]) == (10, 3)
    assert audited["bytes"] == sum(path.stat().st_size for path in sets.sets[0].folder.glob("*.tar"))
    index_bytes = (sets.sets[0].folder / "samples.index").stat().st_size
    assert audited["index_bytes_per_sample"] == pytest.approx(index_bytes / 10)
    assert len(audited["checks"]) == CHECKS_OF_EVERY_SET
    assert [each["world_size"] for each in report["ranks"]] == [2, 4]
    assert report["seek_seconds"] > 0
    assert report["nanoseconds_per_index"] == {"4096": None, "65536": None}  # of 10 samples


def test_shards_at_an_address_are_audited_by_their_index_json(
    recipe_file: Path, sets: TrainingData, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, ifvit_main: Command
) -> None:
    """One set is fetched, the other lies here: the whole stream has lanes."""
    monkeypatch.setenv("no_proxy", "*")
    values = yaml.safe_load(recipe_file.read_text())
    fetched, local = sets.sets
    with running_server() as server:
        for name in ("index.json", "null_prompt_embeds.npy"):
            server.files[f"/{fetched.split}/{name}"] = (fetched.folder / name).read_bytes()
        mixture = {
            "here": {"shards_root": str(local.folder.parent), "split": local.split, "weight": 1},
            "there": {"shards_root": server.url, "split": fetched.split, "weight": 2},
        }
        changed = {"shards_root": None, "mixture": mixture, "cache_dir": str(tmp_path / "cache"), "num_lanes": 4}
        values["data"] = merged(values["data"], changed)
        recipe_file.write_text(yaml.safe_dump(values))
        report = json.loads(ifvit_main("data", "audit", recipe_file, "--json", "--epochs", 2).stdout)
    assert report["verdict"] == "pass" and report["num_lanes"] == 4
    assert [audited["name"] for audited in report["sets"]] == [str(local.folder), f"{server.url}/{fetched.split}"]
    assert [check["verdict"] for audited in report["sets"] for check in audited["checks"][:1]] == ["pass", "pass"]


def test_a_mixture_is_audited_set_by_set(recipe_file: Path, sets: TrainingData, ifvit_main: Command) -> None:
    mixture = {
        shard_set.split: {"shards_root": str(shard_set.folder.parent), "split": shard_set.split, "weight": weight}
        for shard_set, weight in zip(sets.sets, sets.weights, strict=True)
    }
    values = yaml.safe_load(recipe_file.read_text())
    values["data"] = merged(values["data"], {"shards_root": None, "mixture": mixture})
    recipe_file.write_text(yaml.safe_dump(values))
    done = ifvit_main("data", "audit", recipe_file)
    assert f"what must hold of {sets.sets[0].folder}" in done.stdout
    assert f"what must hold of {sets.sets[1].folder}" in done.stdout
    assert "23 of 23, 0 missing, 0 repeated" in done.stdout


@pytest.mark.parametrize(
    "arguments, words",
    [
        (["--num-shards", 300, "--samples-per-shard", 1000], ["300,000 samples in 300 shards", "all positions"]),
        (["--num-shards", 300, "--num-lanes", 64], ["300 shards", "64 lanes", "In lanes, few shards", "not judged"]),
        (["--num-shards", 1_000_000, "--samples-per-shard", 1000, "--sampled"], ["1,000,000,000 samples", "sampled: "]),
    ],
)
def test_shards_on_paper(
    arguments: list, words: list[str], repository: Path, ifvit_main: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("ifvit.data.audit.stream_steps.SAMPLED_ROWS", 300_000)
    monkeypatch.setattr("ifvit.data.audit.set_audit.NUM_LOOKED_UP", 300_000)
    batch = ["train.global_batch_size=64", "train.micro_batch_size=64", "data.coco_root=/nowhere"]
    overrides = [part for each in batch for part in ("--set", each)]
    recipe = repository / "recipes/coco256/cross_intermediate.yaml"
    out = ifvit_main("data", "audit", recipe, *overrides, *arguments).stdout
    for word in words:
        assert word in out
    assert max(len(line) for line in out.splitlines()) <= 120
    assert "pass: " in out.splitlines()[-1]


def test_shards_on_paper_need_neither_images_nor_encoders(repository: Path, ifvit_main: Command) -> None:
    """That recipe leaves both to the command line."""
    recipe = repository / "recipes/coco_mini.yaml"
    done = ifvit_main("data", "audit", recipe, "--num-shards", 10)
    assert "1,280 samples in 10 shards" in done.stdout and "finding a sample in the order: not measured" in done.stdout
    assert "encoders.autoencoder: " in ifvit_main("data", "audit", recipe, code=2).stderr


def test_how_long_an_audit_takes_is_said_before(capsys: pytest.CaptureFixture[str]) -> None:
    for num_samples, said in ((10**8, "take minutes; with --sampled "), (10**10, "take hours; with --sampled ")):
        announce_size(num_samples, is_sampled=False)
        assert said in capsys.readouterr().err
    announce_size(10**7, is_sampled=False)
    announce_size(10**10, is_sampled=True)
    assert not capsys.readouterr().err


def test_the_speed_that_counts_is_that_of_the_smaller_number() -> None:
    assert speed_text({4096: 90.6, 65_536: 70.2}) == "91 ns, asked for 4,096 at a time (70 ns for 65,536)"
    assert speed_text({4096: 90.6, 65_536: None}) == "91 ns, asked for 4,096 at a time"


def test_a_wrong_order_is_our_fault(recipe_file: Path, ifvit_main: Command, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ifvit.data.order, "FEISTEL_ROUNDS", 1)
    done = ifvit_main("data", "audit", recipe_file, "--num-shards", 100, "--samples-per-shard", 100, code=1)
    assert "FAIL: " in done.stdout
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert "distance from a sample to the next" in error
    assert "fault of ifvit" in error


@pytest.mark.parametrize(
    "arguments, message",
    [
        (["--world-size", "2", "3"], "--world-size: 3 ranks cannot share train.global_batch_size = 4 equally"),
        (["--world-size", "0"], "--world-size: 0 ranks cannot share"),
        (["--epochs", "0"], "--epochs: is 0, must be 1 to"),
        (["--num-shards", "1000001"], "--num-shards: is 1000001, must be 1 to 1,000,000"),
        (["--samples-per-shard", "5"], "--samples-per-shard: is for shards on paper, give --num-shards as well"),
        (["--num-shards", "1000000", "--samples-per-shard", "100000"], "are too many to look at one by one"),
        (["--set", "data.shards_root=/nowhere"], "data.shards_root: /nowhere/first holds no finished shards"),
        (["--set", "model.sample_size=8"], "model.sample_size: is 8, but the shards in"),
    ],
)
def test_mistakes_are_one_line(recipe_file: Path, ifvit_main: Command, arguments: list[str], message: str) -> None:
    done = ifvit_main("data", "audit", recipe_file, *arguments, code=2)
    (error,) = [line for line in done.stderr.splitlines() if line.startswith("error: ")]
    assert message in error


NUM_SHARDS, SAMPLES_PER_SHARD, CAPTIONS = 1000, 1000, 5


@pytest.fixture
def million(tmp_path: Path) -> Path:
    """A recipe whose shards have an index of a million samples, and tars of the right size with nothing in them."""
    values = merged(tiny_values(tmp_path, tmp_path / "shards"), {"train": {"global_batch_size": 256}})
    recipe = Recipe.model_validate_json(json.dumps(values))
    write_index(tmp_path / "shards" / "train", AuditedShards.on_paper(recipe, NUM_SHARDS, SAMPLES_PER_SHARD), recipe)
    path = tmp_path / "recipe.yaml"
    path.write_text(yaml.safe_dump(values))
    return path


def write_index(folder: Path, paper: AuditedShards, recipe: Recipe) -> None:
    folder.mkdir(parents=True)
    size = int(paper.sizes[0])
    records = np.zeros((NUM_SHARDS, SAMPLES_PER_SHARD), RECORD)
    records["id"] = np.arange(NUM_SHARDS * SAMPLES_PER_SHARD).reshape(records.shape)
    records["offset"] = np.arange(SAMPLES_PER_SHARD) * (size // SAMPLES_PER_SHARD)
    records["num_prompts"] = CAPTIONS
    records["first_prompt_embeds"] = np.arange(SAMPLES_PER_SHARD) * CAPTIONS
    crc32 = bytes(CRC32.itemsize * SAMPLES_PER_SHARD * CAPTIONS)
    shards = []
    for number in range(NUM_SHARDS):
        files = ShardFiles(folder, number)
        index = records[number].tobytes() + crc32
        files.index.write_bytes(index)
        with files.tar.open("wb") as tar:
            tar.truncate(size)
        shards.append(
            {
                "tar": files.tar.name,
                "samples": SAMPLES_PER_SHARD,
                "prompts": SAMPLES_PER_SHARD * CAPTIONS,
                "size": size,
                "sha256": "0" * 64,
                "index_sha256": hashlib.sha256(index).hexdigest(),
            }
        )
    identity = {"name": "none", "sha256": "0" * 64, "random": True, "tokenizer": "none", "tokenizer_sha256": "0" * 64}
    described = {
        "split": "train",
        "text_storage": "embeddings",
        "scaling_factor": 1.0,
        "measured_scaling_factor": 1.0,
        "autoencoder": identity,
        "text_encoder": identity,
    }
    model = recipe.model
    shapes = SampleShapes(model.in_channels, model.sample_size, model.num_text_tokens, model.text_hidden_size)
    write_shard_index(folder, shards, shapes, np.zeros(shapes.prompt_embeds, np.float16), described)


def test_a_million_samples_fit_into_little_memory(million: Path, tmp_path: Path, repository: Path) -> None:
    """Index, order and audit of a million samples in a thousand shards, in a process of its own: below 2 GB."""
    out = tmp_path / "report.json"
    arguments = ["data", "audit", str(million), "--json", "--world-size", "1", "8", "64", "256"]
    with out.open("w") as stdout:
        process = subprocess.Popen([sys.executable, "-m", "ifvit", *arguments], cwd=repository, stdout=stdout)
        _, status, usage = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0
    report = json.loads(out.read_text())
    assert report["verdict"] == "pass"
    (audited,) = report["sets"]
    assert audited["samples"] == 1_000_000
    assert audited["checks"][0]["found"] == "1,000,000 of 1,000,000, 0 missing, 0 repeated"
    assert {check["verdict"] for check in audited["checks"]} == {"pass"}
    assert audited["index_bytes_per_sample"] <= 110
    assert usage.ru_maxrss * 1024 < 2e9
    assert all(nanoseconds > 0 for nanoseconds in report["nanoseconds_per_index"].values())
    assert report["peak_memory_bytes"] <= usage.ru_maxrss * 1024
