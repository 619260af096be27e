"""What a network sees in a few images: attention, principal components, SelfPatch's positives, PW-Self's matches.

Shapes: B images, h x w patches or positions, N of them, S all tokens, D channels, H heads, d = D/H, C candidates, k positives, M
matches, R = B*N rows.
"""

import logging
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import matplotlib
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle
from matplotlib.typing import ColorType
from PIL import Image
from timm.layers import Attention
from torch import Tensor, nn
from torchvision.transforms import InterpolationMode
from torchvision.transforms import functional as tvf

from backbones.build import AnyBackbone, network_of
from backbones.checkpoint import load_checkpoint
from backbones.convert import open_backbone
from backbones.layouts.patchbench import PATCHBENCH, is_own_checkpoint
from backbones.spec import typical_image_size
from backbones.vit import ViT
from common.cli import as_arguments, parse
from common.images import IMAGENET_MEAN, IMAGENET_STD
from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.data.sources import ImageFiles
from pretrain.data.views import SHARED_SIZE, CropBox, decode_whole, draw_views, view_kinds
from pretrain.methods import ALL_PATCHES, SelfPatchConfig
from pretrain.networks import build_networks
from pretrain.objectives.base import Network
from pretrain.objectives.patch_matching import Grid, matching_patches
from pretrain.objectives.selfpatch import Aggregation, candidate_table, select_positives

SHOWN_SIZE = 448  # side in pixels of images to look at, whatever the side of those that the network sees
ENLARGED = 2  # attention and components are those of images so many times as large as in training: 14 x 14 patches show little
QUERIES = ((0.5, 0.5), (0.3, 0.7), (0.0, 0.25))  # query patches, as parts of height and width; the last one is at the border

_PANEL_INCHES, _LARGE_PANEL_INCHES = 2.1, 2.9
_MOST_HEADS = 12  # maps of more heads than a ViT-B has would be too small to look at; more than 8 maps are drawn smaller
_MOST_PATCHES_WITH_TEXT = 8  # cosines are written into patches while no more than so many are beside each other
_QUANTILES = (0.01, 0.99)  # the range of each component that is spread over the colours; the few values outside are clipped
_MOST_JOINED = 10  # more lines than these would hide the crops
_QUERY, _POSITIVE, _CANDIDATE, _BOX_COLOURS = "#ff1744", "#00e676", "#ffffff", ("#4363d8", "#f58231")

DrawnImage = tuple[str, Image.Image]  # the end of the path, its folder and file; and the image, RGB
Pixels = npt.NDArray[np.uint8]

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Subject:
    """A backbone, and what plots show of its method."""

    backbone: AnyBackbone
    aggregation: Aggregation | None = None  # makes SelfPatch's CLS token from the patches
    selfpatch: SelfPatchConfig | None = None  # says how positives are selected
    matching_views: ViewsConfig | None = None  # says how patch matching draws crops

    @property
    def size(self) -> int:
        """Side in pixels of the global crops that the backbone was trained on."""
        return typical_image_size(self.backbone.spec)

    @property
    def stride(self) -> int:
        """Pixels per side of a patch or position."""
        return self.backbone.map_strides([self.backbone.spec.num_blocks - 1])[0]


def subject_of(teacher: nn.Module, config: PretrainConfig) -> Subject:
    assert isinstance(teacher, Network)
    if not config.reads("selfpatch"):
        return Subject(teacher.backbone, matching_views=config.views if config.reads("matching") else None)
    aggregation = teacher.heads["aggregation"]
    assert isinstance(aggregation, Aggregation)
    return Subject(teacher.backbone, aggregation, config.selfpatch)


def open_subject(path: Path, device: torch.device) -> Subject:
    """The teacher of a checkpoint of ours with what its method adds; of any other checkpoint or backbone file the backbone alone."""
    conversion = open_backbone(path)
    # A backbone file that was made of a checkpoint of ours names the same layout.
    if conversion.source.format == PATCHBENCH.name and is_own_checkpoint(checkpoint := load_checkpoint(path)):
        # How the data were read shapes no network.
        settings = {name: value for name, value in checkpoint["settings"].items() if not name.startswith("data.")}
        config = parse(PretrainConfig, as_arguments(settings), "python -m pretrain.monitoring")
        teacher = build_networks(config, device).teacher
        teacher.load_state_dict(checkpoint["teacher"])
        return subject_of(teacher, config)
    backbone = network_of(conversion.spec, conversion.state_dict)
    # The authors' checkpoints select positives as published: 4 of 3 x 3 patches.
    return Subject(backbone.to(device), selfpatch=SelfPatchConfig() if conversion.source.format == "selfpatch" else None)


