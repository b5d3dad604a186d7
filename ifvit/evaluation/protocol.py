"""How an evaluation's numbers were made. Numbers of different protocols are never compared."""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any

from ifvit.config.loading import leaves
from ifvit.config.schema import SamplingConfig
from ifvit.diffusion.guidance import omega_from_guidance_scale
from ifvit.encoders.clip import Clip
from ifvit.encoders.loading import Encoders
from ifvit.evaluation.prompts import PromptList
from ifvit.evaluation.references import pixels_digest


def evaluation_protocol(
    lists: Sequence[PromptList],
    reals: Sequence[Any],
    sampling: SamplingConfig,
    seed: int,
    encoders: Encoders,
    clip: Clip,
) -> dict[str, Any]:
    """All that two evaluations must have in common for their numbers to be compared; encoders by their content.

    `reals` are the real images of each list, (N, height, width, 3) uint8.
    """
    return {
        "splits": {
            listed.split: {
                "num_images": len(real),
                "image_size": real.shape[1],
                "captions_sha256": listed.digest,
                "references_sha256": pixels_digest(real),
            }
            for listed, real in zip(lists, reals, strict=True)
        },
        "guidance_scale": sampling.guidance_scale,
        "omega": omega_from_guidance_scale(sampling.guidance_scale),
        "solver": sampling.solver,
        "num_inference_steps": sampling.num_inference_steps,
        "seed": seed,
        "autoencoder": content(encoders.autoencoder.identity),
        "text_encoder": content(encoders.text_encoder.identity),
        "clip": content(clip.identity),
    }


def content(identity: Mapping[str, Any]) -> dict[str, Any]:
    """What an encoder is, wherever it lies."""
    return {name: value for name, value in identity.items() if name.endswith("sha256")}


def short_digest(*values: Any) -> str:
    """Eight hexadecimal digits that tell `values`, of JSON, from others."""
    return hashlib.sha256(json.dumps(values, sort_keys=True).encode()).hexdigest()[:8]


def differing_fields(first: Mapping[str, Any], second: Mapping[str, Any]) -> list[str]:
    """Dotted names of what two protocols do not have in common."""
    ours, theirs = dict(leaves(first)), dict(leaves(second))
    return [name for name in dict.fromkeys([*ours, *theirs]) if ours.get(name) != theirs.get(name)]
