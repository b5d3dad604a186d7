"""Takes away what is damaged in a folder of shards and has it made again, if that will give what was there before."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from data_prep.array_task import ArrayTask
from data_prep.faults import capped
from data_prep.folder_lock import LOCK_FILE, Claims, try_lock
from data_prep.listing import LISTING_FILE, LISTING_FOLDER
from data_prep.repair_conditions import Marks, has_listing_faults, refuse_changes, refuse_foreign_files
from data_prep.set_description import DescriptionError, DoneMark, ShardFacts
from data_prep.set_verification import SetVerification
from data_prep.shard_folder import CLAIMS_FILE
from data_prep.shard_job import shards_folder
from data_prep.shards import make_shards
from data_prep.verification_report import MAX_LINES
from ifvit.config.errors import UserError, printable
from ifvit.config.schema import Recipe
from ifvit.data.shard_format import INDEX_FILE, ShardFiles


def repair_shards(recipe: Recipe) -> None:
    """Prints what is removed and why, and what was made.

    Raises UserError: before anything is removed where it would not come back, else like `make_shards`.
    """
    folder = shards_folder(recipe)
    with sole_process(folder):
        found = SetVerification(folder)
        found.run()
        if not found.faults:
            print(f"{folder}: sound, nothing to repair")
            return
        marks = {number: mark_of(ShardFiles(folder, number)) for number in sorted(found.faults.shards)}
        remove_damaged(found, marks, recipe)
    if make_shards(recipe, ArrayTask(), num_workers=None) is None:
        print(f"{folder}: verify it when the other processes have made the rest")
        return
    verify_again(folder, {number: facts_of(found, number, mark) for number, mark in marks.items()})


@contextmanager
def sole_process(folder: Path) -> Iterator[None]:
    """Keeps other processes from making shards in `folder`. Raises UserError where one does so already."""
    if not folder.is_dir():
        raise UserError(f"{folder}: is no folder; `python -m data_prep shards RECIPE` makes shards")
    try:
        claims, lock = Claims(folder / CLAIMS_FILE), (folder / LOCK_FILE).open("a")
    except OSError as error:
        raise UserError(f"{folder}: cannot be written ({error.strerror})") from error
    with claims, lock:
        if not (claims.take_all() and try_lock(lock)):
            raise UserError(f"{folder}: another process makes shards here; repair when it has ended")
        yield


def mark_of(files: ShardFiles) -> DoneMark | None:
    try:
        return DoneMark.of(files)
    except DescriptionError:
        return None


def facts_of(found: SetVerification, number: int, mark: DoneMark | None) -> ShardFacts | None:
    """What a damaged shard was, None where nothing says so any more."""
    if found.index and number < len(found.index.shards):
        return found.index.shards[number]
    return mark


def remove_damaged(found: SetVerification, marks: Marks, recipe: Recipe) -> None:
    """Raises UserError, before anything is removed, where it would not come back as it was."""
    folder, reasons = found.folder, found.faults.reasons
    refuse_foreign_files(found)
    try:
        refuse_changes(found, marks, recipe)
    except UserError as error:
        names = [ShardFiles(folder, number).tar.name for number in marks] or list(reasons)
        what = f"to be made again{' from images' if marks else ''}: {', '.join(capped(names, MAX_LINES, len(names)))}"
        raise UserError(*error.lines, f"{folder}: {what}; nothing sound was touched") from error
    # First what says that others are whole.
    ordered = {INDEX_FILE: "it is written last of all"} | {
        ShardFiles(folder, number).mark.name: "its shard is made again" for number in marks
    }
    if has_listing_faults(found):
        ordered[f"{LISTING_FOLDER}/{LISTING_FILE}"] = "a file of its rows is damaged"
    removed = remove(folder, ordered | reasons)
    print("\n".join(capped(removed, MAX_LINES, len(removed))), flush=True)


def remove(folder: Path, reasons: Mapping[str, str]) -> list[str]:
    """A line for each of the files that was there."""
    lines = []
    for name, what in reasons.items():
        path = folder / name
        if path.is_file() or path.is_symlink():
            path.unlink()
            lines.append(printable(f"removed {path}: {what}"))
    return lines


def verify_again(folder: Path, before: Mapping[int, ShardFacts | None]) -> None:
    """What was made again. Raises UserError where it has faults."""
    found = SetVerification(folder)
    found.run(only=before.keys())
    if found.faults:
        raise UserError(*(f"{folder}/{fault}" for fault in found.faults.kept[:MAX_LINES]))
    print(f"{folder}: repaired: {len(before):,} shards made again, and verified")
    now = found.sound_index.shards
    changed = [facts.tar for number, facts in before.items() if facts and facts.differences(now[number])]
    if changed:
        names = ", ".join(capped(changed, MAX_LINES, len(changed)))
        print(
            f"note: {names} have other bytes than before: other versions or another kind of device encoded them, or "
            "their images have changed"
        )
