"""Public weights under the reference's names, to our model: U-ViT's own files and the fork's fusion variants.

The reference counts `depth` without the mid block; its `c` is num_text_blocks and its `v` num_image_blocks. U-ViT's
own position table is [time, text, image], the fork's [image, time, text].
"""

import json
import re
from pathlib import Path
from typing import Any

import torch
from pydantic import ValidationError
from safetensors.torch import load_file
from torch import Tensor

from ifvit.config.errors import UserError
from ifvit.config.problems import recipe_problems
from ifvit.config.schema import ModelConfig

ARGUMENTS = {
    "img_size": "sample_size",
    "patch_size": "patch_size",
    "in_chans": "in_channels",
    "embed_dim": "hidden_size",
    "depth": "depth",
    "num_heads": "num_attention_heads",
    "mlp_ratio": "mlp_ratio",
    "qkv_bias": "qkv_bias",
    "mlp_time_embed": "time_embedding_mlp",
    "clip_dim": "text_hidden_size",
    "num_clip_token": "num_text_tokens",
}  # the reference constructor's arguments and our fields
FUSION_ARGUMENTS = ("c", "v")
NEUTRAL_ARGUMENTS = {
    "norm_layer": (None,),
    "qk_scale": (None,),
    "use_checkpoint": (True, False),
    "conv": (True,),
    "skip": (True,),
    "name": None,
}  # change no weight and no output at the values named; None: at any value
RENAMED = [
    (r"\battn\.proj\.", "to_out."),
    (r"\battn\.qkv\.", "to_qkv."),
    (r"\bmlp\.fc1\.", "mlp.0."),
    (r"\bmlp\.fc2\.", "mlp.2."),
    (r"\bskip_linear\.", "skip_proj."),
    (r"^time_embed\.", "time_mlp."),
    (r"^context_embed\.", "text_embed."),
    (r"^patch_embed\.proj\.", "patch_embed."),
    (r"^norm\.", "head.norm."),
    (r"^decoder_pred\.", "head.linear."),
    (r"^final_layer\.", "head.conv."),
    (r"^mid_block\.", "mid_block.block."),
    (r"^caption_blocks\.", "text_blocks."),
]


def import_reference_weights(weights_file: Path, config_file: Path) -> tuple[ModelConfig, dict[str, Tensor]]:
    """Our config and state dict for the reference's `weights_file` (.pth or .safetensors) and constructor arguments.

    Raises UserError when a file cannot be read, or a name or shape does not fit the arguments.
    """
    return import_state_dict(read_reference_weights(weights_file), config_file, str(weights_file))


def import_state_dict(
    reference: dict[str, Tensor], config_file: Path, source: str
) -> tuple[ModelConfig, dict[str, Tensor]]:
    """The same for weights that are loaded already; errors name them `source`."""
    weights = {name.removeprefix("module."): tensor for name, tensor in reference.items()}
    arguments = read_arguments(config_file)
    is_fork = any(name.startswith(("image_blocks.", "joint_blocks.", "caption_blocks.")) for name in weights)
    is_cross = any(name.endswith(".attn.q.weight") for name in weights)
    num_image_blocks, num_text_blocks = arguments.pop("v", 0), arguments.pop("c", 0)
    if num_image_blocks or num_text_blocks:
        fusion = {"schedule": "intermediate", "num_image_blocks": num_image_blocks, "num_text_blocks": num_text_blocks}
    else:
        fusion = {"schedule": "early"}
    fields = {ARGUMENTS[name]: value for name, value in arguments.items()}
    fields |= {"conditioning": "cross_attention" if is_cross else "concat", "fusion": fusion}
    try:
        config = ModelConfig.model_validate_json(json.dumps(fields))
    except ValidationError as error:
        raise UserError(*(f"{config_file}: {line}" for line in recipe_problems(error, ModelConfig))) from error
    return config, renamed(merge_query_key_value(weights, source), config, is_fork=is_fork, source=source)


