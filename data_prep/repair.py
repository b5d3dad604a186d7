"""Makes again what `verify` finds missing or damaged in a folder of shards, and leaves what is sound alone.

Verifies {data.shards_root}/{data.split}, removes what fails, makes it as `python -m data_prep shards` does, byte for
byte as it was, and verifies it. Before a shard is removed, settings and encoders must be those that the shards were
made with, and its images must be there. Refused while another process makes shards there.
"""

import argparse

from data_prep.shards import add_shards_arguments, shards_recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    add_shards_arguments(parser)


def run(args: argparse.Namespace) -> None:
    recipe = shards_recipe(args)

    from data_prep.shard_repair import repair_shards

    repair_shards(recipe)
