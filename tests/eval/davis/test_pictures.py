"""What the commands `pictures` and `explain` draw."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from matplotlib.backends.backend_agg import FigureCanvasAgg
from PIL import Image

from eval.davis.data import DavisSplit, find_sequences
from eval.davis.explain import ExplainConfig, Source, draw_sources, voting_patches
from eval.davis.masks import overlay, read_mask, write_mask
from eval.davis.pictures import panel_titles, sequence_metrics, write_chart
from eval.davis.propagator import propagate_labels
from eval.davis.protocol import PropagationSettings
from eval.davis.scores import Scores
from tests.eval.davis.conftest import FRAMES, HEIGHT, WIDTH, Run


def test_titles_are_what_tells_folders_apart() -> None:
    assert panel_titles([Path("/runs/a/davis/masks"), Path("/runs/b/davis/masks")]) == ["a", "b"]
    assert panel_titles([Path("/runs/a/davis/masks")]) == ["masks"]
    three = [Path("/runs/a/davis/masks"), Path("/runs/b/davis/masks"), Path("/theirs/masks")]
    assert panel_titles(three) == ["a/davis", "b/davis", "theirs"]


def test_a_mask_has_its_colour_inside_and_on_its_contour(tmp_path: Path) -> None:
    mask = np.zeros((9, 9), np.uint8)
    mask[2:7, 2:7] = 1
    write_mask(tmp_path / "mask.png", mask)
    Image.fromarray(np.full((9, 9, 3), 100, np.uint8)).save(tmp_path / "frame.png")
    drawn = overlay(tmp_path / "frame.png", tmp_path / "mask.png")
    assert drawn[4, 4].tolist() == [114, 50, 50]  # half frame, half the palette's (128, 0, 0)
    assert drawn[2, 4].tolist() == [128, 0, 0]
    assert (drawn[mask == 0] == 100).all()


def test_the_command_compares_two_backbones(davis: Path, tmp_path: Path, run: Run) -> None:
    annotations, empty = davis / "Annotations/480p", tmp_path / "empty"
    (empty / "boat").mkdir(parents=True)
    for path in (annotations / "boat").iterdir():
        write_mask(empty / "boat" / path.name, np.zeros((HEIGHT, WIDTH), np.uint8))
    shutil.copytree(annotations, tmp_path / "perfect")
    folders = ("--compare", tmp_path / "perfect", empty, "--titles", "[one,two]")
    printed = run("pictures", "--sequences", "boat", "--width", WIDTH, *folders).output()
    assert printed.splitlines() == [str(tmp_path / "out/boat.gif"), str(tmp_path / "out/j_and_f.png")]
    with Image.open(tmp_path / "out/boat.gif") as animation:
        assert (animation.n_frames, animation.size) == (FRAMES, (3 * WIDTH, HEIGHT + 16))
        animation.seek(2)
        page = np.asarray(animation.convert("RGB")).astype(int)
    assert (page[:16] < 128).any()  # titles
    truth, perfect, nothing = (page[16:, start : start + WIDTH] for start in (0, WIDTH, 2 * WIDTH))
    mask = read_mask(annotations / "boat/00002.png")
    assert (truth == perfect).all()
    red, green, _ = (truth - nothing)[mask == 1].mean(0)
    assert red > green + 20  # the first object is red
    assert np.abs(truth - nothing)[mask == 0].mean() < 8  # of 256 colours


def test_the_chart_has_a_bar_for_each_sequence_and_title(tmp_path: Path) -> None:
    """Objects had a bar each, and masks of the same title one together."""
    names = [f"{name}_{number}" for name in ("boat", "a_cart") for number in (1, 2)]
    scores = {
        title: Scores(
            overall={"J&F-Mean": mean}, per_object={name: {"J&F-Mean": mean + 0.1 * (name[-1] == "2")} for name in names}
        )
        for title, mean in (("low", 0.2), ("high", 0.8))
    }
    assert sequence_metrics(scores["low"]) == pytest.approx({"boat": 25, "a_cart": 25})
    write_chart(tmp_path / "chart.png", scores)
    with Image.open(tmp_path / "chart.png") as picture:
        pixels = np.asarray(picture.convert("RGB")).astype(int)
    low, high = ((np.abs(pixels - colour).sum(2) < 30).sum(1).max() for colour in ((31, 119, 180), (255, 127, 14)))
    assert high / low == pytest.approx(85 / 25, rel=0.05)


@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 4), (5, 6)])
def test_the_sources_are_those_that_propagation_uses(row: int, column: int) -> None:
    torch.manual_seed(0)
    settings = PropagationSettings(neighbourhood_radius=2, topk=4)
    features = F.normalize(torch.randn(4, 6, 7, 8), dim=-1)
    labels = torch.rand(3, 6, 7, 2)
    expected = propagate_labels(features[3], features[:3], labels, 2, 4, settings.temperature)
    sources = voting_patches(features[3], features[:3], row, column, settings)
    assert len(sources) == 4
    found = sum(source.weight * labels[source.frame, source.row, source.column] for source in sources)
    torch.testing.assert_close(found, expected[row, column])


def test_a_vote_is_explained(tmp_path: Path, run: Run) -> None:
    assert len(run("explain", "--width", 96).output().splitlines()) == 5 + 1
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (3 * 96, 2 * 64)


def test_lines_lead_from_the_pixel_to_its_sources(davis: Path, tmp_path: Path) -> None:
    (sequence,) = find_sequences(DavisSplit(root=davis, sequences=("boat",)), all_masks=False)
    config = ExplainConfig(
        **{name: tmp_path / f"{name}.png" for name in ("backbone", "davis", "output")},
        **{"sequence": "boat", "frame": 2, "x": 80, "y": 10, "width": WIDTH},
    )
    sources = [Source(1, 6, 2, 1.0)]  # of a grid of 8 x 12 patches: pixels 16 to 24 and 48 to 56 of the second panel
    found = []
    for drawn in (sources, []):
        canvas = FigureCanvasAgg(draw_sources(sequence, [0, 1], config, drawn, (8, 12)))
        canvas.draw()
        found.append(np.asarray(canvas.buffer_rgba()).astype(int))
    rows, columns = np.nonzero(np.abs(found[0] - found[1]).sum(2))
    # The target's panel lies below the first one.
    assert (rows.min(), rows.max()) == (pytest.approx(48, abs=2), pytest.approx(HEIGHT + 10, abs=6))
    assert (columns.min(), columns.max()) == (pytest.approx(80, abs=6), pytest.approx(WIDTH + 24, abs=2))
