"""Turn public weights into a model folder that ifvit.load_model(DIR) and `ifvit sample DIR --recipe ...` read.

Takes U-ViT's own text-to-image files and the fork's concat and cross variants. A .pth is read without running its code.
"""

import argparse
from pathlib import Path

from ifvit.runtime.files import refuse_used_folder


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("file", metavar="FILE", type=Path, help="the weights, .pth or .safetensors")
    parser.add_argument(
        "--reference-config",
        metavar="JSON",
        type=Path,
        required=True,
        help="the reference constructor's arguments: embed_dim, depth, num_heads, c, v, clip_dim, ...",
    )
    parser.add_argument("--out", metavar="DIR", type=Path, required=True, help="the model folder to write")


def run(arguments: argparse.Namespace) -> None:
    from ifvit.model.reference_weights import import_reference_weights
    from ifvit.model.uvit import UViT
    from ifvit.model.weights import load_weights, save_model

    refuse_used_folder(arguments.out, "--out")
    config, state_dict = import_reference_weights(arguments.file, arguments.reference_config)
    model = UViT(config)
    load_weights(model, state_dict, str(arguments.file))
    save_model(arguments.out, config, model.state_dict())
    parameters = sum(parameter.numel() for parameter in model.parameters())
    print(f"{arguments.out}: {config.conditioning}, {config.fusion.schedule} fusion, {parameters:,} parameters")
