"""Reading photographs so that a damaged file is an error that names it, not a grey picture."""

from pathlib import Path
from typing import Any

import mmcv
from mmcv.transforms import BaseTransform
from mmengine.registry import TRANSFORMS

from common.jpeg import breaks_off


class ImageFileError(ValueError):
    """A file that cannot be read as the image that it should be."""

    def __init__(self, message: str) -> None:
        """Keep the last line: from a worker process, PyTorch hands over the whole traceback as the message."""
        kind = f"{type(self).__module__}.{type(self).__qualname__}: "
        super().__init__(message.strip().splitlines()[-1].removeprefix(kind))


@TRANSFORMS.register_module()
class ReadImage(BaseTransform):
    """mmcv's `LoadImageFromFile` with its defaults: 8-bit BGR by OpenCV, which fills the missing part of a JPEG with grey."""

    def transform(self, results: dict[str, Any]) -> dict[str, Any]:
        """Add `img` and its sizes.

        Args:
            results: With `img_path`; `height` and `width` where annotations state them.

        Raises:
            ImageFileError: If the file is no image, a JPEG that breaks off, or of another size than the annotations say.
        """
        path = results["img_path"]
        content = Path(path).read_bytes()
        if breaks_off(content):
            raise ImageFileError(f"{path}: the JPEG breaks off after {len(content)} bytes; copy it again")
        image = mmcv.imfrombytes(content, flag="color", backend="cv2") if content else None
        if image is None:
            raise ImageFileError(f"{path}: not a readable image ({len(content)} bytes); copy it again")
        size = image.shape[:2]
        # As Detectron2 does: annotations of another size would be drawn in the wrong places.
        if (stated := (results.get("height", size[0]), results.get("width", size[1]))) != size:
            raise ImageFileError(
                f"{path}: {size[1]} x {size[0]} pixels, but {stated[1]} x {stated[0]} by the annotations; take the original"
            )
        return {**results, "img": image, "img_shape": size, "ori_shape": size}
