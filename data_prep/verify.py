"""Reads finished shards again, all of them, and says what is wrong with them.

Compares index.json, done-marks, index files, samples.index, the null embedding and the listing with each other; of
every tar the sha256, and each member's name, place, crc32 and content, which is never unpickled. Prints every fault and
what mends it; of a sound set counts, the measured scaling factor, and how long captions are. Writes nothing but
DIR/summary/index.html, a page with statistics and with samples to look at.

Of a huge set several processes, or the tasks of a job array, verify a share each (--task I --num-tasks N); whatever
ends one of them, its share alone is read again. What verified yesterday may be damaged today: it leaves no marks.
"""

import argparse
import json
import shlex
import sys
from pathlib import Path

from data_prep.array_task import add_task_arguments, array_task
from ifvit.config.arguments import add_set_argument
from ifvit.config.errors import UserError
from ifvit.config.loading import load_recipe
from ifvit.config.schema import Recipe


def add_arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("folder", type=Path, metavar="DIR", help="the folder of one split: {shards_root}/{split}")
    parser.add_argument("--recipe", metavar="RECIPE", help="says where the images are, for the page to show them too")
    add_set_argument(parser, "give a field of RECIPE another value, data.coco_root=DIR say")
    add_task_arguments(parser)
    parser.add_argument("--no-page", action="store_true", help="write no page")
    parser.add_argument("--json", action="store_true", help="print all numbers and faults as JSON")


def run(args: argparse.Namespace) -> None:
    recipe = recipe_of_images(args)

    from data_prep.set_files import reading
    from data_prep.set_verification import SetVerification
    from data_prep.verification_report import fault_lines, fault_record, record, share_line, summary_lines

    share = None if args.task is None and args.num_tasks is None else array_task(args.task, args.num_tasks)
    with reading(args.folder):
        found = SetVerification(args.folder)
        if num_missing := found.unfinished:
            raise UserError(
                f"{args.folder}: is not finished: {num_missing:,} of {found.num_shards:,} shards are still to be made; "
                "`python -m data_prep shards RECIPE` makes them, then verify"
            )
    if share is not None:
        with reading(args.folder):
            found.run(only=share.units(found.num_shards))
    elif args.no_page:
        with reading(args.folder):
            found.run()
    else:
        from data_prep.summary_page import NUM_PICTURED, SummaryPage

        page = SummaryPage(found, recipe)
        with reading(args.folder):
            found.run(NUM_PICTURED, page.num_longer)
        page.write()
    if args.json:
        print(json.dumps(record(found) if share is None else fault_record(found), indent=2))
    if found.faults:
        raise UserError(*fault_lines(found, repair_command(args)))
    if not args.json:
        print("\n".join(summary_lines(found) if share is None else [share_line(found, share)]))
    if share is None and not args.no_page:
        print(page.file, file=sys.stderr if args.json else sys.stdout)


def recipe_of_images(args: argparse.Namespace) -> Recipe | None:
    """The recipe whose images the page is to show. Raises UserError."""
    if args.recipe is None:
        if args.overrides:
            raise UserError("--set: changes a recipe; give that one with --recipe RECIPE")
        return None
    for option, is_given in (("--no-page", args.no_page), ("--task", args.task is not None)):
        if is_given:
            raise UserError(f"--recipe: says where images for the page are, but {option} leaves that out")
    # The images of the shards, whatever split the recipe trains on.
    split = json.dumps(args.folder.resolve().name, ensure_ascii=False)
    return load_recipe(args.recipe, [*args.overrides, f"data.split={split}"])


def repair_command(args: argparse.Namespace) -> str:
    """For a shell. Which recipe made the shards they do not tell."""
    folder = args.folder.resolve()
    overrides = [word for override in args.overrides for word in ("--set", override)]
    recipe = [args.recipe, *overrides] if args.recipe else ["RECIPE"]
    return shlex.join(
        ["python", "-m", "data_prep", "repair", *recipe, "--split", folder.name, "--out", str(folder.parent)]
    )
