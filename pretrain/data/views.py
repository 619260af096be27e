"""Multi-crop: one image file to two global and several local views that remember where they come from.

facebookresearch/dino 7c446df, DataAugmentationDINO, whose operations are torchvision's and Pillow's. All numbers of an image are
drawn before more than its size is read: so a view depends on the generator's seed, wherever it is made and its colours are changed.
How much is drawn depends on the kinds of views alone, so that images of one size and one seed share everything.

Shapes: V views of an image, A attempts to place a box, H x W pixels.
"""

import io
import math
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NamedTuple

import cv2
import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from PIL import Image

from common.images import breaks_off, require_decodable, to_rgb
from pretrain.config import Interpolation, ViewsConfig
from pretrain.data.colours import NUM_COLOUR_DRAWS, ColourDraws, Pixels, change_colours, change_each_patch, draw_colours

SHARED_SIZE = 256  # side in pixels to which images are resized first where several share their draws (PW-Self)
FLIP_PROBABILITY = 0.5
ASPECT_RATIO = (3 / 4, 4 / 3)
REDUCING_GAP = 2.0  # Pillow's word: how much larger than the crop its box must remain in an image that the decoder scales

_CROP_ATTEMPTS = 10
# Flags that scale by so much; those called REDUCED_COLOR add the one for BGR.
_REDUCTIONS = {1: 0, 2: cv2.IMREAD_REDUCED_GRAYSCALE_2, 4: cv2.IMREAD_REDUCED_GRAYSCALE_4, 8: cv2.IMREAD_REDUCED_GRAYSCALE_8}

Planes = npt.NDArray[np.uint8]  # [3, H, W] RGB


class ViewKind(NamedTuple):
    """How views of one kind are made."""

    size: int  # side in pixels
    scale: tuple[float, float]  # range of the box's area, as a part of the image's
    blur_probability: float
    solarise_probability: float
    photometric_patch: int = 0  # side of patches that each change by themselves, 0 for none
    interpolation: Interpolation = "bicubic"
    saturation: float = 0.2  # largest change


class CropBox(NamedTuple):
    """Where a view was cut out, in pixels of the image, and whether it was mirrored afterwards."""

    top: int
    left: int
    height: int
    width: int
    flip: bool


class ViewDraws(NamedTuple):
    """Everything that is drawn for the views of one image."""

    boxes_V5: npt.NDArray[np.int64]  # a `CropBox` for each
    colours: ColourDraws


def view_kinds(config: ViewsConfig) -> list[ViewKind]:
    """The kinds of all views of an image, in order: global 1, global 2, local ones."""
    alike = config.photometric_patch, config.interpolation, config.saturation
    first = ViewKind(config.global_size, config.global_scale, 1.0, 0.0, *alike)
    local = ViewKind(config.local_size, config.local_scale, 0.5, 0.0, *alike)
    return [first, first._replace(blur_probability=0.1, solarise_probability=0.2), *[local] * config.local_crops]


def make_views(
    content: bytes, kinds: Sequence[ViewKind], rng: np.random.Generator, *, shared: bool = False, colours: bool = True
) -> tuple[list[Planes], ViewDraws]:
    """Make one view of each kind from the content of an image file, and say what was drawn; an OSError if it cannot be decoded.

    With `shared`, the image is resized to a square of `SHARED_SIZE` first, so that the draws fit every image. Without `colours`, only
    crops are made.
    """
    width, height = image_size(content)
    if shared:
        pixels_HW3, _ = decode(content, min(width, height) / SHARED_SIZE)
        pixels_HW3, scale = cv2.merge(list(resize(pixels_HW3, SHARED_SIZE, "bilinear"))), 1
        draws = draw_views(kinds, SHARED_SIZE, SHARED_SIZE, rng)
    else:
        draws = draw_views(kinds, width, height, rng)
        reductions_V = draws.boxes_V5[:, 2:4].min(axis=1) / [kind.size for kind in kinds]
        pixels_HW3, scale = decode(content, float(reductions_V.min()))
    views = []
    for number, kind in enumerate(kinds):
        view_3HW = resized_crop(pixels_HW3, scale, draws.boxes_V5[number, :4], kind.size, kind.interpolation)
        if draws.boxes_V5[number, 4]:
            view_3HW = torch.from_numpy(view_3HW).flip(2).numpy()
        if colours:
            changed_HW3 = change_colours(cv2.merge(list(view_3HW)), draws.colours, number)
            view_3HW = np.empty_like(view_3HW, order="C")
            cv2.split(changed_HW3, list(view_3HW))
        if colours and kind.photometric_patch:
            changed_3HW = change_each_patch(torch.from_numpy(view_3HW).float() / 255, kind.photometric_patch, rng)
            view_3HW = (changed_3HW * 255).round().to(torch.uint8).numpy()
        views.append(view_3HW)
    return views, draws


def draw_views(kinds: Sequence[ViewKind], width: int, height: int, rng: np.random.Generator) -> ViewDraws:
    boxes_V4 = draw_boxes(width, height, np.array([kind.scale for kind in kinds]), rng)
    flip_V1, uniform_VN = np.split(rng.random((len(kinds), 1 + NUM_COLOUR_DRAWS)), [1], axis=1)
    extents = np.array([(kind.blur_probability, kind.solarise_probability, kind.saturation) for kind in kinds])
    return ViewDraws(np.hstack([boxes_V4, flip_V1 < FLIP_PROBABILITY]), draw_colours(uniform_VN, *extents.T))


