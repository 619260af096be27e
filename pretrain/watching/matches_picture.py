"""The picture of PW-Self's patch matching: two crops of an image, and which of their patches show the same part of it.

Shapes: M matches.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import matplotlib
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from PIL import Image
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.config import ViewsConfig
from pretrain.data.views import SHARED_SIZE, CropBox, draw_views, view_kinds
from pretrain.objectives.correspondence import matching_patches
from pretrain.watching.panels import head_columns, panel_grid, show
from pretrain.watching.photographs import SHOWN_SIZE, Photograph
from pretrain.watching.positives_picture import mark
from pretrain.watching.subject import Subject

_SEED = 0
_MOST_JOINED = 10
"""More lines would hide the crops."""
_BOX_COLOURS = ("#4363d8", "#f58231")


@dataclass(frozen=True)
class _Crop:
    """Where a crop of an image is, and how many patches it has."""

    box: CropBox
    size: int
    """Pixels of the network's input."""
    grid: tuple[int, int]


def draw_matches(subject: Subject, photographs: Sequence[Photograph], views: ViewsConfig) -> Figure:
    """One row per image: the boxes of two crops, then both crops, joined by some of their matches.

    The first crop is a global one, the second by turns global and local. Boxes are drawn as in training, the same ones every time;
    colours are left as they are. Matching is geometry alone, so the picture is the same in every epoch.
    """
    rng = np.random.default_rng(_SEED)
    title = "Patch matching: patches of two crops that show the same part of the image; some are joined"
    figure, grid = panel_grid(len(photographs), 3, title, inches=2.9)
    head_columns(grid, ["first crop blue, second orange", "first crop", "second crop"])
    for number, (panels, photograph) in enumerate(zip(grid, photographs, strict=True)):
        image = photograph.image.resize((SHARED_SIZE, SHARED_SIZE)) if views.shared_by else photograph.image
        kinds = view_kinds(views)
        pair = [kinds[0], kinds[-1] if number % 2 else kinds[1]]
        boxes = draw_views(pair, *image.size, rng).crop_boxes()
        crops = [
            _Crop(box, kind.size, (kind.size // subject.stride, kind.size // subject.stride))
            for kind, box in zip(pair, boxes, strict=True)
        ]
        _draw_crops(panels, image, crops)
        panels[0].set_xlabel(f"{_join(figure, panels[1:], crops)} matches", fontsize=8)
    return figure


def _draw_crops(panels: Sequence[Axes], image: Image.Image, crops: Sequence[_Crop]) -> None:
    """The image with both boxes, then each crop as the network sees it but for its resolution and colours."""
    show(panels[0], np.asarray(image))
    for axes, crop, colour in zip(panels[1:], crops, _BOX_COLOURS, strict=True):
        top, left, height, width, flip = crop.box
        panels[0].add_patch(Rectangle((left, top), width, height, fill=False, edgecolor=colour, linewidth=2.5))
        shown = F.resized_crop(image, top, left, height, width, [SHOWN_SIZE, SHOWN_SIZE], InterpolationMode.BICUBIC)
        show(axes, np.asarray(F.hflip(shown) if flip else shown))
        axes.set_xlabel(f"{crop.size} pixels{', mirrored' if flip else ''}", fontsize=8)


def _join(figure: Figure, panels: Sequence[Axes], crops: Sequence[_Crop]) -> int:
    """Mark some matching patches in both crops and draw lines between them; returns how many match in all."""
    matches_M2 = matching_patches(crops[0].box, crops[1].box, crops[0].grid, crops[1].grid).tolist()
    joined = np.linspace(0, len(matches_M2) - 1, min(_MOST_JOINED, len(matches_M2))).astype(int)
    colours = matplotlib.colormaps["rainbow"](np.linspace(0, 1, len(joined)))
    for index, colour in zip(joined, colours, strict=True):
        ends = []
        for axes, patch, crop in zip(panels, matches_M2[index], crops, strict=True):
            mark(axes, patch, crop.grid, (SHOWN_SIZE, SHOWN_SIZE), colour)
            step = SHOWN_SIZE / crop.grid[1]
            ends.append(((patch % crop.grid[1] + 0.5) * step, (patch // crop.grid[1] + 0.5) * step))
        figure.add_artist(
            ConnectionPatch(ends[0], ends[1], panels[0].transData, panels[1].transData, color=colour, linewidth=1.2)
        )
    return len(matches_M2)