def choose_images(source: ImageFiles, count: int, spread: bool) -> list[DrawnImage]:
    """Up to `count` readable images of a data set, the same ones every time; a ValueError if there is none.

    With `spread` they are from all over the set rather than the first ones: a sorted set begins with images of one class.
    """
    images = len(source.names)
    starts = np.linspace(0, images, count, endpoint=False).astype(int).tolist() if spread else []
    chosen: list[DrawnImage] = []
    for index in dict.fromkeys([*starts, *range(images)]):
        path = Path(source.describe(index))
        try:
            chosen.append((f"{path.parent.name}/{path.name}"[-30:], Image.fromarray(decode_whole(source.load(index)))))
        except OSError as error:
            logger.warning("not drawing the unreadable image %s: %s", path, error)
        if len(chosen) == count:
            break
    if not chosen:
        raise ValueError(f"none of the {images} images to draw can be read; the first is {source.describe(0)}")
    return chosen


def centre_crop(image: Image.Image, resize: int, crop: int) -> Image.Image:
    """The middle of an image whose shorter side is resized by bicubic interpolation first."""
    return tvf.center_crop(tvf.resize(image, resize, InterpolationMode.BICUBIC), [crop, crop])


def network_input(image: Image.Image) -> Tensor:
    """float32 [3, H, W], normalised."""
    return tvf.normalize(tvf.to_tensor(image), list(IMAGENET_MEAN), list(IMAGENET_STD))


