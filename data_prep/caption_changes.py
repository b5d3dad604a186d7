"""Captions that are almost true: a count, color, shape or relation is another. A CLIP must tell them from true ones."""

import random
from dataclasses import replace

from ifvit.data.scene_captions import captions
from ifvit.data.scenes import COLORS, MAX_COUNT, PATTERNS, RELATIONS, SHAPES, TONES, Description, Group

ATTRIBUTES = ("count", "color", "shape", "relation")


def changed(scene: Description, attribute: str, generator: random.Random) -> Description:
    """`scene` with another `attribute`: of one of its groups, or between the two. A scene that could be drawn.

    No held-out combination comes in: otherwise training would learn of them after all, namely that they are false.
    """
    assert attribute != "relation" or scene.relation is not None, scene
    if attribute == "relation":
        others = [relation for relation in RELATIONS if relation != scene.relation]
        return replace(scene, relation=generator.choice(others))
    places = range(len(scene.groups))
    return generator.choice([other for place in places for other in alternatives(scene, place, attribute)])


def alternatives(scene: Description, place: int, attribute: str) -> list[Description]:
    """The scenes with another `attribute` of the group at `place`; of other counts the nearest ones."""
    group = scene.groups[place]
    if attribute == "color":
        groups = [replace(group, color=color) for color in COLORS if color != group.color]
    elif attribute == "shape":
        groups = [replace(group, shape=shape) for shape in SHAPES if shape != group.shape]
    else:
        groups = [replace(group, count=count) for count in range(1, MAX_COUNT + 1) if count != group.count]
    scenes = [with_group(scene, place, other) for other in groups if not other.is_held_out]
    scenes = [other for other in scenes if is_drawable(other)]
    distances = [abs(other.groups[place].count - group.count) for other in scenes]
    return [other for other, distance in zip(scenes, distances, strict=True) if distance == min(distances)]


def with_group(scene: Description, place: int, group: Group) -> Description:
    return replace(scene, groups=(*scene.groups[:place], group, *scene.groups[place + 1 :]))


def is_drawable(scene: Description) -> bool:
    kinds = {(group.color, group.shape) for group in scene.groups}
    return len(kinds) == len(scene.groups) and sum(group.count for group in scene.groups) <= MAX_COUNT


def changeable(scene: Description) -> list[str]:
    """The attributes of `scene` that `changed` can change."""
    return [name for name in ATTRIBUTES if name != "relation" or scene.relation is not None]


def any_caption(scene: Description, generator: random.Random) -> str:
    """A caption of `scene` on some background."""
    background = generator.choice(sorted(TONES)), generator.choice(PATTERNS)
    return captions(scene, ("",) * len(scene.groups), background, 1, generator)[0]
