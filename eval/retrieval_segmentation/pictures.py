"""Pictures of dense retrieval: image, truth and prediction above, and below the training patches that voted for one patch of it."""

from collections.abc import Iterator, Sequence

from PIL import Image
from torch import Tensor

from eval.probes.pictures import commonest_patch, framed, label_panel, rgb_panel, sheet
from eval.probes.search import Neighbours
from eval.retrieval_segmentation.retrieval import QUERIES_AT_ONCE, Memory, Retrieval

_VOTERS, _COLUMNS, _SIZE = 6, 3, (224, 224)
_CONTEXT = 3  # patches that are shown around a voter, on each side


def pictures_of(retrieval: Retrieval, memory: Memory, number: int, images: Sequence[int]) -> Iterator[Image.Image]:
    """The pictures of test images, in their order; the memory is read once for as many as ask at once."""
    at_once = max(1, QUERIES_AT_ONCE // retrieval.test.view.kept)
    for start in range(0, len(images), at_once):
        part = images[start : start + at_once]
        found = retrieval.segment(retrieval.test, part, memory, [number])
        for image, (neighbours, (prediction,)) in zip(part, found, strict=True):
            yield _picture(retrieval, image, neighbours, prediction)


def _picture(retrieval: Retrieval, image: int, neighbours: Neighbours, prediction: Tensor) -> Image.Image:
    side, std, classes = retrieval.test.side, retrieval.settings.std, len(retrieval.labels.names)
    pixels, truth = retrieval.test.read_view(image)
    patch = len(truth) // side
    row, column = commonest_patch(truth, patch, classes)
    marked = framed(rgb_panel(pixels, std), row, column, patch)
    panels = [marked, label_panel(truth, classes), label_panel(prediction, classes)]
    for stored in neighbours.indices_Tk[row * side + column, :_VOTERS].tolist():
        view, place = divmod(stored, retrieval.train.view.kept)
        pixels, labels = retrieval.train.read_view(view)
        row_of_voter, column_of_voter = divmod(int(retrieval.train.chosen(labels, view)[place]), side)
        voter = framed(rgb_panel(pixels, std), row_of_voter, column_of_voter, patch)
        left, top, wide = (patch * part for part in (column_of_voter - _CONTEXT, row_of_voter - _CONTEXT, 2 * _CONTEXT + 1))
        panels.append(voter.crop((left, top, left + wide, top + wide)))
    return sheet(panels, _COLUMNS, _SIZE)
