"""A model folder, config.json and model.safetensors: `import-weights` and `export` write it, `load_model` reads it."""

import json
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.config.problems import recipe_problems
from ifvit.config.schema import ModelConfig
from ifvit.model.uvit import UViT
from ifvit.runtime.files import make_readable

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"


def save_model(
    folder: Path, config: ModelConfig, state_dict: dict[str, Tensor], dtype: torch.dtype = torch.float32
) -> None:
    """Write `config` and the weights, as `dtype`, into `folder`, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    weights = {name: tensor.detach().to(dtype).contiguous() for name, tensor in state_dict.items()}
    save_file(weights, folder / WEIGHTS_FILE, metadata={"format": "pt"})
    make_readable(folder / WEIGHTS_FILE)
    (folder / CONFIG_FILE).write_text(json.dumps(config.model_dump(mode="json"), indent=2) + "\n")


def load_model(folder: str | Path) -> UViT:
    """The model in `folder`, in evaluation mode, on the CPU, in float32. Raises UserError when it cannot be read."""
    folder = Path(folder)
    model = UViT(read_model_config(folder))
    load_weights(model, read_weights(folder), str(folder))
    return model.eval()


def empty_model(config: ModelConfig, device: torch.device) -> UViT:
    """A model on `device` whose weights have no values yet; nothing is drawn and the host holds none of it."""
    with torch.device("meta"):
        model = UViT(config)
    return model.to_empty(device=device)


def read_model_config(folder: Path) -> ModelConfig:
    """The shape of the model in `folder`."""
    try:
        return ModelConfig.model_validate_json((folder / CONFIG_FILE).read_text())
    except FileNotFoundError:
        raise UserError(f"{folder}: no model here, {CONFIG_FILE} is missing (`ifvit export` writes it)") from None
    except ValidationError as error:
        raise UserError(*(f"{folder / CONFIG_FILE}: {line}" for line in recipe_problems(error, ModelConfig))) from error


def read_weights(folder: Path) -> dict[str, Tensor]:
    """The weights in `folder`, by parameter name."""
    try:
        return load_file(folder / WEIGHTS_FILE)
    except FileNotFoundError:
        raise UserError(f"{folder}: no model here, {WEIGHTS_FILE} is missing") from None
    except SafetensorError as error:
        raise UserError(f"{folder / WEIGHTS_FILE}: damaged: {error}") from error


def check_same_model(there: dict[str, Any], here: ModelConfig, source: str) -> None:
    """Raises UserError, naming `source`, unless `there` are the fields of `here`.

    Shapes alone do not tell models apart: both conditionings, for one, have the same parameters.
    """
    ours = here.model_dump(mode="json")
    if differing := [key for key in ours | there if ours.get(key) != there.get(key)]:
        fields = ", ".join(f"model.{key} is {there.get(key)} there and {ours.get(key)} here" for key in differing)
        raise UserError(f"{source}: weights of another model: {fields}")


@torch.no_grad()
def load_weights(model: UViT, weights: dict[str, Tensor], source: str) -> None:
    """Copy `weights` into `model`. Raises UserError, naming `source`, unless names and shapes are the model's."""
    expected = {name: tuple(parameter.shape) for name, parameter in model.state_dict().items()}
    found = {name: tuple(tensor.shape) for name, tensor in weights.items()}
    if different := sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name)):
        name = different[0]
        raise UserError(
            f"{source}: weights of another model: {name} is {found.get(name, 'missing')} there and "
            f"{expected.get(name, 'unknown')} here ({len(different)} parameters differ)"
        )
    model.load_state_dict(weights)
