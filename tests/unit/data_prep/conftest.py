"""Scenes and shards that several tests of data_prep read."""

import shutil
from pathlib import Path

import pytest

from data_prep.scene_drawing import SceneOptions
from data_prep.scene_set import SceneSet, read_scene_set
from data_prep.scenes import make_scenes
from data_prep.shards import make_shards
from tests.drawn_coco import draw_coco, tiny_recipe


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 scenes of train, 40 of val and of unseen."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(folder, SceneOptions(), num_images=120, num_held_out_images=40, seed=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def train_scenes(scenes_folder: Path) -> SceneSet:
    return read_scene_set(scenes_folder, "train")


@pytest.fixture(scope="session")
def drawn_coco(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Ten drawn images in COCO's layout; read only."""
    return draw_coco(tmp_path_factory.mktemp("coco"))


@pytest.fixture(scope="session")
def made_shards(drawn_coco: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The root of their shards, three with embeddings; read only."""
    root = tmp_path_factory.mktemp("shards")
    make_shards(tiny_recipe(drawn_coco, root))
    return root


@pytest.fixture
def own_shards(made_shards: Path, tmp_path: Path) -> Path:
    """A copy of the root."""
    return shutil.copytree(made_shards, tmp_path / "shards")
