"""Shards of ten drawn images, made once, with embeddings and with token ids; and shards on a web server."""

from collections.abc import Iterator
from pathlib import Path

import pytest

from data_prep.shards import make_shards
from ifvit.data import remote_folder
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, tiny_recipe
from tests.range_server import RangeServer
from tests.served_shards import NUM_SHARDS, served


@pytest.fixture(scope="session")
def drawn_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return draw_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="session")
def shards_root(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(drawn_root, root))
    return root


@pytest.fixture(scope="session")
def shard_set(shards_root: Path) -> ShardSet:
    return ShardSet.open(shards_root / "train")


@pytest.fixture(scope="session")
def token_shard_set(drawn_root: Path, tmp_path_factory: pytest.TempPathFactory) -> ShardSet:
    root = tmp_path_factory.mktemp("token_shards")
    make_shards(tiny_recipe(drawn_root, root, "data.text_storage=token_ids"))
    return ShardSet.open(root / "train")


@pytest.fixture(scope="session")
def eight_shards(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of eight shards of two samples."""
    root = tmp_path_factory.mktemp("eight")
    coco = draw_coco(root / "coco", num_images=2 * NUM_SHARDS)
    make_shards(tiny_recipe(coco, root / "shards", "data.samples_per_shard=2"))
    return root / "shards" / "train"


@pytest.fixture
def shard_server(eight_shards: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[RangeServer]:
    """It has the eight shards at /set. Tries follow each other at once."""
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr(remote_folder, "PAUSES", (0.0, 0.0))
    monkeypatch.setattr(remote_folder, "LONG_PAUSES", (0.0, 0.0))
    with served(eight_shards) as server:
        yield server
