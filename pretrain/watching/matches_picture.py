"""The picture of PW-Self's patch matching: two crops of an image, and which of their patches show the same part of it.

Shapes: M matches.
"""

from collections.abc import Sequence

import matplotlib
import numpy as np
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as F

from pretrain.data.views import CropBox, ViewsConfig, sample_crop
from pretrain.objectives.correspondence import matching_patches
from pretrain.watching.panels import head_columns, panel_grid, show
from pretrain.watching.photographs import Photograph
from pretrain.watching.positives_picture import mark
from pretrain.watching.subject import Subject

_SEED = 0
_MOST_LINES = 10
"""More lines would hide the crops."""
_BOX_COLOURS = ("#4363d8", "#f58231")


def draw_matches(subject: Subject, photographs: Sequence[Photograph], views: ViewsConfig) -> Figure:
    """One row per image: the boxes of two crops, then both crops, joined by their matches.

    The first crop is a global one, the second by turns global and local.

    Boxes are drawn as in training, the same ones every time; colours are left as they are. Matching is geometry alone, so the picture
    is the same in every epoch.
    """
    rng = np.random.default_rng(_SEED)
    figure, grid = panel_grid(
        len(photographs),
        3,
        "Patch matching: patches of two crops that show the same part of the image (some are joined); first crop blue, second orange",
        inches=2.9,
    )
    head_columns(grid, ["where the crops are", "first crop", "second crop"])
    for number, (panels, photograph) in enumerate(zip(grid, photographs, strict=True)):
        with_local = views.local_crops > 0 and number % 2 == 1
        kinds = [(views.global_size, views.global_scale)] * 2
        if with_local:
            kinds[1] = (views.local_size, views.local_scale)
        image = photograph.image
        boxes = [CropBox(*sample_crop(*image.size, scale, rng), flip=bool(rng.random() < 0.5)) for _, scale in kinds]
        show(panels[0], np.asarray(image))
        crops = []
        for box, (size, _), colour, axes in zip(boxes, kinds, _BOX_COLOURS, panels[1:], strict=True):
            panels[0].add_patch(
                Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=colour, linewidth=2.5)
            )
            crop = F.resized_crop(image, *box[:4], [size, size], InterpolationMode.BICUBIC)
            crops.append(np.asarray(F.hflip(crop) if box.flip else crop))
            show(axes, crops[-1])
            axes.set_xlabel(f"{size} pixels{', mirrored' if box.flip else ''}", fontsize=8)
        grids = [(size // subject.stride, size // subject.stride) for size, _ in kinds]
        matches_M2 = matching_patches(boxes[0], boxes[1], grids[0], grids[1]).tolist()
        panels[0].set_xlabel(f"{len(matches_M2)} matches", fontsize=8)
        shown = [
            matches_M2[index] for index in np.linspace(0, len(matches_M2) - 1, min(_MOST_LINES, len(matches_M2))).astype(int)
        ]
        colours = matplotlib.colormaps["rainbow"](np.linspace(0, 1, max(1, len(shown))))
        for (first, second), colour in zip(shown, colours, strict=False):
            ends = []
            for axes, patch, side, crop in zip(panels[1:], (first, second), grids, crops, strict=True):
                mark(axes, patch, side, crop, colour)
                step = crop.shape[0] / side[0]
                ends.append(((patch % side[1] + 0.5) * step, (patch // side[1] + 0.5) * step))
            line = ConnectionPatch(
                xyA=ends[0], coordsA=panels[1].transData, xyB=ends[1], coordsB=panels[2].transData, color=colour, linewidth=1.2
            )
            figure.add_artist(line)
    return figure
