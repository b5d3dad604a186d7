"""Parameters and FLOPs of a recipe's model, for one image and one forward pass. A training step costs three times
that.

gflops counts 2 x MACs of linears and convolutions (the paper's column); gflops_with_attention adds the
products inside attention.
"""

import argparse
import json

from ifvit.config.arguments import add_recipe_arguments, recipe_from


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_recipe_arguments(parser)
    parser.add_argument("--json", action="store_true", help="print JSON")


def run(arguments: argparse.Namespace) -> None:
    recipe = recipe_from(arguments)
    from ifvit.model.flops import count_flops

    counted = count_flops(recipe.model)
    if arguments.json:
        print(json.dumps(counted))
        return
    print(f"{recipe.name}")
    print(f"  parameters             {counted['parameters']:>14,}")
    print(f"  GFLOPs                 {counted['gflops']:>14.3f}   linears and convolutions (the paper's column)")
    print(f"  GFLOPs with attention  {counted['gflops_with_attention']:>14.3f}")
