"""Shards of ten drawn images, made once, with embeddings and with token ids."""

from pathlib import Path

import pytest

from data_prep.shards import make_shards
from ifvit.data.shard_set import ShardSet
from tests.drawn_coco import draw_coco, tiny_recipe


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
