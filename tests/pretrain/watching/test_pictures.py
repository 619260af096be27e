"""What is drawn in the pictures: the marks are where the mathematics says."""

from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import ConnectionPatch, Rectangle

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from pretrain.config import SelfPatchConfig, ViewsConfig
from pretrain.data.sources import images_of_folder
from pretrain.objectives.neighbours import candidate_table, select_positives
from pretrain.watching.matches_picture import draw_matches
from pretrain.watching.panels import panel_grid, write_figure
from pretrain.watching.photographs import SHOWN_SIZE, Photograph, choose_photographs, squares
from pretrain.watching.pictures import draw_pictures
from pretrain.watching.positives_picture import QUERIES, draw_positives
from pretrain.watching.subject import Subject

SIDE = 12
PATCH = SHOWN_SIZE / SIDE
RED, GREEN, WHITE = "#ff1744", "#00e676", "#ffffff"


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    spec = ViTSpec(embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=8 * SIDE, class_token=False, final_norm=False)
    return Subject(backbone=build_backbone(spec).eval(), size=8 * SIDE)


@pytest.fixture
def photographs(image_folder: Path) -> list[Photograph]:
    return choose_photographs(images_of_folder(image_folder), 2, spread=False)


def marked(axes: Axes, colour: str) -> set[int]:
    """Patches with an outline of a colour."""
    boxes = [box for box in axes.patches if isinstance(box, Rectangle) and to_hex(box.get_edgecolor()) == colour]
    return {int(box.get_y() // PATCH) * SIDE + int(box.get_x() // PATCH) for box in boxes}


@pytest.mark.parametrize(("window", "border", "k"), [(3, "wrap", 4), (5, "clamp", 2), (0, "wrap", 3)])
@torch.no_grad()
def test_positives_and_candidates(subject: Subject, photographs: list[Photograph], window: int, border: str, k: int) -> None:
    config = SelfPatchConfig(window=window, border=border, k=k)  # type: ignore[arg-type]
    figure = draw_positives(subject, photographs, config)
    _, images = squares(photographs, subject.size, torch.device("cpu"))
    positives = select_positives(subject.backbone.forward_tokens(images).patches, (SIDE, SIDE), window, k, config.border)
    table = candidate_table((SIDE, SIDE), window, config.border)
    rows = len(photographs)
    for row in range(rows):
        overview, *panels = figure.axes[row * 4 : row * 4 + 4]
        for axes, (y, x) in zip(panels, QUERIES, strict=True):
            query = int(y * SIDE) * SIDE + int(x * SIDE)
            expected = set(positives[row, query].tolist())
            assert marked(axes, RED) == {query}
            assert marked(axes, GREEN) == expected
            assert marked(axes, WHITE) == set(table[query].tolist()) - expected
            for patch in (query, *table[query].tolist()):
                centre = ((patch % SIDE + 0.5) * PATCH, (patch // SIDE + 0.5) * PATCH)
                assert axes.get_xlim()[0] < centre[0] < axes.get_xlim()[1]
                assert axes.get_ylim()[1] < centre[1] < axes.get_ylim()[0]
        assert len(marked(overview, RED)) == len(QUERIES)


def test_an_inner_query_is_enlarged_and_says_its_cosines(subject: Subject, photographs: list[Photograph]) -> None:
    figure = draw_positives(subject, photographs[:1], SelfPatchConfig())
    inner, border = figure.axes[1], figure.axes[3]
    assert inner.get_xlim()[1] - inner.get_xlim()[0] == pytest.approx(5 * PATCH)
    assert len(inner.texts) == 8
    assert all(-1 <= float(text.get_text()) <= 1 for text in inner.texts)
    # What wraps lies on the other side of the image.
    assert border.get_xlim() == (0, SHOWN_SIZE)
    assert not border.texts


def joined_points(figure: Figure) -> list[tuple[tuple[float, float], tuple[float, float]]]:
    lines = [artist for artist in figure.artists if isinstance(artist, ConnectionPatch)]
    return [(line.xy1, line.xy2) for line in lines]


def box_of(axes: Axes, number: int) -> tuple[float, float, float, float]:
    box = axes.patches[number]
    assert isinstance(box, Rectangle)
    return box.get_x(), box.get_y(), box.get_width(), box.get_height()


def test_joined_patches_show_the_same_part_of_the_image(subject: Subject, photographs: list[Photograph]) -> None:
    views = ViewsConfig(global_size=8 * SIDE, local_size=48, local_crops=2)
    checked = 0
    for photograph in photographs:
        figure = draw_matches(subject, [photograph], views)
        overview, *panels = figure.axes
        for ends in joined_points(figure):
            places = []
            for number, (axes, (x, y)) in enumerate(zip(panels, ends, strict=True)):
                left, top, width, height = box_of(overview, number)
                across = 1 - x / SHOWN_SIZE if "mirrored" in axes.get_xlabel() else x / SHOWN_SIZE
                places.append((left + across * width, top + y / SHOWN_SIZE * height))
            # Rounding to whole patches of both crops moves a place by a patch of each at most.
            reach_x, reach_y = (sum(box_of(overview, number)[axis] / SIDE for number in (0, 1)) for axis in (2, 3))
            assert abs(places[0][0] - places[1][0]) <= reach_x
            assert abs(places[0][1] - places[1][1]) <= reach_y
            checked += 1
        assert int(overview.get_xlabel().split()[0]) >= len(joined_points(figure))
    assert checked > 5


def test_every_method_has_its_pictures(subject: Subject, photographs: list[Photograph], tmp_path: Path) -> None:
    plain = draw_pictures(subject, photographs[:1])
    assert list(plain) == ["attention", "components"]
    with_selfpatch = Subject(backbone=subject.backbone, size=subject.size, selfpatch=SelfPatchConfig())
    assert list(draw_pictures(with_selfpatch, photographs[:1])) == ["attention", "components", "positives"]
    pixels = write_figure(plain["attention"], tmp_path / "a" / "attention.png")
    assert (tmp_path / "a" / "attention.png").read_bytes().startswith(b"\x89PNG")
    assert pixels.ndim == 3
    assert pixels.std() > 10


def test_many_maps_of_a_large_network_stay_of_bounded_width() -> None:
    figure, grid = panel_grid(2, 14, "title", inches=1.5)
    assert grid.shape == (2, 14)
    assert figure.get_size_inches()[0] == pytest.approx(21)
