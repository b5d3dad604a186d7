"""data_prep/scene_set.py"""

import json
import random
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from data_prep.scene_drawing import SceneOptions, draw_scene
from data_prep.scene_set import SceneSet, read_scene_set
from ifvit.config.errors import UserError


def test_a_set_is_what_was_drawn(train_scenes: SceneSet) -> None:
    assert len(train_scenes) == 120 and train_scenes.pixels.shape == (120, 64, 64, 3)
    for number in (0, 57, 119):
        scene = draw_scene(SceneOptions(), random.Random(f"3 train {number}"))
        assert np.array_equal(train_scenes.pixels[number], scene.pixels)
        assert train_scenes.descriptions[number] == scene.description
        assert train_scenes.boxes[number] == scene.boxes
        assert len(train_scenes.prompts[number]) == 5


@pytest.mark.parametrize("damage", ["truncated", "no image", "of another size", "empty"])
def test_a_damaged_image_is_named(scenes_folder: Path, tmp_path: Path, damage: str) -> None:
    copy = shutil.copytree(scenes_folder, tmp_path / "scenes")
    file = sorted(copy.glob("val2014/*.png"))[3]
    if damage == "of another size":
        Image.new("RGB", (32, 64)).save(file)
    else:
        whole = file.read_bytes()
        file.write_bytes({"truncated": whole[:-300], "no image": b"notes", "empty": b""}[damage])
    with pytest.raises(UserError, match=rf"^{file}: .*; delete it, and `python -m data_prep scenes` draws it again$"):
        read_scene_set(copy, "val")


def test_a_split_that_is_not_there_is_named(scenes_folder: Path, tmp_path: Path) -> None:
    copy = shutil.copytree(scenes_folder, tmp_path / "scenes")
    (file := copy / "annotations" / "captions_unseen2014.json").unlink()
    with pytest.raises(UserError, match=rf"^{file}: is missing, and train, val and unseen are needed"):
        read_scene_set(copy, "unseen")


def test_another_coco_folder_is_refused(scenes_folder: Path, tmp_path: Path) -> None:
    copy = tmp_path / "coco"
    shutil.copytree(scenes_folder, copy)
    instances = copy / "annotations" / "instances_val2014.json"
    content = json.loads(instances.read_text())
    for entry in content["images"]:
        del entry["scene"]
    instances.write_text(json.dumps(content))
    with pytest.raises(UserError, match=r"instances_val2014.json: is not of a folder made by"):
        read_scene_set(copy, "val")
