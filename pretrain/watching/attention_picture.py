"""The picture of attention: each image beside its maps.

Shapes: see `pretrain.watching.attention`.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pretrain.watching.attention import image_attention
from pretrain.watching.panels import PANEL_INCHES, head_columns, panel_grid, show
from pretrain.watching.photographs import Photograph, squares
from pretrain.watching.subject import Subject

ENLARGED = 2
"""Images are shown to the network at this multiple of the side that it was trained on: a map of 14 x 14 patches shows little."""

_COLOURS = "inferno"
_MANY_MAPS = 8
"""More maps than these are drawn smaller."""
_MOST_HEADS = 12
"""Maps of more heads than a ViT-B has would be too small to look at."""


def draw_attention(subject: Subject, photographs: Sequence[Photograph]) -> Figure:
    """One row per image: the image, then its maps, each with colours from its own lowest to its highest value."""
    pictures, images_B3HW = squares(photographs, ENLARGED * subject.size, subject.device)
    maps_BHhw, what, heads = image_attention(subject, images_B3HW)
    maps_BHhw, heads = maps_BHhw[:, : _MOST_HEADS + 1], heads[: _MOST_HEADS + 1]
    h, w = maps_BHhw.shape[-2:]
    title = f"{what[0].upper()}{what[1:]}; {h} x {w} positions, dark: least, bright: most of each map"
    inches = PANEL_INCHES if len(heads) <= _MANY_MAPS else 0.7 * PANEL_INCHES
    figure, grid = panel_grid(len(pictures), 1 + len(heads), title, inches)
    head_columns(grid, ["image", *heads])
    for panels, picture, maps_Hhw in zip(grid, pictures, maps_BHhw.cpu().numpy(), strict=True):
        show(panels[0], picture)
        for axes, map_hw in zip(panels[1:], maps_Hhw, strict=True):
            axes.imshow(map_hw, cmap=_COLOURS, interpolation="nearest")
    return figure
