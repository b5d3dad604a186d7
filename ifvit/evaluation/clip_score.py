"""CLIP score: how well an image fits the prompt it was made from, in the two forms that papers print."""

from typing import Any

from torch.nn import functional as F

from ifvit.evaluation.metric import Column, ImageSet, Metric

PAPER_PREFIX, PAPER_FACTOR = "A photo depicts ", 2.5


def measure(images: ImageSet, real: ImageSet) -> dict[str, Any]:
    """Means over the images: `cosine` of image and prompt; `paper_form`, 2.5 max(cosine, 0) of the prefixed prompt.

    The paper's numbers (arXiv 2403.16530, 0.575 to 0.588) are of the second form.
    """
    image_features = F.normalize(images.image_embeds)

    def cosines(prefix: str) -> Any:
        return (image_features * images.clip.text_features([prefix + prompt for prompt in images.prompts])).sum(dim=1)

    return {
        "cosine": cosines("").mean().item(),
        "paper_form": PAPER_FACTOR * cosines(PAPER_PREFIX).clamp(min=0).mean().item(),
        "remark": (
            f"CLIP score: cosine of image and caption in CLIP {images.clip.identity['name']}; the paper's form: "
            f"{PAPER_FACTOR} max(cosine, 0) with the caption behind '{PAPER_PREFIX.strip()}'"
        ),
    }


METRIC = Metric(
    measure,
    (
        Column("cosine", "CLIP score", decimals=3, more_is_better=True),
        Column("paper_form", "paper's form", decimals=3, more_is_better=True, is_plotted=False),
    ),
)
