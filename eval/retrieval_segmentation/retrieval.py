"""The memory of a protocol, the segmentation of images by it, and how often each class is taken for which.

Shapes: R rows of stored patches, N patches of an image, K neighbours, U different ones, D channels, P pixels of a patch, C classes.
"""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from pathlib import Path
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from eval.probes.data import VOID
from eval.probes.matching import class_pixels, confusion, count_in_files, read_counts
from eval.probes.patches import ROWS_AT_ONCE, Patches, longest_vector, map_of_patches, moments
from eval.probes.pixels import compute_metrics
from eval.probes.search import Engine, Neighbours, by_distance, nearest_rows, unit
from eval.retrieval_segmentation import rules
from eval.retrieval_segmentation.protocol import Labels, Settings

QUERIES_AT_ONCE = 2**16  # patches for which the memory is read once


class Memory(NamedTuple):
    """Rows of the stored patches, and what makes vectors of features on the device; its flag: for those that ask.

    The product of vectors is nearness.
    """

    rows: Tensor
    vectors: Callable[[Tensor, bool], Tensor]


@dataclass(frozen=True)
class Retrieval:
    settings: Settings
    labels: Labels
    train: Patches
    test: Patches
    device: torch.device
    engine: Engine
    seed: int

    @cached_property
    def held_out(self) -> list[int]:
        """Views of the training images that choose the distance and the number of neighbours, ascending."""
        count = self.train.num_views
        order = np.random.RandomState(self.seed).permutation(count)
        return sorted(order[: int(count * self.settings.held_out)].tolist())

    @cached_property
    def learned(self) -> list[int]:
        return sorted(set(range(self.train.num_views)).difference(self.held_out))

    @cached_property
    def scale(self) -> tuple[Tensor, Tensor, float]:
        """Mean and deviation [D] of the features that are not held out, on the device, and the length of the longest, so scaled."""
        mean_D, deviation_D = moments(self.train.features, self.train.rows_of(self.learned))
        longest = max(longest_vector(store, mean_D, deviation_D) for store in (self.train.features, self.test.features))
        return mean_D.to(self.device), deviation_D.to(self.device), longest

    def remember(self, views: Sequence[int], distance: str) -> Memory:
        """The patches of these training views that the protocol remembers; ValueError if fewer than are to vote."""
        rows = self.train.rows_of(views)
        if not self.settings.void_is_background:
            parts = rows.split(ROWS_AT_ONCE)
            rows = torch.cat([part[self._have_labels(self.train.pixels.rows(part))] for part in parts])
        if len(rows) < (needed := max(self.settings.neighbours)):
            raise ValueError(f"{self.train.split.root}: {len(rows)} training patches have labels, and {needed} are to vote")
        if not self.settings.standardised:
            return Memory(rows, lambda found_RD, _: unit(found_RD))
        mean_D, deviation_D, longest = self.scale
        if distance == "cosine":
            return Memory(rows, lambda found_RD, _: unit((found_RD - mean_D) / deviation_D))
        return Memory(rows, lambda found_RD, ask: by_distance((found_RD - mean_D) / deviation_D, longest, ask))

    def _have_labels(self, pixels_RP: Tensor) -> Tensor:
        if self.settings.drop_void_patches:
            return pixels_RP.mode(dim=1).values != self.labels.void_class
        return (pixels_RP < len(self.labels.names)).any(dim=1)

    def _blocks(self, memory: Memory) -> Iterator[Tensor]:
        for span in self.train.features.spans:
            first, last = torch.searchsorted(memory.rows, torch.tensor([span.start, span.stop])).tolist()
            if first < last:
                yield memory.vectors(self.train.features.rows(memory.rows[first:last]).to(self.device), False)

    def segment(
        self, asking: Patches, images: Sequence[int], memory: Memory, numbers: Sequence[int]
    ) -> Iterator[tuple[Neighbours, list[Tensor]]]:
        """For each image the neighbours of its patches, as rows of the stored ones, and a label map for each number of neighbours."""
        classes, temperature = len(self.labels.names), self.settings.temperature
        vectors = memory.vectors(asking.features.rows(asking.rows_of(images)).to(self.device), True)
        found = nearest_rows(vectors, self._blocks(memory), max(numbers), self.device, self.engine)
        for scores_NK, indices_NK in zip(*(each.split(asking.view.kept) for each in found), strict=True):
            rows_U, places_NK = memory.rows[indices_NK].unique(return_inverse=True)
            pixels_UP = self.train.pixels.rows(rows_U)
            maps = []
            for number in numbers:
                nearest_NK = places_NK[:, :number]
                if temperature is None:
                    maps.append(rules.predict_by_majority(nearest_NK, pixels_UP))
                    continue
                votes_NC = rules.soft_votes(scores_NK[:, :number], nearest_NK, pixels_UP, classes, temperature)
                maps.append(rules.predict_softly(votes_NC, self.settings.input_size))
            yield Neighbours(scores_NK, rows_U[places_NK]), maps

    def confusions(
        self, folder: Path, name: str, asking: Patches, images: Sequence[int], memory: Memory, numbers: Sequence[int]
    ) -> list[Path]:
        """Files of confusion matrices [images, numbers of neighbours, C, C]."""

        def count(part: Sequence[int]) -> npt.NDArray[np.uint32]:
            counts = []
            for image, (_, maps) in zip(part, self.segment(asking, part, memory, numbers), strict=True):
                truth = map_of_patches(asking.pixels.rows(asking.rows_of([image])))
                if asking is self.train:
                    truth = truth.masked_fill(truth == self.labels.void_class, VOID)
                counts.append([confusion(truth, each, len(self.labels.names)).astype(np.uint32) for each in maps])
            return np.array(counts)

        at_once, cells = max(1, QUERIES_AT_ONCE // asking.view.kept), len(numbers) * len(self.labels.names) ** 2
        return count_in_files(folder, name, images, at_once, cells, count)

    def choose(self, folder: Path) -> tuple[str, int]:
        """Distance and number of neighbours: the protocol's, or those with the highest mIoU on the held-out images."""
        settings = self.settings
        if not settings.held_out:
            return settings.distances[0], settings.neighbours[0]
        scores = {}
        for distance in settings.distances:
            memory = self.remember(self.learned, distance)
            paths = self.confusions(folder, distance, self.train, self.held_out, memory, settings.neighbours)
            counts = sum(read_counts(path).sum(axis=0) for path in paths)
            for number, confusion_CC in zip(settings.neighbours, counts, strict=True):
                scores[number, distance] = compute_metrics(torch.from_numpy(class_pixels(confusion_CC)))[0]["mIoU"]
        number, distance = max(product(settings.neighbours, settings.distances), key=lambda pair: scores[pair])
        return distance, number
