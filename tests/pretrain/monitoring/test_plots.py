"""What is drawn in the plots: the marks are where the mathematics says; and `python -m pretrain.monitoring` on every checkpoint."""

from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch, Rectangle

from backbones.build import build_backbone
from backbones.spec import ViTSpec
from pretrain.checkpoint import Checkpoint, run_settings
from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.methods import SelfPatchConfig
from pretrain.monitoring.__main__ import main
from pretrain.monitoring.plots import (
    QUERIES,
    DrawnImage,
    Subject,
    choose_images,
    draw_matches,
    draw_positives,
    open_subject,
    squares,
    subject_of,
)
from pretrain.networks import Networks, build_networks
from pretrain.objectives.selfpatch import candidate_table, select_positives
from tests.conftest import RunMain
from tests.pretrain.conftest import find_images, tiny_config

CPU = torch.device("cpu")
SIDE = 12
RED, GREEN, WHITE = "#ff1744", "#00e676", "#ffffff"


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    spec = ViTSpec(embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=8 * SIDE, class_token=False, final_norm=False)
    return Subject(build_backbone(spec).eval())


@pytest.fixture
def images_to_draw(image_folder: Path) -> list[DrawnImage]:
    images = choose_images(images_of_folder(image_folder), 2, spread=False)
    assert len(images) == 2
    return images


def marked(axes: Axes, colour: str) -> set[int]:
    """Patches with an outline of a colour."""
    boxes = [box for box in axes.patches if isinstance(box, Rectangle) and to_hex(box.get_edgecolor()) == colour]
    return {int(box.get_y()) * SIDE + int(box.get_x()) for box in boxes}


@pytest.mark.parametrize(("window", "border", "k"), [(3, "wrap", 4), (5, "clamp", 2), (0, "wrap", 3)])
@torch.no_grad()
def test_positives_and_candidates(subject: Subject, images_to_draw: list[DrawnImage], window: int, border: str, k: int) -> None:
    config = SelfPatchConfig(window=window, border=border, k=k)  # type: ignore[arg-type]
    figure = draw_positives(subject, images_to_draw, config)
    _, images = squares(subject, images_to_draw)
    positives = select_positives(subject.backbone.forward_tokens(images).patches, (SIDE, SIDE), window, k, config.border)
    table = candidate_table((SIDE, SIDE), window, config.border)
    for row in (0, 1):
        overview, *panels = figure.axes[row * 4 : row * 4 + 4]
        for axes, (y, x) in zip(panels, QUERIES, strict=True):
            query = int(y * SIDE) * SIDE + int(x * SIDE)
            expected = set(positives[row, query].tolist())
            assert marked(axes, RED) == {query}
            assert marked(axes, GREEN) == expected
            assert marked(axes, WHITE) == set(table[query].tolist()) - expected
            for patch in (query, *table[query].tolist()):
                assert axes.get_xlim()[0] < patch % SIDE + 0.5 < axes.get_xlim()[1]
                assert axes.get_ylim()[1] < patch // SIDE + 0.5 < axes.get_ylim()[0]
        assert len(marked(overview, RED)) == len(QUERIES)


def test_an_inner_query_is_enlarged_and_says_its_cosines(subject: Subject, images_to_draw: list[DrawnImage]) -> None:
    figure = draw_positives(subject, images_to_draw[:1], SelfPatchConfig())
    inner, border = figure.axes[1], figure.axes[3]
    assert inner.get_xlim()[1] - inner.get_xlim()[0] == 5
    assert len(inner.texts) == 8
    assert all(-1 <= float(text.get_text()) <= 1 for text in inner.texts)
    # What wraps is on the other side of the image.
    assert border.get_xlim() == (0, SIDE)
    assert not border.texts


def test_joined_patches_show_the_same_part_of_the_image(subject: Subject, images_to_draw: list[DrawnImage]) -> None:
    checked = 0
    for drawn in images_to_draw:
        figure = draw_matches(subject, [drawn], ViewsConfig(global_size=8 * SIDE, local_size=48, local_crops=2))
        overview, *panels = figure.axes
        boxes = [box.get_bbox().bounds for box in overview.patches if isinstance(box, Rectangle)]
        sides = [axes.images[0].get_extent()[1] for axes in panels]
        lines = [artist for artist in figure.artists if isinstance(artist, ConnectionPatch)]
        for line in lines:
            places = []
            for axes, (x, y), side, (left, top, width, height) in zip(panels, (line.xy1, line.xy2), sides, boxes, strict=True):
                across = 1 - x / side if "mirrored" in axes.get_xlabel() else x / side
                places.append((left + across * width, top + y / side * height))
            # Rounding to whole patches of both crops moves a place by a patch of each at most.
            reach_x, reach_y = (sum(box[axis] / SIDE for box in boxes) for axis in (2, 3))
            assert abs(places[0][0] - places[1][0]) <= reach_x
            assert abs(places[0][1] - places[1][1]) <= reach_y
            checked += 1
        assert int(overview.get_xlabel().split()[0]) >= len(lines)
    assert checked > 5


