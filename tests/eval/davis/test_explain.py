from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eval.davis.data import DavisSplit, find_sequences
from eval.davis.explain import ExplainConfig, Source, draw_sources, main, voting_patches
from eval.davis.propagator import propagate_labels
from eval.davis.protocol import PropagationSettings
from tests.eval.davis.conftest import HEIGHT, WIDTH

Run = Callable[..., tuple[int, str, str]]


def test_the_sources_are_those_that_propagation_uses() -> None:
    torch.manual_seed(0)
    settings = PropagationSettings(neighbourhood_radius=2, topk=4)
    features = F.normalize(torch.randn(4, 6, 7, 8), dim=-1)
    labels = torch.rand(3, 6, 7, 2)
    expected = propagate_labels(features[3], features[:3], labels, 2, 4, settings.temperature)
    for row, column in ((0, 0), (3, 4), (5, 6)):
        sources = voting_patches(features[3], features[:3], row, column, settings)
        assert len(sources) == 4
        found = sum(source.weight * labels[source.frame, source.row, source.column] for source in sources)
        torch.testing.assert_close(found, expected[row, column])


def test_the_command_draws(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    options: dict[str, object] = {"backbone": backbone_files["vit"], "davis": davis, "sequence": "boat", "short_side": 64}
    options |= {"device": "cpu", "frame": 3, "x": 20, "y": 18, "width": 96, "output": tmp_path / "why.png"}

    def command(**changes: object) -> tuple[int, str, str]:
        return run(main, *(part for name, value in (options | changes).items() for part in (f"--{name}", value)))

    status, printed, errors = command()
    assert (status, errors) == (0, "")
    assert len(printed.splitlines()) == 5 + 1
    with Image.open(tmp_path / "why.png") as picture:
        assert picture.size == (3 * 96, 2 * 64)
    for changes, message in (
        ({"frame": 99}, "boat has frames 0 to 4"),
        ({"frame": 0}, "at least 1"),
        ({"x": 96}, "outside the 96 x 64 pixels"),
        ({"output": tmp_path / "why.gif"}, "must end in .png"),
        ({"sequence": "boat,cart"}, "sequence='boat,cart' must be the name of one sequence"),
    ):
        status, _, errors = command(**changes)
        assert (status, len(errors.splitlines())) == (2, 1)
        assert message in errors


def test_lines_lead_from_the_pixel_to_its_sources(davis: Path, tmp_path: Path) -> None:
    (sequence,) = find_sequences(DavisSplit(root=davis, sequences=("boat",)), all_masks=False)
    config = ExplainConfig(
        **{name: tmp_path / f"{name}.png" for name in ("backbone", "davis", "output")},
        **{"sequence": "boat", "frame": 2, "x": 80, "y": 10, "width": WIDTH},
    )
    sources = [Source(1, 6, 2, 1.0)]  # of a grid of 8 x 12 patches: pixels 16 to 24 and 48 to 56 of the second panel
    drawn = np.asarray(draw_sources(sequence, [0, 1], config, sources, (8, 12))).astype(int)
    plain = np.asarray(draw_sources(sequence, [0, 1], config, [], (8, 12))).astype(int)
    rows, columns = np.nonzero(np.abs(drawn - plain).sum(2))
    # The target's panel lies below the two, in the middle.
    assert (rows.min(), rows.max()) == (pytest.approx(48, abs=2), pytest.approx(HEIGHT + 10, abs=6))
    assert (columns.min(), columns.max()) == (pytest.approx(WIDTH + 16, abs=2), pytest.approx(WIDTH // 2 + 80, abs=6))