def draw_boxes(width: int, height: int, scales_V2: npt.NDArray[np.float64], rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Draw boxes as torchvision's RandomResizedCrop does: top, left, height and width in pixels, int64 [V, 4].

    The area is uniform within the scales, parts of the image's; the aspect ratio is log-uniform in 3/4 to 4/3; after ten boxes that
    do not fit, the largest central box of an allowed aspect ratio is taken.
    """
    uniform_4VA = rng.random((4, len(scales_V2), _CROP_ATTEMPTS))
    smallest_V1, largest_V1 = scales_V2[:, :1], scales_V2[:, 1:]
    area_VA = width * height * (smallest_V1 + (largest_V1 - smallest_V1) * uniform_4VA[0])
    low, high = math.log(ASPECT_RATIO[0]), math.log(ASPECT_RATIO[1])
    ratio_VA = np.exp(low + (high - low) * uniform_4VA[1])
    widths_VA, heights_VA = np.rint(np.sqrt(area_VA * ratio_VA)), np.rint(np.sqrt(area_VA / ratio_VA))
    fits_VA = (widths_VA > 0) & (widths_VA <= width) & (heights_VA > 0) & (heights_VA <= height)
    tops_VA = np.floor(uniform_4VA[2] * (height - heights_VA + 1))
    lefts_VA = np.floor(uniform_4VA[3] * (width - widths_VA + 1))
    boxes_VA4 = np.stack([tops_VA, lefts_VA, heights_VA, widths_VA], axis=2)
    boxes_V4 = boxes_VA4[np.arange(len(scales_V2)), fits_VA.argmax(axis=1)]  # the first that fits
    central = min(height, round(width / ASPECT_RATIO[0])), min(width, round(height * ASPECT_RATIO[1]))
    boxes_V4[~fits_VA.any(axis=1)] = ((height - central[0]) // 2, (width - central[1]) // 2, *central)
    return boxes_V4.astype(np.int64)


def image_size(content: bytes) -> tuple[int, int]:
    """Width and height in pixels, without decoding; an OSError if it is not an image, a JPEG file that breaks off, or too large."""
    if breaks_off(content):
        raise OSError("the JPEG file breaks off")
    with _opened_by_pillow(content) as image:
        return image.size


def decode(content: bytes, reduction: float = 1.0) -> tuple[Pixels, int]:
    """Decode an image whose size could be read, contiguously; also returns by how much the decoder divided its sides.

    JPEG files of one or three components go to OpenCV's libjpeg-turbo, whose pixels equal Pillow's; all others, and what OpenCV
    refuses, to Pillow; what that refuses is an OSError. Where every crop is reduced at least by `reduction`, and by much, the JPEG
    decoder scales down by 2, 4 or 8; each crop is still reduced by `REDUCING_GAP` afterwards, which keeps it within a level of 255 on
    average of the crop from the whole image.
    """
    with _opened_by_pillow(content) as image:  # which has read the header alone
        if image.format in ("JPEG", "MPO") and image.mode in ("L", "RGB"):
            scale = max(scale for scale in _REDUCTIONS if scale <= max(reduction / REDUCING_GAP, 1))
            mode = _REDUCTIONS[scale] | cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
            pixels_HW3 = cv2.imdecode(np.frombuffer(content, np.uint8), mode)
            if pixels_HW3 is not None:
                return pixels_HW3, scale
        return np.array(to_rgb(image)), 1


def decode_whole(content: bytes) -> Pixels:
    """Decode an image completely; files that are cut short and others that cannot be are an OSError."""
    image_size(content)
    return decode(content)[0]


@contextmanager
def _opened_by_pillow(content: bytes) -> Iterator[Image.Image]:
    try:
        with Image.open(io.BytesIO(content)) as image:
            require_decodable(image.size)
            yield image
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises these too for damaged files, depending on the format.
        raise OSError(str(error)) from error


def resized_crop(
    pixels_HW3: Pixels, scale: int, box: npt.NDArray[np.int64], size: int, interpolation: Interpolation = "bicubic"
) -> Planes:
    """Cut a box, in pixels of the whole image, out of the image whose sides are divided by `scale`, and resize it to a square."""
    low_2, high_2 = box[:2] / scale, (box[:2] + box[2:]) / scale  # rows, columns
    first_2 = np.floor(low_2).astype(int)
    rows, columns = map(slice, first_2, np.ceil(high_2).astype(int))
    part_HW3 = pixels_HW3[rows, columns]
    if scale == 1:
        return resize(part_HW3, size, interpolation)
    # Pillow resizes from boxes that end between pixels; nothing from outside the box's pixels gets in.
    between = (*(low_2 - first_2)[::-1], *(high_2 - first_2)[::-1])
    part = Image.fromarray(np.ascontiguousarray(part_HW3))
    return np.array(part.resize((size, size), Image.Resampling[interpolation.upper()], box=between)).transpose(2, 0, 1)


def resize(pixels_HW3: Pixels, size: int, interpolation: Interpolation) -> Planes:
    """Resize to a square, antialiased, on bytes whose rows are contiguous.

    Fewer than a value in a thousand is more than a level of 255 off Pillow's, at extremes where one limits intermediate values.
    """
    batch_13HW = torch.from_numpy(pixels_HW3).permute(2, 0, 1)[None]
    planes_3HW: Planes = F.interpolate(batch_13HW, size=(size, size), mode=interpolation, antialias=True)[0].numpy()
    return planes_3HW
