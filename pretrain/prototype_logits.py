"""Logits as the products that they are, so that they need never exist all at once.

Shapes: R rows, D channels of an embedding, K prototypes.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor


@dataclass(frozen=True)
class PrototypeLogits:
    """Embeddings and prototypes whose products are the logits [..., K].

    Stands for the tensor of logits where only some of its rows are needed at a time, or only their mean: an image of SelfPatch has
    680 rows of 4096 logits, but of 256 channels.
    """

    embeddings: Tensor
    """[..., D]; products are taken in their dtype."""
    prototypes_KD: Tensor
    """float32."""

    @property
    def shape(self) -> torch.Size:
        """That of the logits."""
        return torch.Size((*self.embeddings.shape[:-1], len(self.prototypes_KD)))

    @property
    def device(self) -> torch.device:
        """Where the logits would be."""
        return self.embeddings.device

    def __len__(self) -> int:
        """Size of the first dimension."""
        return len(self.embeddings)

    def __getitem__(self, index: Any) -> "PrototypeLogits":
        """Some of the rows; indexes every dimension but the last."""
        return PrototypeLogits(self.embeddings[index], self.prototypes_KD)


Logits = Tensor | PrototypeLogits
"""[..., K]; as values, or as the products that yield them."""


def split_product(logits: Logits) -> tuple[Tensor, Tensor | None]:
    """Embeddings [..., D] and prototypes [K, D]; of logits given as values these and None."""
    return (logits, None) if isinstance(logits, Tensor) else (logits.embeddings, logits.prototypes_KD)


def join_product(embeddings: Tensor, prototypes_KD: Tensor | None) -> Logits:
    """The reverse of `split_product`."""
    return embeddings if prototypes_KD is None else PrototypeLogits(embeddings, prototypes_KD)


def values(logits: Logits) -> Tensor:
    """The logits as a tensor, in the dtype of the embeddings."""
    embeddings, prototypes_KD = split_product(logits)
    return embeddings if prototypes_KD is None else F.linear(embeddings, prototypes_KD.to(embeddings.dtype))


def flat_rows(logits: Logits) -> Logits:
    """[..., K] -> [R, K]."""
    embeddings, prototypes_KD = split_product(logits)
    return join_product(embeddings.flatten(0, -2), prototypes_KD)


def concatenate(parts: Sequence[Logits]) -> Logits:
    """Join along the first dimension; all of one head, so of the same prototypes."""
    products = [split_product(part) for part in parts]
    prototypes_KD = products[0][1]
    assert all(others_KD is prototypes_KD for _, others_KD in products)
    return join_product(torch.cat([embeddings for embeddings, _ in products]), prototypes_KD)
