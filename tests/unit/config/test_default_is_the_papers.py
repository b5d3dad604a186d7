"""recipes/coco256 resolve to the paper's recipe (facts.md, section 2) and to nothing beside it.

Every field of a recipe is in exactly one of three lists: the paper's values; options of ours, off or neutral there; and
what changes no number (places, names, logs). So a new field must say which it is.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from pydantic import BaseModel

from ifvit.config.loading import load_recipe

COCO256 = Path(__file__).parents[3] / "recipes/coco256"
CELLS = {
    "concat_early": ("concat", {"schedule": "early"}),
    "concat_intermediate": ("concat", {"schedule": "intermediate", "num_image_blocks": 4, "num_text_blocks": 1}),
    "cross_early": ("cross_attention", {"schedule": "early"}),
    "cross_intermediate": (
        "cross_attention",
        {"schedule": "intermediate", "num_image_blocks": 4, "num_text_blocks": 1},
    ),
}
PAPER: dict[str, Any] = {
    "seed": 1234,
    "data.split": "train",
    "encoders.autoencoder": "CompVis/stable-diffusion-v1-4/vae",
    "encoders.text_encoder": "openai/clip-vit-large-patch14",
    "encoders.scaling_factor": 0.23010,
    "model.sample_size": 32,
    "model.in_channels": 4,
    "model.patch_size": 2,
    "model.hidden_size": 512,
    "model.num_attention_heads": 8,
    "model.depth": 12,
    "model.mlp_ratio": 4.0,
    "model.qkv_bias": False,
    "model.text_hidden_size": 768,
    "model.num_text_tokens": 77,
    "diffusion.num_train_timesteps": 1000,
    "diffusion.beta_start": 0.00085,
    "diffusion.beta_end": 0.0120,
    "train.max_steps": 1_000_000,
    "train.global_batch_size": 256,
    "train.caption_dropout_prob": 0.1,
    "optimizer.learning_rate": 2.0e-4,
    "optimizer.weight_decay": 0.03,
    "optimizer.adam_betas": (0.9, 0.9),
    "optimizer.adam_epsilon": 1.0e-8,
    "optimizer.warmup_steps": 5000,
    "ema.decays": (0.9999,),
    "sampling.guidance_scale": 4.0,  # the paper's omega 3.0
    "sampling.num_inference_steps": 50,
    "sampling.solver": "dpmsolver++_singlestep_3",
    "train.max_grad_norm": None,  # the paper does not clip
}
NEUTRAL: dict[str, Any] = {
    "data.mixture": {},
    "data.validation_split": None,
    "encoders.tokenizer": None,
    "model.time_embedding_mlp": False,
    "train.init_from": None,
    "train.activation_checkpointing": 0.0,
    "train.bad_steps.spike_threshold": None,
    "train.bad_steps.max_rollbacks": 0,
    "runtime.zero_stage": 1,  # the same numbers as stage 0; bf16 needs it
    "runtime.offload_optimizer": False,
    "runtime.compile": False,
    "runtime.max_hours": None,
    "runtime.replica_check_every_steps": 0,
    "checkpoint.milestone_every_steps": None,
}
FREE = {
    "name",
    "data.coco_root",
    "data.image_folder",
    "data.image_tars",
    "data.shards_root",
    "data.cache_dir",
    "data.cache_bytes",
    "data.num_lanes",  # of shards at an address
    "data.text_storage",  # the same text states, stored or made in training
    "data.samples_per_shard",
    "data.encode_batch_size",
    "data.max_bad_share",
    "train.micro_batch_size",
    "train.precision",
    "train.bad_steps.spike_window",
    "train.bad_steps.max_in_a_row",
    "checkpoint.every_steps",
    "checkpoint.keep_last",
    "checkpoint.asynchronous",
    "checkpoint.max_failed_saves",
    "sampling.prompts",
    "sampling.every_steps",
    "sampling.batch_size",
    "tracking.mlflow",
    "tracking.mlflow_tracking_uri",
    "tracking.experiment",
    "tracking.log_every_steps",
    "tracking.straggler_ratio",
    "tracking.validation_every_steps",
    "tracking.validation_num_samples",
    "tracking.step_times_every_steps",
    "tracking.device_peak_tflops",
    "runtime.runs_root",
    "runtime.watchdog_seconds",
    "runtime.attention_backend",
}
OF_THE_CELL = {"model.conditioning", "model.fusion"}


def fields(section: BaseModel, prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted path, value) of every field below `section`; the fusion schedule is one value."""
    for name in type(section).model_fields:
        value, path = getattr(section, name), f"{prefix}{name}"
        if isinstance(value, BaseModel) and path not in OF_THE_CELL:
            yield from fields(value, f"{path}.")
        else:
            yield path, value


def test_every_field_is_in_exactly_one_list() -> None:
    lists = [set(PAPER), set(NEUTRAL), FREE, OF_THE_CELL]
    assert sum(map(len, lists)) == len(set.union(*lists))
    there = {path for path, _ in fields(load_recipe(COCO256 / "concat_early.yaml"))}
    assert there == set.union(*lists), "say of a new field whether it is the paper's, neutral, or changes no number"


@pytest.mark.parametrize("cell", CELLS)
def test_a_cell_has_the_papers_values_and_every_option_off(cell: str) -> None:
    values = dict(fields(load_recipe(COCO256 / f"{cell}.yaml")))
    conditioning, fusion = CELLS[cell]
    assert (values["model.conditioning"], values["model.fusion"].model_dump()) == (conditioning, fusion)
    expected = PAPER | NEUTRAL
    assert {path: values[path] for path in expected} == expected
