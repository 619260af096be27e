"""Pictures of dense retrieval: image, truth and prediction above, and below the training patches that voted for one patch of it."""

from collections.abc import Iterator, Sequence

from PIL import Image, ImageDraw
from torch import Tensor

from eval.probes.pictures import label_panel, rgb_panel, sheet
from eval.probes.search import Neighbours
from eval.retrieval_segmentation.retrieval import Memory, Retrieval

_VOTERS, _COLUMNS, _SIZE = 6, 3, (224, 224)
_CONTEXT = 3  # patches that are shown around a voter, on each side


def pictures_of(retrieval: Retrieval, memory: Memory, number: int, images: Sequence[int]) -> Iterator[Image.Image]:
    """The pictures of test images, in their order; the memory is read once for as many as ask at once."""
    at_once = retrieval.images_at_once(retrieval.test, 1)
    for start in range(0, len(images), at_once):
        part = images[start : start + at_once]
        found = retrieval.segment(retrieval.test, part, memory, [number])
        for image, (neighbours, (prediction,)) in zip(part, found, strict=True):
            yield _picture(retrieval, image, neighbours, prediction)


def _picture(retrieval: Retrieval, image: int, neighbours: Neighbours, prediction: Tensor) -> Image.Image:
    side, std, classes = retrieval.test.side, retrieval.settings.std, len(retrieval.labels.names)
    pixels, truth = retrieval.test.read_view(image)
    patch = len(truth) // side
    row, column = asking_patch(truth, patch, classes)
    marked = _marked(rgb_panel(pixels, std), row, column, patch)
    panels = [marked, label_panel(truth, classes), label_panel(prediction, classes)]
    for stored in neighbours.indices_Tk[row * side + column, :_VOTERS].tolist():
        view, place = divmod(stored, retrieval.train.view.kept)
        pixels, labels = retrieval.train.read_view(view)
        row_of_voter, column_of_voter = divmod(int(retrieval.train.chosen(labels, view)[place]), side)
        voter = _marked(rgb_panel(pixels, std), row_of_voter, column_of_voter, patch)
        left, top, wide = (patch * part for part in (column_of_voter - _CONTEXT, row_of_voter - _CONTEXT, 2 * _CONTEXT + 1))
        panels.append(voter.crop((left, top, left + wide, top + wide)))
    return sheet(panels, _COLUMNS, _SIZE)


def asking_patch(truth: Tensor, patch: int, classes: int) -> tuple[int, int]:
    """Row and column in the middle of an image's commonest class: other than 0 where there is one, no class where there is none."""
    shown = truth[truth < classes] if (truth < classes).any() else truth
    shown = shown[shown > 0] if (shown > 0).any() else shown
    places = (truth == shown.mode().values).nonzero() // patch
    middle = (places - places.float().mean(0)).square().sum(1).argmin()
    row, column = places[middle].tolist()
    return row, column


def _marked(image: Image.Image, row: int, column: int, patch: int) -> Image.Image:
    corners = (column * patch, row * patch, (column + 1) * patch, (row + 1) * patch)
    ImageDraw.Draw(image).rectangle(corners, outline="red", width=max(1, image.width // 112))
    return image
