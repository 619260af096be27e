"""Label propagation through one video: what is remembered and how it moves on.

Shapes: M remembered frames, h x w patches, D channels of a feature, C channels of a label, H x W pixels of the network's input.
"""

from collections.abc import Iterable, Iterator
from itertools import islice

import torch
from torch import Tensor

from eval.davis.affinity import propagate_labels
from eval.davis.features import FeatureExtractor
from eval.davis.frames import Frame
from eval.davis.labels import first_labels, label_map
from eval.davis.masks import Mask
from eval.davis.protocol import PropagationSettings


class LabelPropagator:
    """Carries soft labels from frame to frame; remembers the first frame and the last `n_last_frames`."""

    def __init__(self, features_hwD: Tensor, labels_hwC: Tensor, settings: PropagationSettings) -> None:
        """Start at the first frame.

        Args:
            features_hwD: Its unit-length features.
            labels_hwC: Its labels.
            settings: The protocol.
        """
        self.settings = settings
        frames = 1 + settings.n_last_frames
        self._features_MhwD = features_hwD.new_empty(frames, *features_hwD.shape)
        self._labels_MhwC = labels_hwC.new_empty(frames, *labels_hwC.shape)
        self._features_MhwD[0], self._labels_MhwC[0] = features_hwD, labels_hwC
        self._steps = 0

    def step(self, features_hwD: Tensor) -> Tensor:
        """Soft labels [h, w, C] of the next frame from its unit-length features."""
        settings = self.settings
        known = 1 + min(self._steps, settings.n_last_frames)
        labels_hwC = propagate_labels(
            features_hwD,
            self._features_MhwD[:known],
            self._labels_MhwC[:known],
            settings.neighbourhood_radius,
            settings.topk,
            settings.temperature,
        )
        if settings.n_last_frames:
            # The order of the context frames is irrelevant, so the newest replaces the oldest in place.
            place = 1 + self._steps % settings.n_last_frames
            self._features_MhwD[place], self._labels_MhwC[place] = features_hwD, labels_hwC
        self._steps += 1
        return labels_hwC


@torch.inference_mode()
def propagate_sequence(
    frames: Iterable[Frame], first_mask: Mask, extract: FeatureExtractor, settings: PropagationSettings
) -> Iterator[tuple[Frame, Tensor]]:
    """Masks of all frames but the first.

    Nothing here waits for the device: a GPU has the work of the next frames before it has ended that of the last ones.

    Args:
        frames: The sequence, the first frame included; all of one size.
        first_mask: Object ids of the first frame, at its original size.
        extract: The features.
        settings: The protocol.

    Yields:
        Frame and its object ids [H, W] uint8 at the network's input size, on the device.
    """
    propagator = None
    for group in _groups(frames, extract):
        features_BhwD = extract(torch.stack([frame.image.to(extract.device, non_blocking=True) for frame in group]))
        for frame, features_hwD in zip(group, features_BhwD, strict=True):
            if propagator is None:
                grid = (features_hwD.shape[0], features_hwD.shape[1])
                labels_hwC = first_labels(first_mask, grid, settings.quirks.drop_highest_id)
                propagator = LabelPropagator(features_hwD, labels_hwC.to(features_hwD.device), settings)
            else:
                yield frame, label_map(propagator.step(features_hwD), extract.stride)


def _groups(frames: Iterable[Frame], extract: FeatureExtractor) -> Iterator[list[Frame]]:
    """The frames that go through the network together."""
    remaining = iter(frames)
    for first in remaining:
        others = extract.frames_at_once(*first.image.shape[1:]) - 1
        yield [first, *islice(remaining, others)]
