from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from eval.davis.dataset import DavisSplit, find_sequences
from eval.davis.features import FeatureExtractor
from eval.davis.frames import read_frame
from eval.davis.propagator import propagate_sequence
from eval.davis.protocol import PropagationSettings
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
