"""What a CLIP is told of a scene while it learns: how many there are of which kind, where they stand, in which patch.

Only training knows these: the heads are thrown away, what they taught stays in the embeddings.
"""

from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from data_prep.scene_drawing import Box
from ifvit.data.scenes import COLORS, IMAGE_SIZE, INVERSE_RELATIONS, KINDS, MAX_COUNT, RELATIONS, SHAPES, Description

COUNTED: dict[str, list[object]] = {"kind": list(KINDS), "color": list(COLORS), "shape": list(SHAPES)}
COUNT_WEIGHTS = {"kind": 6.0, "color": 2.0, "shape": 2.0}
SIDE_WEIGHT = 3.0
SHAPE_PATCH_WEIGHT = 3.0  # of a patch with a shape, against one without: most have none


def agree(one: Description, other: Description) -> bool:
    """Whether a caption of the one may be true of the other; both with their groups in order."""
    return one.groups == other.groups and (
        one.relation == other.relation or one.relation is None or other.relation is None
    )


class AttributeHeads(nn.Module):
    """Linear readers of an embedding (B, P), the same ones for images and captions, and of an image's patch tokens."""

    def __init__(self, embedding_size: int, patch_width: int) -> None:
        super().__init__()
        self.counts = nn.ModuleDict(
            {name: nn.Linear(embedding_size, len(values) * (MAX_COUNT + 1)) for name, values in COUNTED.items()}
        )
        self.side = nn.Linear(embedding_size, len(KINDS) * len(RELATIONS))
        self.covered = nn.Linear(patch_width, len(KINDS) + 1)
        self.centre = nn.Linear(patch_width, len(KINDS) + 1)
        weights = torch.full((len(KINDS) + 1,), SHAPE_PATCH_WEIGHT)
        weights[0] = 1.0
        self.patch_weights: Tensor
        self.register_buffer("patch_weights", weights)

    def loss(self, embeds: Tensor, scenes: Sequence[Description]) -> Tensor:
        """Cross-entropy of counts, and of the side on which each kind stands; `embeds` (B, P) have length 1."""
        embeds = embeds * embeds.shape[1] ** 0.5
        total = embeds.new_zeros(())
        for name, targets in count_targets(scenes).items():
            logits = self.counts[name](embeds).view(len(scenes), -1, MAX_COUNT + 1)
            total = total + COUNT_WEIGHTS[name] * F.cross_entropy(logits.transpose(1, 2), targets)
        rows, kinds, sides = side_targets(scenes)
        if not len(rows):
            return total
        logits = self.side(embeds).view(len(scenes), len(KINDS), len(RELATIONS))
        return total + SIDE_WEIGHT * F.cross_entropy(logits[rows, kinds], sides)

    def patch_loss(self, tokens: Tensor, covered: Tensor, centre: Tensor) -> Tensor:
        """Cross-entropy of the kind that covers each patch and of the one centred in it; tokens (B, patches, width)."""
        tokens = tokens.flatten(0, 1)
        return F.cross_entropy(self.covered(tokens), covered.flatten(), self.patch_weights) + 2 * F.cross_entropy(
            self.centre(tokens), centre.flatten(), self.patch_weights
        )


def count_targets(scenes: Sequence[Description]) -> dict[str, Tensor]:
    """For each of `COUNTED` how many of each value a scene has: (B, values) int64."""
    targets = {name: torch.zeros(len(scenes), len(values), dtype=torch.int64) for name, values in COUNTED.items()}
    for row, scene in enumerate(scenes):
        for group in scene.groups:
            seen = {"kind": (group.color, group.shape), "color": group.color, "shape": group.shape}
            for name, value in seen.items():
                targets[name][row, COUNTED[name].index(value)] += group.count
    return targets


def side_targets(scenes: Sequence[Description]) -> tuple[Tensor, Tensor, Tensor]:
    """For each group whose place is said: its scene's row, its kind, and where it stands from the other; int64."""
    targets = [
        (row, KINDS.index((group.color, group.shape)), RELATIONS.index(side))
        for row, scene in enumerate(scenes)
        if scene.relation is not None
        for group, side in zip(scene.groups, (scene.relation, INVERSE_RELATIONS[scene.relation]), strict=True)
    ]
    rows, kinds, sides = torch.tensor(targets, dtype=torch.int64).view(-1, 3).unbind(dim=1)
    return rows, kinds, sides


def patch_targets(
    scenes: Sequence[Description], boxes: Sequence[tuple[tuple[Box, ...], ...]], patch_size: int
) -> tuple[Tensor, Tensor]:
    """Which kind (from 1; 0 none) covers the middle of each patch, and which is centred in it: (B, patches) int64."""
    per_side = IMAGE_SIZE // patch_size
    middles = (np.arange(per_side) + 0.5) * patch_size
    covered = np.zeros((len(scenes), per_side, per_side), np.int64)
    centre = np.zeros_like(covered)
    for row, (scene, scene_boxes) in enumerate(zip(scenes, boxes, strict=True)):
        for group, group_boxes in zip(scene.groups, scene_boxes, strict=True):
            kind = 1 + KINDS.index((group.color, group.shape))
            for left, top, width, height in group_boxes:
                columns, rows = (
                    covered_patches(middles, start, length, patch_size)
                    for start, length in ((left, width), (top, height))
                )
                covered[row][np.ix_(rows, columns)] = kind
                centre[row, int((top + height / 2) // patch_size), int((left + width / 2) // patch_size)] = kind
    return torch.from_numpy(covered).flatten(1), torch.from_numpy(centre).flatten(1)


def covered_patches(middles: NDArray[np.floating], start: float, length: float, patch_size: int) -> NDArray[np.bool_]:
    """Which patches have their middle inside a box, or a fifth of a patch beside it."""
    slack = 0.2 * patch_size
    return (middles >= start - slack) & (middles <= start + length + slack)
