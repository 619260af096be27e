"""A folder of images, at any depth, some of which may be unreadable."""

import logging
from pathlib import Path

from PIL import Image

logger = logging.getLogger(__name__)

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".webp", ".tif", ".tiff", ".ppm"})


def find_images(folder: Path, option: str = "data.path") -> list[Path]:
    """Every image file under a folder, sorted by path.

    Args:
        folder: Where to look, at any depth.
        option: Which option gave the folder, for the error.

    Raises:
        ValueError: If the folder is absent or holds no image.
    """
    if not folder.is_dir():
        raise ValueError(f"{option}: {folder} is not a folder; give a folder of images, at any depth")
    paths = sorted(path for path in folder.rglob("*") if path.suffix.lower() in IMAGE_SUFFIXES and path.is_file())
    if not paths:
        raise ValueError(f"{option}: no image under {folder}; suffixes looked for: {', '.join(sorted(IMAGE_SUFFIXES))}")
    return paths


def read_image(path: Path) -> Image.Image:
    """Decode an image completely to RGB.

    Raises:
        OSError: If it cannot be decoded; also for files cut short.
    """
    try:
        with Image.open(path) as image:
            return image.convert("RGB")
    except (SyntaxError, ValueError, Image.DecompressionBombError) as error:
        # Pillow raises these too for damaged files, depending on the format.
        raise OSError(str(error)) from error


class UnreadableImages:
    """Counts the distinct files that could not be decoded, names each once, and gives up past a limit."""

    def __init__(self, limit: int) -> None:
        """Start with none.

        Args:
            limit: How many distinct unreadable files are tolerated.
        """
        self.limit = limit
        self.paths: set[str] = set()

    def report(self, failures: dict[str, str]) -> None:
        """Take note of failures.

        Args:
            failures: Path -> reason.

        Raises:
            ValueError: If there are now more than the limit.
        """
        for path, reason in failures.items():
            if path not in self.paths:
                self.paths.add(path)
                logger.warning("skipping the unreadable image %s: %s", path, reason)
        if len(self.paths) > self.limit:
            raise ValueError(
                f"{len(self.paths)} unreadable images, more than data.max_unreadable={self.limit}; "
                f"the last is {sorted(self.paths)[-1]}; repair or remove them, or raise the limit"
            )
