"""Which blocks of a backbone give the maps."""

from collections.abc import Sequence

from backbones.base import check_taps
from backbones.spec import BackboneSpec, PlainViTSpec

PUBLISHED_DEPTH = 12
"""Blocks of the ViT-S and ViT-Ti for which the published taps are meant."""


def choose_taps(chosen: Sequence[int] | None, published: Sequence[int], spec: BackboneSpec) -> list[int]:
    """The taps of a run: the user's, or the published ones; those of a ViT move to the same parts of another depth.

    Args:
        chosen: The user's; None for the published ones.
        published: 0-based, ascending: blocks of `PUBLISHED_DEPTH`, or the stages of a Swin or ResNet.
        spec: Of the backbone.

    Raises:
        ValueError: If the backbone has no such blocks.
    """
    if chosen is None and spec.num_blocks < len(published):
        raise ValueError(
            f"this {spec.family} has {spec.num_blocks} blocks or stages, fewer than the {len(published)} maps that the task takes"
        )
    taps = list(published if chosen is None else chosen)
    if chosen is None and isinstance(spec, PlainViTSpec):
        taps = [round((tap + 1) * spec.depth / PUBLISHED_DEPTH) - 1 for tap in published]
    try:
        check_taps(taps, spec)
    except ValueError as error:
        raise ValueError(f"{error}; choose {len(published)} others with --taps") from error
    return taps
