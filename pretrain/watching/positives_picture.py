"""The picture of SelfPatch's positive matching: query patches, their candidates, and the positives among them.

Shapes: B images, N = h*w patches, D channels, k positives.
"""

from collections.abc import Sequence

import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.typing import ColorType
from torch import Tensor

from pretrain.config import ALL_PATCHES, SelfPatchConfig
from pretrain.objectives.neighbours import candidate_table, select_positives
from pretrain.watching.panels import Picture, head_columns, panel_grid, show
from pretrain.watching.photographs import Photograph, squares
from pretrain.watching.subject import Subject

QUERIES = ((0.5, 0.5), (0.3, 0.7), (0.0, 0.25))
"""Places of the query patches as parts of the image's height and width; the last one shows what happens at the border."""

_QUERY, _POSITIVE, _CANDIDATE = "#ff1744", "#00e676", "#ffffff"
_INSET = 0.06
_MOST_PATCHES_WITH_TEXT = 8
"""Cosines are written into patches while no more than so many lie beside each other."""


def draw_positives(subject: Subject, photographs: Sequence[Photograph], config: SelfPatchConfig) -> Figure:
    """One row per image: the image with its query patches, then one panel per query with the cosines of its candidates.

    Images have the side of the global crops, so grid and neighbourhoods are those of training; candidates that the published wrap
    puts on the other side of the image are drawn where they are.
    """
    pictures, images_B3HW = squares(photographs, subject.size, subject.device)
    tokens = subject.backbone.forward_tokens(images_B3HW)
    positives_BNk = select_positives(tokens.patches, tokens.grid, config.window, config.k, config.border).cpu()
    units_BND = F.normalize(tokens.patches.float(), dim=-1).cpu()
    h, w = tokens.grid
    queries = [min(h - 1, int(y * h)) * w + min(w - 1, int(x * w)) for y, x in QUERIES]
    candidates_NC = candidate_table(tokens.grid, config.window, config.border)
    where = "all other patches" if config.window == ALL_PATCHES else f"{config.window} x {config.window} patches around"
    figure, grid = panel_grid(
        len(pictures),
        1 + len(queries),
        f"SelfPatch's positives. Red: query patch; white: candidates ({where}, border: {config.border}), with their cosine; "
        f"green: the k = {config.k} positives",
        inches=2.9,
    )
    head_columns(grid, ["queries", *(f"query {number}" for number in range(1, 1 + len(queries)))])
    for panels, picture, units_ND, positives_Nk in zip(grid, pictures, units_BND, positives_BNk, strict=True):
        show(panels[0], picture)
        for number, (axes, query) in enumerate(zip(panels[1:], queries, strict=True), start=1):
            mark(panels[0], query, tokens.grid, picture.shape, _QUERY, str(number))
            show(axes, picture)
            cosines_C = units_ND[candidates_NC[query]] @ units_ND[query]
            _draw_query(axes, picture, tokens.grid, query, candidates_NC[query], cosines_C, positives_Nk[query])
    return figure


def _draw_query(
    axes: Axes,
    picture: Picture,
    grid: tuple[int, int],
    query: int,
    candidates_C: Tensor,
    cosines_C: Tensor,
    positives_k: Tensor,
) -> None:
    with_text = _zoom(axes, picture, grid, [query, *candidates_C.tolist()]) <= _MOST_PATCHES_WITH_TEXT
    positives = set(positives_k.tolist())
    for candidate, cosine in zip(candidates_C.tolist(), cosines_C.tolist(), strict=True):
        colour = _POSITIVE if candidate in positives else _CANDIDATE
        mark(axes, candidate, grid, picture.shape, colour, f"{cosine:.2f}" if with_text else "")
    mark(axes, query, grid, picture.shape, _QUERY)


def _zoom(axes: Axes, picture: Picture, grid: tuple[int, int], patches: list[int]) -> int:
    """Show the patches with one more around them, where that is less than the picture; how many patches a side then shows."""
    h, w = grid
    rows, columns = [patch // w for patch in patches], [patch % w for patch in patches]
    side = max(max(rows) - min(rows), max(columns) - min(columns)) + 3
    if side >= min(h, w):
        return max(h, w)
    height, width = picture.shape[0] / h, picture.shape[1] / w
    top, left = (max(0, min(least - 1, count - side)) for least, count in ((min(rows), h), (min(columns), w)))
    axes.set_xlim(left * width, (left + side) * width)
    axes.set_ylim((top + side) * height, top * height)
    return side


def mark(axes: Axes, patch: int, grid: tuple[int, int], shape: tuple[int, ...], colour: ColorType, text: str = "") -> None:
    """Outline a patch of a picture of a shape [H, W, ...], with a word inside."""
    h, w = grid
    height, width = shape[0] / h, shape[1] / w
    y, x = patch // w * height, patch % w * width
    # A little inside, so that neighbours do not cover each other's outline.
    corner, inner = (x + _INSET * width, y + _INSET * height), ((1 - 2 * _INSET) * width, (1 - 2 * _INSET) * height)
    axes.add_patch(Rectangle(corner, *inner, fill=False, edgecolor="black", linewidth=3.5))
    axes.add_patch(Rectangle(corner, *inner, fill=False, edgecolor=colour, linewidth=2))
    if text:
        axes.text(
            x + width / 2, y + height / 2, text, ha="center", va="center", fontsize=8, color="black", clip_on=True,
            bbox={"boxstyle": "round,pad=0.1", "facecolor": colour, "edgecolor": "none", "alpha": 0.8},
        )  # fmt: skip
