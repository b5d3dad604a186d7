"""Scenes that several tests of data_prep read."""

from pathlib import Path

import pytest

from data_prep.scene_drawing import SceneOptions
from data_prep.scene_set import SceneSet, read_scene_set
from data_prep.scenes import make_scenes


@pytest.fixture(scope="session")
def scenes_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 scenes of train, 40 of val and of unseen."""
    folder = tmp_path_factory.mktemp("scenes") / "scenes"
    make_scenes(folder, SceneOptions(), num_images=120, num_held_out_images=40, seed=3, workers=1)
    return folder


@pytest.fixture(scope="session")
def train_scenes(scenes_folder: Path) -> SceneSet:
    return read_scene_set(scenes_folder, "train")