def test_the_same_images_from_all_over_the_listing_or_the_first_ones(
    image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    source, paths = images_of_folder(image_folder), find_images(image_folder)
    for spread, expected in ((True, (0, 4, 8)), (False, (0, 1, 2))):
        chosen = choose_images(source, 3, spread)
        assert [name.split("/")[-1] for name, _ in chosen] == [paths[index].name for index in expected]
    assert len(choose_images(source, 50, True)) == len(paths)
    (tmp_path / "a.jpg").write_bytes(b"no image")
    assert len(choose_images(ImageFiles(tmp_path, ["a.jpg", *map(str, paths[:2])]), 2, spread=False)) == 2
    assert "a.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"none of the 1 images.*a\.jpg"):
        choose_images(ImageFiles(tmp_path, ["a.jpg"]), 2, spread=False)


# A finished checkpoint.


def checkpoint_of(config: PretrainConfig) -> tuple[Path, Networks]:
    networks = build_networks(config, CPU)
    for parameter in networks.student.parameters():
        parameter.data.zero_()
    checkpoint = Checkpoint(config.train, run_settings(config, []), networks, 1)
    checkpoint.write(1)
    return checkpoint.path, networks


@pytest.mark.parametrize(("method", "own"), [("selfpatch", {"positives"}), ("patch_matching", {"matches"}), ("dino", set())])
def test_plots_of_our_checkpoints(image_folder: Path, tmp_path: Path, run_main: RunMain, method: str, own: set[str]) -> None:
    path, _ = checkpoint_of(tiny_config(method, output=tmp_path))
    options = ["--checkpoint", path, "--images", image_folder, "--output", tmp_path / "out", "--num-images", 1]
    finished = run_main(main, options)
    assert finished.status == 0, finished.stderr
    assert {path.stem for path in (tmp_path / "out").iterdir()} == {"attention", "components", *own}


@pytest.mark.parametrize("method", ["selfpatch", "moby_selfpatch"])
@torch.no_grad()
def test_the_subject_is_the_teacher_that_was_trained(tmp_path: Path, method: str) -> None:
    """Also of a MoBY run, whose student is what evaluation takes."""
    config = tiny_config(method, output=tmp_path, selfpatch__k=2, selfpatch__border="clamp")
    path, networks = checkpoint_of(config)
    opened, trained = open_subject(path, CPU), subject_of(networks.teacher, config)
    assert (opened.size, opened.stride, opened.selfpatch) == (32, 8, config.selfpatch)
    images = torch.randn(1, 3, 32, 32)
    patches = trained.backbone.eval().forward_tokens(images).patches
    torch.testing.assert_close(opened.backbone.eval().forward_tokens(images).patches, patches)
    assert opened.aggregation is not None
    assert trained.aggregation is not None
    torch.testing.assert_close(opened.aggregation(patches), trained.aggregation(patches))


@pytest.mark.parametrize(("name", "positives"), [("selfpatch_full", True), ("moby_swin_tiny", False), ("dino_full", False)])
def test_published_layouts(golden_dir: Path, name: str, positives: bool) -> None:
    subject = open_subject(golden_dir / "formats" / f"{name}.pth", CPU)
    assert (subject.selfpatch is not None) == positives
    assert subject.aggregation is None
    assert subject.size % subject.stride == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--checkpoint", "/nowhere.pth"], "/nowhere.pth: no such checkpoint"),
        (["--images", "/nowhere"], "images: /nowhere is not a folder"),
        (["--num_images", "0"], "num_images=0"),
    ],
)
def test_mistakes_are_one_line(image_folder: Path, tmp_path: Path, run_main: RunMain, options: list[str], message: str) -> None:
    checkpoint, _ = checkpoint_of(tiny_config("dino", output=tmp_path))
    usual = ["--checkpoint", checkpoint, "--images", image_folder, "--output", tmp_path / "out"]
    finished = run_main(main, [*usual, *options])
    assert finished.status == 2
    assert len(finished.stderr.splitlines()) == 1
    assert message in finished.stderr
