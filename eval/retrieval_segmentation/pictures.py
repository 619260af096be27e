"""Pictures of dense retrieval: image, truth and prediction above, and below the training patches that voted for one patch of it."""

from PIL import Image, ImageDraw

from eval.probes.pictures import label_panel, rgb_panel, sheet
from eval.retrieval_segmentation.retrieval import Memory, Retrieval

_VOTERS, _COLUMNS, _SIZE = 6, 3, (224, 224)
_CONTEXT = 3  # patches that are shown around a voter, on each side


def draw_picture(retrieval: Retrieval, memory: Memory, number: int, image: int) -> Image.Image:
    """The patch in question is in the middle of the image's commonest class, other than 0 where there is one."""
    ((neighbours, (prediction,)),) = retrieval.segment(retrieval.test, [image], memory, [number])
    side, std, classes = retrieval.test.side, retrieval.settings.std, len(retrieval.labels.names)
    pixels, truth = retrieval.test.read_view(image)
    shown = truth[truth < classes]
    shown = shown[shown > 0] if (shown > 0).any() else shown
    patch = len(truth) // side
    places = (truth == shown.mode().values).nonzero() // patch
    middle = (places - places.float().mean(0)).square().sum(1).argmin()
    row, column = places[middle].tolist()
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


def _marked(image: Image.Image, row: int, column: int, patch: int) -> Image.Image:
    corners = (column * patch, row * patch, (column + 1) * patch, (row + 1) * patch)
    ImageDraw.Draw(image).rectangle(corners, outline="red", width=max(1, image.width // 112))
    return image
