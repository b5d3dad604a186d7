"""The options of every command that makes images with a trained model."""

import argparse
import json


def add_sampling_arguments(parser: argparse.ArgumentParser) -> None:
    """--seed, what stands for fields of the recipe's sampling section, and which of a run's weights."""
    parser.add_argument("--seed", type=int, default=0, help="of the initial noise (default: 0)")
    parser.add_argument(
        "--guidance-scale",
        type=float,
        metavar="S",
        help="1 = off; the paper's omega = S - 1 (default: the recipe's, 4 unless it says so)",
    )
    parser.add_argument("--num-inference-steps", type=int, metavar="N", help="network evaluations (default: recipe's)")
    parser.add_argument("--batch-size", type=int, metavar="N", help="prompts at once (default: the recipe's)")
    parser.add_argument("--step", type=int, help="of a run's checkpoint (default: the newest intact one)")
    parser.add_argument("--ema-decay", type=float, metavar="D", help="which of a run's averages (default: the first)")


def sampling_overrides(arguments: argparse.Namespace) -> list[str]:
    """The options that stand for a field of the recipe's sampling section, as overrides "a.b=c"."""
    given = {name: getattr(arguments, name) for name in ("guidance_scale", "num_inference_steps", "batch_size")}
    return [f"sampling.{name}={json.dumps(value)}" for name, value in given.items() if value is not None]
