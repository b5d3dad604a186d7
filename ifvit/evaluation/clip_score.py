"""CLIP score: how well an image fits the prompt it was made from, in the two forms that papers print."""

from typing import Any

from torch.nn import functional as F

from ifvit.evaluation.metric import Column, ImageSet, Metric

PAPER_PREFIX, PAPER_FACTOR = "A photo depicts ", 2.5


def measure(images: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Means over the images: `cosine` of image and prompt; `paper_form`, 2.5 max(cosine, 0) of the prefixed prompt.

    The paper's numbers (arXiv 2403.16530, 0.575 to 0.588) are of the second form. It is left out with a CLIP that does
    not know the prefix's words: the bundled one has read scenes only. `num_truncated` captions are longer than the CLIP
    reads, with the prefix where it is used.
    """
    clip = images.clip
    image_features = F.normalize(images.image_embeds)

    def cosines(prefix: str) -> Any:
        return (image_features * images.prompt_set.text_features(prefix)).sum(dim=1)

    has_paper_form = clip.knows_words(PAPER_PREFIX)
    longest = [(PAPER_PREFIX if has_paper_form else "") + prompt for prompt in images.prompts]
    values: dict[str, Any] = {"cosine": cosines("").mean().item(), "num_truncated": clip.num_truncated(longest)}
    if has_paper_form:
        values["paper_form"] = PAPER_FACTOR * cosines(PAPER_PREFIX).clamp(min=0).mean().item()
        of_paper_form = f"{PAPER_FACTOR} max(cosine, 0) with the caption behind '{PAPER_PREFIX.strip()}'"
    else:
        of_paper_form = f"left out, as this CLIP does not know the words '{PAPER_PREFIX.strip()}'"
    name = clip.identity["name"]
    values["remarks"] = [f"CLIP score: cosine of image and caption in CLIP {name}; the paper's form: {of_paper_form}"]
    if num_truncated := values["num_truncated"]:
        values["remarks"].append(
            f"CLIP score: {num_truncated} of {len(longest)} captions were cut: CLIP {name} reads "
            f"{clip.num_text_tokens} tokens"
        )
    return values


METRIC = Metric(
    measure,
    (
        Column("cosine", "CLIP score", decimals=3, more_is_better=True),
        Column("paper_form", "paper's form", decimals=3, more_is_better=True, is_plotted=False),
    ),
)
