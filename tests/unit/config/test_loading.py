"""From YAML, `extends` and overrides to a recipe."""

from pathlib import Path
from textwrap import dedent

import pytest

from ifvit.config.errors import UserError
from ifvit.config.fusion import EarlyFusion, IntermediateFusion
from ifvit.config.loading import load_recipe, parse_overrides

MINIMAL = """\
name: small
data: {coco_root: images, shards_root: shards}
encoders: {autoencoder: random-autoencoder-small, text_encoder: random-clip-small}
"""


@pytest.fixture
def minimal(tmp_path: Path) -> Path:
    path = tmp_path / "minimal.yaml"
    path.write_text(MINIMAL)
    return path


def write(folder: Path, name: str, text: str) -> Path:
    path = folder / name
    path.write_text(dedent(text))
    return path


def lines_of(path: Path, *overrides: str) -> list[str]:
    with pytest.raises(UserError) as error:
        load_recipe(path, overrides)
    return list(error.value.lines)


def test_overrides_change_single_fields(minimal: Path) -> None:
    recipe = load_recipe(minimal, ["optimizer.learning_rate=1.0e-4", "ema.decays=[0.99, 0.999]", "name=other"])
    assert recipe.optimizer.learning_rate == 1e-4
    assert recipe.optimizer.weight_decay == 0.03
    assert recipe.ema.decays == (0.99, 0.999)
    assert recipe.name == "other"


def test_of_two_overrides_of_one_field_the_later_stands(minimal: Path) -> None:
    assert load_recipe(minimal, ["seed=1", "seed=2"]).seed == 2


def test_a_value_may_hold_an_equals_sign(minimal: Path) -> None:
    assert load_recipe(minimal, ["data.coco_root=/data/a=b"]).data.coco_root == "/data/a=b"


@pytest.mark.parametrize("value", ["tars/*.tar", "[tars/*.tar]"])
def test_tars_are_given_as_one_glob_or_a_list(minimal: Path, value: str) -> None:
    data = load_recipe(minimal, ["data.coco_root=null", f"data.image_tars={value}"]).data
    assert (data.image_tars, data.coco_root, data.image_folder) == (("tars/*.tar",), None, None)


@pytest.mark.parametrize("source", ["image_folder=images", "image_tars=tars/*.tar"])
def test_a_source_that_is_left_to_the_user_is_not_asked_for_beside_another(minimal: Path, source: str) -> None:
    minimal.write_text(MINIMAL.replace("coco_root: images", "coco_root: '???'"))
    data = load_recipe(minimal, [f"data.{source}"]).data
    assert data.coco_root is None
    assert getattr(data, source.partition("=")[0])
    (line,) = lines_of(minimal)
    assert line.startswith("data.coco_root: ")


def test_the_home_folder_may_be_written_with_a_tilde(minimal: Path) -> None:
    given = ["data.coco_root=null", "data.image_tars=['~/a.tar', b.tar]", "data.shards_root=~/shards"]
    data = load_recipe(minimal, given).data
    assert data.image_tars == (str(Path.home() / "a.tar"), "b.tar")
    assert data.shards_root == str(Path.home() / "shards")


@pytest.mark.parametrize("override", ["seed", "=3", "data.=3", ".seed=3"])
def test_an_override_of_another_form_is_refused(minimal: Path, override: str) -> None:
    assert lines_of(minimal, override) == [f"--set {override}: must have the form section.field=value"]


def test_an_override_that_is_no_yaml_is_refused(minimal: Path) -> None:
    (line,) = lines_of(minimal, "ema.decays=[0.9")
    assert line.startswith("--set ema.decays=[0.9: not a valid value: ")


def test_extends_takes_the_parents_values_where_the_child_has_none(minimal: Path) -> None:
    child = write(minimal.parent, "child.yaml", "extends: minimal.yaml\nname: child\ndata: {shards_root: elsewhere}\n")
    recipe = load_recipe(child)
    assert (recipe.name, recipe.data.coco_root, recipe.data.shards_root) == ("child", "images", "elsewhere")


def test_extends_goes_one_level_only(minimal: Path) -> None:
    write(minimal.parent, "child.yaml", "extends: minimal.yaml\n")
    grandchild = write(minimal.parent, "grandchild.yaml", "extends: child.yaml\n")
    (line,) = lines_of(grandchild)
    assert line.startswith(f"{minimal.parent / 'child.yaml'}: extends another recipe itself; only one level is allowed")


