"""Cross-entropy between a student's logits and sharpened targets, some rows at a time.

Written out, the loss keeps the logits of student and teacher, both softmaxes, their product and three gradients in memory: with 680
patches per image and 4096 prototypes most of a training step's memory. Here each chunk of rows gets its logits, targets, loss and
gradient at once, while they are in the processor's cache, and all that stays are the gradients of embeddings and prototypes, which
are narrow. No product is computed twice.

Shapes: R rows, r rows of a chunk, D channels of an embedding, K prototypes.
"""

from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor
from torch.autograd.function import once_differentiable

from backbones.onednn import dot_products
from pretrain.prototype_logits import Logits, flat_rows, split_product

_CHUNK_VALUES = {"cpu": 2**20, "cuda": 2**26}
"""Logits of a chunk: 4 MiB on a CPU, so that a few of such tensors stay in its cache; 256 MiB on a GPU, for much work at once."""
_LEAST_ROWS = 128
"""Fewer would move the prototypes' gradient more often than they compute."""

Targets = Callable[[slice], Tensor]
"""Probabilities [r, K] in float32, without gradient, of some rows; each row sums to 1."""


class SharpenedTargets:
    """A teacher's probabilities: logits centred, sharpened, without gradient; computed for the rows that are asked for."""

    def __init__(self, logits: Logits, centre: Tensor, temperature: float, positions_R: Tensor | None = None) -> None:
        """Store.

        Args:
            logits: [..., K]; rows are counted over all leading dimensions.
            centre: [K], or [N, K] for N positions.
            temperature: Divides the centred logits.
            positions_R: The position of each row, for a centre per position.
        """
        self.embeddings_RD, self._prototypes_KD = split_product(flat_rows(logits))
        if self._prototypes_KD is not None:
            self._prototypes_KD = self._prototypes_KD.to(self.embeddings_RD.dtype)
        self._centre, self._temperature, self._positions_R = centre, temperature, positions_R

    @torch.no_grad()
    def __call__(self, rows: slice) -> Tensor:
        """See `Targets`."""
        logits_rK = _products(self.embeddings_RD[rows], self._prototypes_KD)
        centre = self._centre if self._positions_R is None else self._centre[self._positions_R[rows]]
        return torch.softmax((logits_rK - centre).div_(self._temperature), dim=-1)


def weighted_cross_entropy(student: Logits, targets: Targets, weights_R: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
    """The weighted sum over rows of -sum(target * log_softmax(student / temperature)), and each row's share of it.

    The weights must be given, and not applied to the rows' losses afterwards, since the gradient is computed together with the loss.

    Args:
        student: [..., K], with gradient; rows are counted over all leading dimensions.
        targets: See `Targets`.
        weights_R: float32, without gradient.
        temperature: Divides the student's logits.

    Returns:
        The sum, a scalar in float32 with gradient; the unweighted losses of the rows [R], without.
    """
    embeddings_RD, prototypes_KD = split_product(flat_rows(student))
    total, losses_R = _CrossEntropy.apply(embeddings_RD, prototypes_KD, targets, weights_R, temperature)
    return total, losses_R


class _CrossEntropy(torch.autograd.Function):
    """See `weighted_cross_entropy`; the gradient for a sum of 1 is computed in the forward pass."""

    @staticmethod
    def forward(
        ctx: Any,
        embeddings_RD: Tensor,
        prototypes_KD: Tensor | None,
        targets: Targets,
        weights_R: Tensor,
        temperature: float,
    ) -> tuple[Tensor, Tensor]:
        dtype, exact = embeddings_RD.dtype, torch.promote_types(embeddings_RD.dtype, torch.float32)
        prototypes = None if prototypes_KD is None else prototypes_KD.to(dtype)
        classes = embeddings_RD.shape[1] if prototypes_KD is None else len(prototypes_KD)
        losses_R = embeddings_RD.new_empty(len(embeddings_RD), dtype=exact)
        of_embeddings_RD = torch.empty_like(embeddings_RD) if ctx.needs_input_grad[0] else None
        of_prototypes_KD: Tensor | None = None
        for rows in _chunks(len(embeddings_RD), classes, embeddings_RD.device):
            logits_rK = _products(embeddings_RD[rows], prototypes) / temperature
            targets_rK = targets(rows)
            slopes_rK = torch.softmax(logits_rK, dim=-1)
            # The logarithm of the softmax's denominator, from the largest value before and after.
            normalisers_r = logits_rK.amax(-1) - slopes_rK.amax(-1).log()
            losses_R[rows] = normalisers_r - torch.linalg.vecdot(targets_rK, logits_rK)
            if not any(ctx.needs_input_grad):
                continue
            slopes_rK = slopes_rK.sub_(targets_rK).to(dtype)
            factors_r1 = (weights_R[rows] / temperature)[:, None]
            if of_embeddings_RD is not None:
                slopes_rD = slopes_rK if prototypes is None else dot_products(slopes_rK, prototypes.T)
                of_embeddings_RD[rows] = slopes_rD * factors_r1
            if ctx.needs_input_grad[1]:
                weighted_rD = (embeddings_RD[rows] * factors_r1).to(dtype)
                of_prototypes_KD = _add_product(of_prototypes_KD, slopes_rK.T, weighted_rD, exact)
        ctx.save_for_backward(of_embeddings_RD, of_prototypes_KD)
        ctx.mark_non_differentiable(losses_R)
        return weights_R @ losses_R, losses_R

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        gradient = gradients[0]
        saved = ctx.saved_tensors
        if gradient.device.type != "cpu" or gradient != 1:
            # On a GPU even asking whether it is 1 would cost more.
            saved = [None if tensor is None else (tensor * gradient).to(tensor.dtype) for tensor in saved]
        return *saved, None, None, None


def _products(embeddings_rD: Tensor, prototypes_KD: Tensor | None) -> Tensor:
    """Logits [r, K] in float32 or wider."""
    logits_rK = embeddings_rD if prototypes_KD is None else dot_products(embeddings_rD, prototypes_KD)
    return logits_rK.to(torch.promote_types(logits_rK.dtype, torch.float32))


def _add_product(total: Tensor | None, left: Tensor, right: Tensor, dtype: torch.dtype) -> Tensor:
    """`total + left @ right`, in place, with the sum over chunks in `dtype`."""
    if total is None:
        return (left @ right).to(dtype)
    return total.addmm_(left, right) if left.dtype == dtype else total.add_(left @ right)


def _chunks(rows: int, classes: int, device: torch.device) -> Iterator[slice]:
    step = max(_LEAST_ROWS, _CHUNK_VALUES.get(device.type, _CHUNK_VALUES["cuda"]) // classes)
    return (slice(start, min(start + step, rows)) for start in range(0, rows, step))
