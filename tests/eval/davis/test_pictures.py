"""What the commands `pictures` and `explain` draw."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from eval.davis.explain import context_frames, voting_patches
from eval.davis.pictures import panel_titles, sequence_metrics
from eval.propagation.masks import overlay, write_mask
from eval.propagation.measures import Scores
from eval.propagation.propagator import LabelPropagator, propagate_from_everywhere, propagate_labels
from eval.propagation.protocol import RULES, ProtocolName
from tests.eval.davis.conftest import FRAMES, HEIGHT, WIDTH, Run, sequences_of


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
    for name in ("one", "two"):
        shutil.copytree(davis / "Annotations/480p", tmp_path / name / "masks")
    folders = ("--compare", tmp_path / "one/masks", tmp_path / "two/masks")
    printed = run("pictures", "--sequences", "boat", "--width", WIDTH, *folders).output()
    assert printed.splitlines() == [str(tmp_path / "out/boat.gif"), str(tmp_path / "out/j_and_f.png")]
    with Image.open(tmp_path / "out/boat.gif") as animation:
        assert (animation.n_frames, animation.size) == (FRAMES, (3 * WIDTH, HEIGHT + 16))
    assert panel_titles(folders[1:]) == ["one", "two"]


def test_a_sequence_has_the_mean_of_its_objects() -> None:
    """Objects had a bar each in the chart."""
    per_object = {"boat_1": 0.2, "boat_2": 0.3, "a_cart_1": 0.8}
    scores = Scores(overall={}, per_object={name: {"J&F-Mean": value} for name, value in per_object.items()})
    assert sequence_metrics(scores) == pytest.approx({"boat": 25, "a_cart": 80})


@pytest.mark.parametrize("protocol", ["dino", "dinov3", "crw"])
@pytest.mark.parametrize(("row", "column"), [(0, 0), (3, 4), (5, 6)])
def test_the_sources_are_those_that_propagation_uses(row: int, column: int, protocol: ProtocolName) -> None:
    torch.manual_seed(0)
    rules = replace(RULES[protocol], neighbourhood_radius=2, topk=4)
    features = F.normalize(torch.randn(4, 6, 7, 8), dim=-1)
    labels = torch.rand(3, 6, 7, 2)
    copies = 1 if rules.first_frame_unlimited else 0
    if rules.first_frame_unlimited:
        expected = propagate_from_everywhere(features[3], features[:3], labels, rules, copies)
    else:
        expected = propagate_labels(features[3], features[:3], labels, rules)
    sources = voting_patches(features[3], features[:3], row, column, rules, copies)
    assert len(sources) == 4 or copies
    found = sum(source.weight * labels[source.frame, source.row, source.column] for source in sources)
    torch.testing.assert_close(found, expected[row, column])


@pytest.mark.parametrize("protocol", ["dino", "crw"])
def test_frames_in_which_objects_begin_vote_to_the_end(protocol: ProtocolName) -> None:
    rules, begin = replace(RULES[protocol], n_last_frames=2), (1, 3)
    (video,) = sequences_of([9])
    video = replace(video, beginnings=tuple((number, frozenset({number})) for number in begin))
    with pytest.raises(ValueError, match="frame=1: no object of s0 has begun before it"):
        context_frames(video, 1, rules)
    propagator = LabelPropagator(numbered(begin[0]), torch.ones(1, 1, 2), rules)
    for frame in range(begin[0] + 1, 9):
        numbers, copies = context_frames(video, frame, rules)
        steps = propagator._steps
        known = propagator._features[: propagator._kept + min(steps, rules.n_last_frames)]
        assert numbers == sorted(known.flatten().int().tolist())
        assert copies == (max(0, rules.n_last_frames - steps) if protocol == "crw" else 0)
        propagator.step(numbered(frame), torch.zeros(1, 1, 2) if frame in begin else None)


def numbered(frame: int) -> torch.Tensor:
    """Features of a grid of one patch that tell which frame it is."""
    return torch.full((1, 1, 1), float(frame))


def test_a_vote_is_explained(tmp_path: Path, run: Run) -> None:
    assert len(run("explain", "--width", 96).output().splitlines()) == 5 + 1
    with Image.open(tmp_path / "out.png") as picture:
        assert picture.size == (3 * 96, 2 * 64)