def test_a_missing_parent_is_named(minimal: Path) -> None:
    child = write(minimal.parent, "child.yaml", "extends: nothing.yaml\n")
    assert lines_of(child) == [f"{minimal.parent / 'nothing.yaml'}: no such recipe"]


@pytest.mark.parametrize("way", ["child", "override"])
def test_another_schedule_replaces_the_whole_section(tmp_path: Path, way: str) -> None:
    """The parent's num_image_blocks belongs to `intermediate`: kept under `early` it would be an unknown field."""
    fusion = "model: {fusion: {schedule: intermediate, num_image_blocks: 2, num_text_blocks: 3}}\n"
    parent = write(tmp_path, "parent.yaml", MINIMAL + fusion)
    if way == "child":
        child = write(tmp_path, "child.yaml", "extends: parent.yaml\nmodel: {fusion: {schedule: early}}\n")
        assert load_recipe(child).model.fusion == EarlyFusion()
    else:
        assert load_recipe(parent, ["model.fusion.schedule=early"]).model.fusion == EarlyFusion()


def test_the_same_schedule_merges(tmp_path: Path) -> None:
    fusion = "model: {fusion: {schedule: intermediate, num_image_blocks: 2, num_text_blocks: 3}}\n"
    parent = write(tmp_path, "parent.yaml", MINIMAL + fusion)
    expected = IntermediateFusion(num_image_blocks=1, num_text_blocks=3)
    assert load_recipe(parent, ["model.fusion.num_image_blocks=1"]).model.fusion == expected


def test_overrides_nest() -> None:
    assert parse_overrides(["a.b=1", "a.c=[2, 3]", "d=x"]) == {"a": {"b": 1, "c": [2, 3]}, "d": "x"}


def test_every_required_value_left_open_gets_its_line(tmp_path: Path) -> None:
    text = """\
        name: small
        data:
          coco_root: ???
          shards_root: shards
        encoders:
          autoencoder: random-autoencoder-small
          text_encoder: ???
        """
    path = write(tmp_path, "open.yaml", text)
    assert lines_of(path) == [
        f"data.coco_root: {path} leaves it to you, give it with --set data.coco_root=...",
        f"encoders.text_encoder: {path} leaves it to you, give it with --set encoders.text_encoder=...",
    ]
    assert load_recipe(path, ["data.coco_root=x", "encoders.text_encoder=y"]).data.coco_root == "x"


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "must be a mapping of sections"),
        ("- a\n- b\n", "must be a mapping of sections"),
        ("name: [unclosed\n", "not a valid recipe: while parsing a flow sequence"),
        ("name: a\nname: b\n", "the key 'name' stands twice in one section"),
        ("data:\n  split: a\n  split: b\n", "the key 'split' stands twice in one section"),
        ("[" * 10_000, "not a valid recipe"),
    ],
)
def test_a_file_that_is_no_recipe(tmp_path: Path, text: str, problem: str) -> None:
    path = write(tmp_path, "broken.yaml", text)
    (line,) = lines_of(path)
    assert line.startswith(f"{path}: ")
    assert problem in line
    assert "\n" not in line


def test_a_file_that_is_not_there_or_not_text(tmp_path: Path) -> None:
    assert lines_of(tmp_path / "nothing.yaml") == [f"{tmp_path / 'nothing.yaml'}: no such recipe"]
    binary = tmp_path / "binary.yaml"
    binary.write_bytes(b"name: \xff\xfe\n")
    (line,) = lines_of(binary)
    assert line.startswith(f"{binary}: cannot be read: ")
    (line,) = lines_of(tmp_path)
    assert line.startswith(f"{tmp_path}: cannot be read: ")


@pytest.mark.fault(
    "F18",
    injected="!!python/object in a recipe and in --set",
    detected="refused as a tag that nobody knows",
    recovered="-",
    lost="nothing; no code runs",
)
def test_python_objects_in_yaml_are_refused_and_nothing_runs(tmp_path: Path) -> None:
    mark = tmp_path / "mark"
    text = f"{MINIMAL}seed: !!python/object/apply:os.system ['touch {mark}']\n"
    (line,) = lines_of(write(tmp_path, "evil.yaml", text))
    assert "could not determine a constructor for the tag" in line
    (line,) = lines_of(write(tmp_path, "good.yaml", MINIMAL), f"seed=!!python/object/apply:os.system ['touch {mark}']")
    assert line.startswith("--set seed=")
    assert not mark.exists()
