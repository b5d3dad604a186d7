"""The command line of data_prep: `python -m data_prep VERB ...`."""

from collections.abc import Sequence

from ifvit.config.verbs import run_verb

VERBS = {
    "coco": "download the images and captions of COCO 2014",
    "scenes": "draw a countable world of colored shapes with captions, in COCO's layout",
    "shards": "encode images and captions into shards of latents and text, as a recipe says",
    "verify": "read finished shards again, all of them: counts, digests, checksums, values; and a page to look at",
    "repair": "make again the shards that verify finds missing or damaged",
    "encoders": "train the small encoders that ifvit brings along, on scenes",
}


def main(argv: Sequence[str]) -> int:
    """Run the job that `argv` names. Returns the exit code."""
    return run_verb("python -m data_prep", "data_prep", VERBS, argv)
