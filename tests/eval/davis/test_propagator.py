from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from backbones.build import build_backbone
from eval.davis.affinity import propagate_labels
from eval.davis.dataset import DavisSplit, find_sequences
from eval.davis.features import FeatureExtractor
from eval.davis.frames import Frame, read_frame
from eval.davis.masks import Mask
from eval.davis.propagator import LabelPropagator, propagate_sequence
from eval.davis.protocol import LOWEST_TEMPERATURE, PropagationSettings
from tests.eval.davis.conftest import HEIGHT, SPECS, draw_sequence

SETTINGS = PropagationSettings(short_side=64)


@pytest.mark.parametrize("family", SPECS)
def test_no_step_depends_on_what_the_device_found(family: str, tmp_path: Path) -> None:
    # Tensors on the device `meta` have no content: whoever looks at it, as one must wait for a GPU to do, gets an error.
    draw_sequence(tmp_path, "boat", 0, frames=12)
    (sequence,) = find_sequences(DavisSplit(root=tmp_path, split="all"), all_masks=False)
    extract = FeatureExtractor(build_backbone(SPECS[family]), None, torch.device("meta"))
    frames = [read_frame(path, SETTINGS, extract.input_multiple) for path in sequence.frames]
    masks = list(propagate_sequence(frames, sequence.first_mask(), extract, SETTINGS))
    assert [frame.name for frame, _ in masks] == [path.stem for path in sequence.frames[1:]]
    assert all(ids.is_meta and ids.dtype == torch.uint8 and len(ids) == HEIGHT for _, ids in masks)


def carried(propagate: PropagationSettings, mask: Mask) -> Mask:
    """The second frame's mask where nothing moves."""
    extract = FeatureExtractor(build_backbone(SPECS["vit"]), None, torch.device("cpu"))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    frames = [Frame(name=name, image=image, original_size=(64, 64)) for name in "ab"]
    ((_, ids_HW),) = propagate_sequence(frames, mask, extract, propagate)
    return ids_HW.numpy()


def test_only_the_fixed_protocol_keeps_an_object_that_is_too_thin_for_the_grid() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24] = 1
    mask[32] = 2  # patches have 8 pixels, and nearest neighbour takes one of the middle
    assert np.unique(carried(PropagationSettings(short_side=64), mask)).tolist() == [0, 1]
    assert np.unique(carried(PropagationSettings(short_side=64, protocol="fixed"), mask)).tolist() == [0, 1, 2]


@pytest.mark.parametrize("temperature", [LOWEST_TEMPERATURE, 0.1])
def test_the_temperature_is_that_of_the_settings(temperature: float) -> None:
    features = F.normalize(torch.randn(3, 4, 4, 8, generator=torch.Generator().manual_seed(0)), dim=-1)
    labels = torch.rand(2, 4, 4, 2, generator=torch.Generator().manual_seed(1))
    propagator = LabelPropagator(features[0], labels[0], PropagationSettings(temperature=temperature))
    propagator._features_MhwD[1], propagator._labels_MhwC[1], propagator._steps = features[1], labels[1], 1
    found = propagator.step(features[2])
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, propagate_labels(features[2], features[:2], labels, 12, 5, temperature))
