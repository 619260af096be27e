"""The picture of principal components: each image beside the colours of its patches.

Shapes: B images, N = h*w patches.
"""

from collections.abc import Sequence

from matplotlib.figure import Figure

from pretrain.watching.attention_picture import ENLARGED
from pretrain.watching.components import principal_colours
from pretrain.watching.panels import panel_grid, show
from pretrain.watching.photographs import Photograph, squares
from pretrain.watching.subject import Subject


def draw_components(subject: Subject, photographs: Sequence[Photograph]) -> Figure:
    """Images above, below each the first three principal components of all images' patch features as red, green and blue."""
    pictures, images_B3HW = squares(photographs, ENLARGED * subject.size, subject.device)
    tokens = subject.backbone.forward_tokens(images_B3HW)
    colours_BN3, explained = principal_colours(tokens.patches)
    title = (
        f"Patch features: first three principal components of all {len(pictures)} images together as red, green, blue "
        f"({100 * explained:.0f} % of the variance); patches of one colour are alike"
    )
    figure, grid = panel_grid(2, len(pictures), title)
    for (above, below), photograph, picture, colours_N3 in zip(grid.T, photographs, pictures, colours_BN3, strict=True):
        above.set_title(photograph.name, fontsize=8)
        show(above, picture)
        below.imshow(colours_N3.unflatten(0, tokens.grid).numpy(), interpolation="nearest")
    return figure