@contextmanager
def undisturbed(network: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's mode is what it was."""
    modes = {module: module.training for module in network.modules()}
    network.eval()
    try:
        with torch.no_grad():  # not inference mode: what is cached in it could not take part in training
            yield
    finally:
        for module, mode in modes.items():
            module.training = mode


def squares(subject: Subject, images: Sequence[DrawnImage], enlarged: int = 1) -> tuple[list[Pixels], Tensor]:
    """The images' middles, to look at ([S, S, 3] each, S = `SHOWN_SIZE`) and as the network's input [B, 3, size, size]."""
    shown = [np.asarray(centre_crop(image, SHOWN_SIZE, SHOWN_SIZE)) for _, image in images]
    size, device = enlarged * subject.size, next(subject.backbone.parameters()).device
    return shown, torch.stack([network_input(centre_crop(image, size, size)) for _, image in images]).to(device)


def draw_all(subject: Subject, images: Sequence[DrawnImage]) -> dict[str, Figure]:
    """Every plot that fits the method, by name; leaves the network as it is."""
    with undisturbed(subject.backbone):
        plots = {"attention": draw_attention(subject, images), "components": draw_components(subject, images)}
        if subject.selfpatch is not None:
            plots["positives"] = draw_positives(subject, images, subject.selfpatch)
        if subject.matching_views is not None:
            plots["matches"] = draw_matches(subject, images, subject.matching_views)
    return plots


def panel_grid(
    rows: int, columns: int, title: str, headings: Sequence[str] = (), inches: float = _PANEL_INCHES
) -> tuple[Figure, npt.NDArray[np.object_]]:
    """A figure of square panels without axes under a title, with headings over the columns; and its panels [rows, columns]."""
    figure = Figure(figsize=(inches * columns, inches * rows + 0.6), dpi=110, layout="constrained")
    figure.suptitle(title, fontsize=10, wrap=True)
    grid = figure.subplots(rows, columns, squeeze=False, subplot_kw={"xticks": [], "yticks": [], "frame_on": False})
    for axes, heading in zip(grid[0], headings, strict=False):
        axes.set_title(heading, fontsize=9)
    return figure, grid


def _show(axes: Axes, pixels: Pixels, grid: Grid = (1, 1)) -> None:
    """Show an image in coordinates from its top left corner, whose unit is a patch of the grid."""
    axes.imshow(pixels, extent=(0, grid[1], grid[0], 0), interpolation="nearest")


def image_attention(subject: Subject, images_B3HW: Tensor) -> tuple[Tensor, str, list[str]]:
    """What of each image goes into its feature: float32 maps [B, H, h, w], what they are, and a name for each map.

    SelfPatch's CLS token attends in the aggregation module; a ViT's own one in its last block. Without any (a Swin, a ViT whose
    checkpoint has no aggregation module) the feature is the mean of all positions; then the map is each position's cosine with it.
    """
    backbone, aggregation = subject.backbone, subject.aggregation
    if aggregation is not None:
        what, layers = "SelfPatch's CLS token, second block of the aggregation module", ("query", "key")
        attention = aggregation.blocks[-1]
    # Only timm's own attention has the weights that are computed below.
    elif isinstance(backbone, ViT) and backbone.spec.class_token and type(backbone.blocks[-1].attn) is Attention:
        what, layers = "the CLS token, last block", ("q_norm", "k_norm")
        attention = backbone.blocks[-1].attn
    else:
        tokens = backbone.forward_tokens(images_B3HW)
        cosines_BN = F.cosine_similarity(tokens.patches, tokens.patches.mean(1, keepdim=True), dim=-1)
        what = "no CLS token: cosine of each position with the mean of all, which is the image's feature"
        return cosines_BN.unflatten(1, (1, *tokens.grid)).float(), what, ["cosine with the mean"]
    seen: list[Tensor] = []  # queries and keys of all tokens: [B, H, S, d] or [B, S, D]
    for_queries, for_keys = (
        attention.get_submodule(name).register_forward_hook(lambda module, inputs, output: seen.append(output))
        for name in layers
    )
    with for_queries, for_keys:
        tokens = backbone.forward_tokens(images_B3HW)
        if aggregation is not None:
            aggregation(tokens.patches)
    heads: int = attention.num_heads  # type: ignore[assignment]
    query_BHSd, key_BHSd = (each if each.ndim == 4 else each.unflatten(2, (heads, -1)).transpose(1, 2) for each in seen)
    query_BH1d = query_BHSd[:, :, :1] * query_BHSd.shape[-1] ** -0.5
    weights_BHS = (query_BH1d @ key_BHSd.transpose(-2, -1)).softmax(-1)[:, :, 0]
    maps_BHhw = weights_BHS[:, :, -tokens.patches.shape[1] :].unflatten(2, tokens.grid).float()  # patches come last
    names = [f"head {head}" for head in range(1, heads + 1)]
    if heads > 1:
        maps_BHhw, names = torch.cat([maps_BHhw.mean(1, keepdim=True), maps_BHhw], dim=1), ["mean of heads", *names]
    return maps_BHhw, f"attention of {what}", names


def draw_attention(subject: Subject, images: Sequence[DrawnImage]) -> Figure:
    """One row per image: the image, then its maps, each with colours from its own lowest to its highest value."""
    shown, images_B3HW = squares(subject, images, ENLARGED)
    maps_BHhw, what, heads = image_attention(subject, images_B3HW)
    maps_BHhw, heads = maps_BHhw[:, : _MOST_HEADS + 1], heads[: _MOST_HEADS + 1]
    h, w = maps_BHhw.shape[-2:]
    title = f"{what[0].upper()}{what[1:]}; {h} x {w} positions, dark: least, bright: most of each map"
    inches = _PANEL_INCHES if len(heads) <= 8 else 0.7 * _PANEL_INCHES
    figure, grid = panel_grid(len(shown), 1 + len(heads), title, ["image", *heads], inches)
    for (overview, *panels), pixels, maps_Hhw in zip(grid, shown, maps_BHhw.cpu().numpy(), strict=True):
        _show(overview, pixels)
        for axes, map_hw in zip(panels, maps_Hhw, strict=True):
            axes.imshow(map_hw, cmap="inferno", interpolation="nearest")
    return figure


def principal_colours(patches_BND: Tensor) -> tuple[Tensor, float]:
    """The first three principal components of all patches of all images together as red, green and blue.

    All patches take part, since what counts as foreground would itself be a threshold on a component. Signs are fixed by the largest
    loading, so that plots of a network do not depend on the device. Returns colours float32 [B, N, 3] in [0, 1], on the CPU, and
    which part of the variance the three components hold.
    """
    rows_RD = patches_BND.flatten(0, 1).double().cpu()
    left, deviations, directions = torch.linalg.svd(rows_RD - rows_RD.mean(0), full_matrices=False)
    signs_31 = directions[:3].gather(1, directions[:3].abs().argmax(1, keepdim=True)).sign()
    scores_R3 = left[:, :3] * deviations[:3] * signs_31.T
    low_13, high_13 = (scores_R3.quantile(part, dim=0, keepdim=True) for part in _QUANTILES)
    colours_R3 = ((scores_R3 - low_13) / (high_13 - low_13).clamp(min=torch.finfo(torch.float32).eps)).clamp(0, 1)
    variances = deviations**2
    explained = float(variances[:3].sum() / variances.sum()) if variances.any() else 1.0
    return colours_R3.float().unflatten(0, patches_BND.shape[:2]), explained


def draw_components(subject: Subject, images: Sequence[DrawnImage]) -> Figure:
    """Images above, below each the first three principal components of all images' patch features as red, green and blue."""
    shown, images_B3HW = squares(subject, images, ENLARGED)
    tokens = subject.backbone.forward_tokens(images_B3HW)
    colours_BN3, explained = principal_colours(tokens.patches)
    title = (
        f"Patch features: first three principal components of all {len(shown)} images together as red, green, blue "
        f"({100 * explained:.0f} % of the variance); patches of one colour are alike"
    )
    figure, grid = panel_grid(2, len(shown), title)
    for (above, below), (name, _), pixels, colours_N3 in zip(grid.T, images, shown, colours_BN3, strict=True):
        above.set_title(name, fontsize=8)
        _show(above, pixels)
        below.imshow(colours_N3.unflatten(0, tokens.grid).numpy(), interpolation="nearest")
    return figure


def draw_positives(subject: Subject, images: Sequence[DrawnImage], config: SelfPatchConfig) -> Figure:
    """One row per image: the image with its query patches, then one panel per query with the cosines of its candidates.

    Images have the side of the global crops, so grid and neighbourhoods are those of training.
    """
    shown, images_B3HW = squares(subject, images)
    tokens = subject.backbone.forward_tokens(images_B3HW)
    positives_BNk = select_positives(tokens.patches, tokens.grid, config.window, config.k, config.border).cpu()
    units_BND = F.normalize(tokens.patches.float(), dim=-1).cpu()
    h, w = tokens.grid
    queries = {f"query {place}": int(y * h) * w + int(x * w) for place, (y, x) in enumerate(QUERIES, start=1)}
    candidates_NC = candidate_table(tokens.grid, config.window, config.border)
    where = "all other patches" if config.window == ALL_PATCHES else f"{config.window} x {config.window} patches around"
    title = (
        f"SelfPatch's positives. Red: query patch; white: candidates ({where}, border: {config.border}), with their cosine; "
        f"green: the k = {config.k} positives"
    )
    figure, grid = panel_grid(len(shown), 1 + len(queries), title, ["queries", *queries], inches=_LARGE_PANEL_INCHES)
    for (overview, *panels), pixels, units_ND, positives_Nk in zip(grid, shown, units_BND, positives_BNk, strict=True):
        _show(overview, pixels, tokens.grid)
        for axes, (heading, query) in zip(panels, queries.items(), strict=True):
            _mark(overview, query, w, _QUERY, heading[-1])
            _show(axes, pixels, tokens.grid)
            candidates, positives = candidates_NC[query].tolist(), set(positives_Nk[query].tolist())
            cosines = (units_ND[candidates] @ units_ND[query]).tolist()
            with_text = _zoom(axes, tokens.grid, [query, *candidates]) <= _MOST_PATCHES_WITH_TEXT
            for candidate, cosine in zip(candidates, cosines, strict=True):
                colour = _POSITIVE if candidate in positives else _CANDIDATE
                _mark(axes, candidate, w, colour, f"{cosine:.2f}" if with_text else "")
            _mark(axes, query, w, _QUERY)
    return figure


def _zoom(axes: Axes, grid: Grid, patches: Sequence[int]) -> int:
    """Show the patches with one more around them, where that is less than the image; returns how many patches a side then shows."""
    places_N2 = np.stack(np.divmod(patches, grid[1]), axis=1)
    side = int(np.ptp(places_N2, axis=0).max()) + 3
    if side >= min(grid):
        return max(grid)
    top, left = np.clip(places_N2.min(axis=0) - 1, 0, np.subtract(grid, side))
    axes.set(xlim=(left, left + side), ylim=(top + side, top))
    return side


def _mark(axes: Axes, patch: int, columns: int, colour: ColorType, text: str = "") -> tuple[float, float]:
    """Outline a patch of a grid with so many columns, with a word inside; returns the patch's centre."""
    y, x = divmod(patch, columns)
    for edge, line in (("black", 3.5), (colour, 2.0)):
        # A little inside, so that neighbours do not cover each other's outline.
        axes.add_patch(Rectangle((x + 0.06, y + 0.06), 0.88, 0.88, fill=False, edgecolor=edge, linewidth=line))
    if text:
        box = {"boxstyle": "round,pad=0.1", "facecolor": colour, "edgecolor": "none", "alpha": 0.8}
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=8, clip_on=True, bbox=box)
    return x + 0.5, y + 0.5