def read_reference_weights(path: Path) -> dict[str, Tensor]:
    try:
        loaded: Any = load_file(path) if path.suffix == ".safetensors" else torch.load(path, "cpu", weights_only=True)
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except Exception as error:  # the two readers raise almost any type on a file that is something else
        raise UserError(
            f"{path}: not a file of plain weights, .pth or .safetensors ({type(error).__name__}); a file that runs "
            "code when it is read is refused"
        ) from error
    if not isinstance(loaded, dict) or not all(isinstance(value, Tensor) for value in loaded.values()):
        raise UserError(f"{path}: must hold a state dict, tensors by name and nothing around it")
    return loaded


def read_arguments(path: Path) -> dict[str, Any]:
    try:
        arguments = json.loads(path.read_text())
    except FileNotFoundError:
        raise UserError(f"{path}: no such file") from None
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise UserError(f"{path}: not JSON: {error}") from error
    if not isinstance(arguments, dict):
        raise UserError(f"{path}: must hold the reference constructor's arguments by name")
    for name in sorted(arguments.keys() - ARGUMENTS.keys() - set(FUSION_ARGUMENTS)):
        allowed = NEUTRAL_ARGUMENTS.get(name, ())
        if allowed is not None and arguments[name] not in allowed:
            known = ", ".join([*ARGUMENTS, *FUSION_ARGUMENTS])
            raise UserError(f"{path}: {name} = {arguments[name]} is not supported; known arguments: {known}")
        del arguments[name]
    return arguments


def merge_query_key_value(weights: dict[str, Tensor], source: str) -> dict[str, Tensor]:
    """The fork's cross variant keeps `q` and `kv` apart; we store one packed `qkv`."""
    merged = dict(weights)
    for name in weights:
        if ".attn.q." in name:
            key_value = name.replace(".attn.q.", ".attn.kv.")
            if key_value not in weights:
                raise UserError(f"{source}: has {name} and no {key_value}")
            merged[name.replace(".attn.q.", ".attn.qkv.")] = torch.cat((merged.pop(name), merged.pop(key_value)))
    return merged


def renamed(weights: dict[str, Tensor], config: ModelConfig, *, is_fork: bool, source: str) -> dict[str, Tensor]:
    if "pos_embed" not in weights:
        raise UserError(f"{source}: no U-ViT text-to-image weights: pos_embed is missing")
    state_dict = split_positions(weights["pos_embed"], config, is_fork=is_fork, source=source)
    for name, tensor in weights.items():
        if name != "pos_embed":
            state_dict[renamed_block(rename_parts(name), config)] = tensor
    return state_dict


def rename_parts(name: str) -> str:
    for pattern, replacement in RENAMED:
        name = re.sub(pattern, replacement, name)
    return name


def renamed_block(name: str, config: ModelConfig) -> str:
    """The fork numbers image-only and joint blocks apart; we number the whole in-path and the whole out-path."""
    in_path = config.plan.in_path
    num_image, num_fused = in_path.count("image"), in_path.count("fused")
    offsets = {
        "in_blocks": ("in_blocks", 0),
        "out_blocks": ("out_blocks", 0),
        "image_blocks": ("in_blocks", 0),
        "joint_blocks": ("in_blocks", num_image),
        "joint_skip_blocks": ("out_blocks", 0),
        "image_skip_blocks": ("out_blocks", num_fused),
    }
    if (match := re.match(r"(\w+_blocks)\.(\d+)\.(.*)", name)) and match[1] in offsets:
        stack, offset = offsets[match[1]]
        return f"{stack}.{offset + int(match[2])}.block.{match[3]}"
    return name


def split_positions(table: Tensor, config: ModelConfig, *, is_fork: bool, source: str) -> dict[str, Tensor]:
    num_text, num_patches = config.num_text_tokens, config.num_image_tokens - 1
    if table.shape[1] != 1 + num_text + num_patches:
        raise UserError(
            f"{source}: pos_embed has {table.shape[1]} positions, the arguments give 1 + {num_text} + {num_patches}"
        )
    if is_fork:
        patches, time, text = table.split((num_patches, 1, num_text), dim=1)
    else:
        time, text, patches = table.split((1, num_text, num_patches), dim=1)
    return {"image_position": torch.cat((time, patches), dim=1), "text_position": text}
