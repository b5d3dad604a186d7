"""What a verification found: on a terminal, and as JSON."""

from typing import Any

from data_prep.array_task import ArrayTask
from data_prep.set_description import tally_of
from data_prep.set_verification import SetVerification
from data_prep.storage_sizes import readable
from ifvit.config.errors import printable

MAX_LINES = 50  # of faults
PAPER_FACTOR = 0.23010


def fault_lines(found: SetVerification, repair: str) -> list[str]:
    """A line for each fault, then how many more there are, and what mends them."""
    shown = found.faults.kept[:MAX_LINES]
    lines = [printable(f"{found.folder}/{fault}") for fault in shown]
    if more := found.faults.count - len(shown):
        lines.append(f"and {more:,} more")
    again = f"what is damaged is made again, with every --set that the shards were made with, by: {repair}"
    faults = "1 fault" if found.faults.count == 1 else f"{found.faults.count:,} faults"
    return [*lines, f"{faults} in all; {again}"]


def share_line(found: SetVerification, share: ArrayTask) -> str:
    """A share without faults."""
    units = share.units(found.num_shards)
    return (
        f"{found.folder}: {len(units):,} of {found.num_shards:,} shards were read again and are sound "
        f"(task {share.number} of {share.count}), and so are the files beside them"
    )


def summary_lines(found: SetVerification) -> list[str]:
    """A sound set, in a few lines."""
    index = found.sound_index
    lines = [
        f"{found.folder}: sound: {found.num_shards:,} shards, {found.num_samples:,} samples, "
        f"{found.num_prompts:,} captions, {readable(found.num_bytes)}"
    ]
    for name, values in (("quarantined samples", index.quarantined), ("dropped captions", index.dropped_captions)):
        if values:
            lines.append(printable(f"{name}: {tally_of(values)}"))
    channels = ", ".join(f"{each.mean:+.3f} +- {each.deviation:.3f}" for each in found.latents.channels())
    lines += [*factor_lines(found), f"latents, mean +- deviation of each channel: {channels}", lengths_text(found)]
    return lines + notes(found)


def factor_lines(found: SetVerification) -> list[str]:
    """The scaling factors, and what the paper's may be compared with."""
    index, measured = found.sound_index, found.recomputed_scaling_factor
    assert measured is not None, "all samples of a sound set are read"
    used = f"{index.scaling_factor:.5f} is used"
    if abs(index.scaling_factor / measured - 1) > 0.01:
        used += f" (scaled latents then have deviation {index.scaling_factor / measured:.3f})"
    return [
        f"scaling_factor: {used}, {measured:.5f} is measured on these latents",
        f"({PAPER_FACTOR:.5f}, the paper's, was measured with Stable Diffusion v1's autoencoder on COCO at 256 px; any "
        "other has its own)",
    ]


def lengths_text(found: SetVerification) -> str:
    """How long captions are."""
    lengths, most = found.lengths, found.sound_index.shapes.num_text_tokens
    text = (
        f"captions: {lengths.mean:.1f} tokens on average with start and end, 99% have at most {lengths.quantile(0.99)}"
    )
    if found.counts_cut:
        return f"{text}; {lengths.num_cut:,} ({lengths.num_cut / lengths.total:.2%}) are cut at {most}"
    return f"{text}; {lengths.num_full:,} ({lengths.num_full / lengths.total:.2%}) are cut at {most} or just as long"


def notes(found: SetVerification) -> list[str]:
    """What must be known of the encoders and the listing."""
    index = found.sound_index
    random = [
        f"note: {encoder.name} has random weights: these shards check the machinery, not quality"
        for encoder in (index.autoencoder, index.text_encoder)
        if encoder.random
    ]
    missing = [] if found.listing else ["note: there is no listing beside the shards: nothing to compare counts with"]
    return [printable(line) for line in [*random, *missing]]


def fault_record(found: SetVerification) -> dict[str, Any]:
    """What is wrong, for `--json`."""
    return {
        "folder": str(found.folder),
        "is_sound": not found.faults,
        "num_faults": found.faults.count,
        "faults": [vars(fault) for fault in found.faults.kept],
        "shards": found.num_shards,
        "damaged_shards": sorted(found.faults.shards),
    }


def record(found: SetVerification) -> dict[str, Any]:
    """All numbers, for `--json`. Of a damaged set only what is wrong."""
    if found.faults:
        return fault_record(found)
    index, lengths = found.sound_index, found.lengths
    return fault_record(found) | {
        "samples": found.num_samples,
        "prompts": found.num_prompts,
        "size": found.num_bytes,
        "quarantined": tally_of(index.quarantined).as_json(),
        "dropped_captions": tally_of(index.dropped_captions).as_json(),
        "autoencoder": vars(index.autoencoder),
        "text_encoder": vars(index.text_encoder),
        "scaling_factor": index.scaling_factor,
        "measured_scaling_factor": found.recomputed_scaling_factor,
        "paper_scaling_factor": PAPER_FACTOR,
        "latents": [vars(channel) for channel in found.latents.channels()],
        "caption_lengths": {
            "counts": lengths.counts.tolist(),
            "mean": lengths.mean,
            "full": lengths.num_full,
            "cut": lengths.num_cut if found.counts_cut else None,
        },
    }