def draw_matches(subject: Subject, images: Sequence[DrawnImage], views: ViewsConfig) -> Figure:
    """One row per image: the boxes of two crops, then both crops, joined by some of their matches.

    The first crop is a global one, the second by turns global and local. Boxes are drawn as in training, always from the same seed,
    and matching is geometry alone, so the plot is the same in every epoch; colours are left as they are.
    """
    rng, kinds = np.random.default_rng(0), view_kinds(views)
    title = "Patch matching: patches of two crops that show the same part of the image; some are joined"
    headings = ["first crop blue, second orange", "first crop", "second crop"]
    figure, grid = panel_grid(len(images), 3, title, headings, inches=_LARGE_PANEL_INCHES)
    for number, ((overview, *panels), (_, image)) in enumerate(zip(grid, images, strict=True)):
        if views.shared_by:
            image = image.resize((SHARED_SIZE, SHARED_SIZE))
        pair = [kinds[0], kinds[-1] if number % 2 else kinds[1]]
        boxes = [CropBox._make(box) for box in draw_views(pair, *image.size, rng).boxes_V5.tolist()]
        sides = [kind.size // subject.stride for kind in pair]
        _show(overview, np.asarray(image), (image.height, image.width))
        for axes, box, kind, side, colour in zip(panels, boxes, pair, sides, _BOX_COLOURS, strict=True):
            outline = Rectangle((box.left, box.top), box.width, box.height, fill=False, edgecolor=colour, linewidth=2.5)
            overview.add_patch(outline)
            crop = tvf.resized_crop(image, *box[:4], [SHOWN_SIZE, SHOWN_SIZE], InterpolationMode.BICUBIC)
            _show(axes, np.asarray(tvf.hflip(crop) if box.flip else crop), (side, side))
            axes.set_xlabel(f"{kind.size} pixels{', mirrored' if box.flip else ''}", fontsize=8)
        matches_M2 = matching_patches(boxes[0], boxes[1], (sides[0], sides[0]), (sides[1], sides[1])).tolist()
        overview.set_xlabel(f"{len(matches_M2)} matches", fontsize=8)
        joined = np.linspace(0, len(matches_M2) - 1, min(_MOST_JOINED, len(matches_M2))).astype(int)
        for index, colour in zip(joined, matplotlib.colormaps["rainbow"](np.linspace(0, 1, len(joined))), strict=True):
            pairs = zip(panels, matches_M2[index], sides, strict=True)
            first, second = (_mark(axes, patch, side, colour) for axes, patch, side in pairs)
            line = ConnectionPatch(first, second, "data", axesA=panels[0], axesB=panels[1], color=colour, linewidth=1.2)
            figure.add_artist(line)
    return figure
