"""What a data set is for pretraining: numbered images with names."""

from collections.abc import Sequence
from typing import Protocol

from pretrain.data.decoding import Pixels


class ImageSource(Protocol):
    """Images by their number. Copies of it go to the workers."""

    @property
    def names(self) -> Sequence[str]:
        """What tells the images of the set apart, wherever it lies; their order is that of the numbers."""

    def load(self, index: int) -> bytes | Pixels:
        """The content of an image file, or pixels uint8 [H, W, 3].

        Raises:
            OSError: If it cannot be read.
        """

    def describe(self, index: int) -> str:
        """Where an image lies, for messages."""
