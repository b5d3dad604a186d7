"""Model folders: what is written is read back, and another model's weights are refused."""

from pathlib import Path

import pytest
import torch

import ifvit
from ifvit.config.errors import UserError
from ifvit.config.schema import ModelConfig
from ifvit.model.uvit import UViT
from ifvit.model.weights import check_same_model, empty_model, load_weights, save_model

TINY = {"sample_size": 4, "hidden_size": 16, "num_attention_heads": 2, "depth": 2, "fusion": {"schedule": "early"}}


def test_a_model_folder_is_read_back(tmp_path: Path) -> None:
    model = UViT(ModelConfig.model_validate(TINY))
    save_model(tmp_path / "model", model.config, model.state_dict())
    loaded = ifvit.load_model(tmp_path / "model")
    assert loaded.config == model.config
    assert not loaded.training
    assert all(torch.equal(loaded.state_dict()[name], tensor) for name, tensor in model.state_dict().items())


def test_half_precision_halves_the_file_and_is_read_as_float32(tmp_path: Path) -> None:
    model = UViT(ModelConfig.model_validate(TINY))
    for name, dtype in (("fp32", torch.float32), ("fp16", torch.float16)):
        save_model(tmp_path / name, model.config, model.state_dict(), dtype)
    sizes = [(tmp_path / name / "model.safetensors").stat().st_size for name in ("fp32", "fp16")]
    saved = 2 * sum(parameter.numel() for parameter in model.parameters())
    assert sizes[0] - sizes[1] == pytest.approx(saved, abs=64)  # the file's header is padded
    loaded = ifvit.load_model(tmp_path / "fp16").state_dict()
    for name, tensor in model.state_dict().items():
        assert loaded[name].dtype == torch.float32 and torch.equal(loaded[name], tensor.half().float())


def test_fields_tell_models_apart_whose_shapes_are_equal() -> None:
    here = ModelConfig.model_validate(TINY)
    there = ModelConfig.model_validate(TINY | {"conditioning": "concat", "num_attention_heads": 4})
    check_same_model(here.model_dump(mode="json"), here, "x")
    with pytest.raises(
        UserError, match=r"x: weights of another model: model\.num_attention_heads is 4 there and 2 here"
    ):
        check_same_model(there.model_dump(mode="json"), here, "x")


def test_other_shapes_are_refused_by_name() -> None:
    model = UViT(ModelConfig.model_validate(TINY))
    weights = dict(model.state_dict())
    weights["text_embed.bias"] = torch.zeros(3)
    with pytest.raises(UserError, match=r"text_embed\.bias is \(3,\) there and \(16,\) here"):
        load_weights(model, weights, "somewhere")
    del weights["text_embed.bias"]
    with pytest.raises(UserError, match=r"text_embed\.bias is missing there"):
        load_weights(model, weights, "somewhere")


def test_a_folder_without_a_model_is_named(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"no model here, config\.json is missing"):
        ifvit.load_model(tmp_path)


def test_an_empty_model_draws_nothing_and_takes_all_weights() -> None:
    config = ModelConfig.model_validate(TINY)
    model = UViT(config)
    state = torch.get_rng_state()
    empty = empty_model(config, torch.device("cpu"))
    assert torch.equal(torch.get_rng_state(), state)
    load_weights(empty, model.state_dict(), "the other")
    assert all(torch.equal(there, model.state_dict()[name]) for name, there in empty.state_dict().items())
