"""The recipes in the repository: all valid, and the paper's hold every value of Table 3."""

from pathlib import Path

import pytest

from ifvit.config.errors import UserError
from ifvit.config.fusion import FusionPlan
from ifvit.config.loading import load_recipe, resolved_yaml
from ifvit.config.schema import Recipe

RECIPES = Path(__file__).parents[3] / "recipes"
CELLS = ["concat_early", "concat_intermediate", "cross_early", "cross_intermediate"]
NEEDED = ("data.coco_root", "encoders.autoencoder", "encoders.tokenizer")


def overrides_for(path: Path) -> list[str]:
    return [f"{dotted}=folder" for dotted in NEEDED] if path.name == "coco_mini.yaml" else []


@pytest.mark.parametrize(
    "path",
    [path for path in sorted(RECIPES.glob("**/*.yaml")) if path.name not in ("base.yaml", "recipe.yaml")],
    ids=lambda path: str(path.relative_to(RECIPES)),
)
def test_every_recipe_is_valid_and_survives_its_own_yaml(path: Path, tmp_path: Path) -> None:
    recipe = load_recipe(path, overrides_for(path))
    resolved = tmp_path / "recipe.yaml"
    resolved.write_text(resolved_yaml(recipe), encoding="utf-8")
    assert load_recipe(resolved) == recipe
    assert recipe.name == "_".join(path.relative_to(RECIPES).with_suffix("").parts)


def test_the_shipped_model_was_trained_by_the_recipe_that_its_page_names() -> None:
    of_the_model = load_recipe(RECIPES / "scenes/trained/recipe.yaml")
    measured = f"encoders.scaling_factor={of_the_model.encoders.scaling_factor}"  # from the shards
    assert of_the_model == load_recipe(RECIPES / "scenes/long.yaml", [measured])


@pytest.mark.parametrize("cell", CELLS)
def test_the_papers_cells_hold_the_papers_values(cell: str) -> None:
    recipe = load_recipe(RECIPES / "coco256" / f"{cell}.yaml")
    data, encoders, model, diffusion = recipe.data, recipe.encoders, recipe.model, recipe.diffusion
    assert data.split == "train"
    assert data.text_storage == "embeddings"
    assert encoders.autoencoder == "CompVis/stable-diffusion-v1-4/vae"
    assert encoders.text_encoder == "openai/clip-vit-large-patch14"
    assert encoders.scaling_factor == 0.23010
    assert (model.sample_size, model.in_channels, model.patch_size) == (32, 4, 2)
    assert (model.hidden_size, model.num_attention_heads, model.depth, model.mlp_ratio) == (512, 8, 12, 4.0)
    assert (model.qkv_bias, model.time_embedding_mlp) == (False, False)
    assert (model.text_hidden_size, model.num_text_tokens, model.num_image_tokens) == (768, 77, 257)
    assert (diffusion.num_train_timesteps, diffusion.beta_start, diffusion.beta_end) == (1000, 0.00085, 0.0120)
    assert (recipe.optimizer.learning_rate, recipe.optimizer.weight_decay) == (2e-4, 0.03)
    assert recipe.optimizer.adam_betas == (0.9, 0.9)
    assert recipe.optimizer.warmup_steps == 5000
    assert (recipe.train.max_steps, recipe.train.global_batch_size, recipe.seed) == (1_000_000, 256, 1234)
    assert recipe.train.caption_dropout_prob == 0.1
    assert recipe.ema.decays == (0.9999,)
    assert (recipe.sampling.solver, recipe.sampling.num_inference_steps) == ("dpmsolver++_singlestep_3", 50)
    assert recipe.sampling.guidance_scale == 1 + 3.0  # the paper's omega is 3.0


@pytest.mark.parametrize("cell", CELLS)
def test_the_four_cells_differ_in_conditioning_and_fusion_only(cell: str) -> None:
    recipe = load_recipe(RECIPES / "coco256" / f"{cell}.yaml")
    assert recipe.model.conditioning == ("concat" if cell.startswith("concat") else "cross_attention")
    if cell.endswith("early"):
        expected = FusionPlan(("fused",) * 6, num_text_blocks=0)
    else:
        expected = FusionPlan(("image",) * 4 + ("fused",) * 2, num_text_blocks=1)
    assert recipe.model.plan == expected
    assert recipe.model.plan.out_path == expected.in_path[::-1]
    reference = load_recipe(RECIPES / "coco256" / "cross_intermediate.yaml")
    model = reference.model.model_copy(
        update={"conditioning": recipe.model.conditioning, "fusion": recipe.model.fusion}
    )
    assert recipe == reference.model_copy(update={"name": recipe.name, "model": model})


def test_the_papers_values_are_the_defaults() -> None:
    """So a recipe that leaves a field out still means the paper's."""
    recipe = load_recipe(RECIPES / "coco256" / "cross_intermediate.yaml")
    bare = Recipe.model_validate(
        {
            "name": recipe.name,
            "data": {"coco_root": "a", "shards_root": "b"},
            "encoders": {"autoencoder": "c", "text_encoder": "d"},
        }
    )
    for section in ("model", "diffusion", "train", "optimizer", "ema", "runtime"):
        assert getattr(bare, section) == getattr(recipe, section)


@pytest.mark.parametrize("missing", NEEDED)
def test_coco_mini_asks_for_each_needed_value_in_one_line(missing: str) -> None:
    given = [f"{dotted}=folder" for dotted in NEEDED if dotted != missing]
    with pytest.raises(UserError) as error:
        load_recipe(RECIPES / "coco_mini.yaml", given)
    (line,) = error.value.lines
    assert line == f"{missing}: {RECIPES / 'coco_mini.yaml'} leaves it to you, give it with --set {missing}=..."
