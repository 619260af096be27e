"""Precise batch normalisation: after training, statistics are measured with the final weights.

The running averages of training mix statistics of many versions of the weights. Detectron2's option TEST.PRECISE_BN, part of the
ResNet protocols on COCO, replaces them by the plain mean over 200 batches, with the weights fixed.
Source: facebookresearch/fvcore 1256a64f, fvcore/nn/precise_bn.py.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.registry import HOOKS
from mmengine.runner import Runner
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm

from eval.openmmlab.accumulation import micro_batches


@contextmanager
def measuring_statistics(model: nn.Module) -> Iterator[None]:
    """Within, every forward pass in training mode adds a batch to the mean of batch means and variances, which starts empty."""
    layers = [module for module in model.modules() if isinstance(module, _BatchNorm) and module.track_running_stats]
    momenta = [layer.momentum for layer in layers]
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # PyTorch's sign for the mean over all batches since the reset
    try:
        yield
    finally:
        for layer, momentum in zip(layers, momenta, strict=True):
            layer.momentum = momentum


@HOOKS.register_module()
class PreciseBatchNormHook(Hook):
    """Measures the statistics on training batches after the last update, before its checkpoint is written."""

    def __init__(self, iterations: int) -> None:
        """Remember the number.

        Args:
            iterations: Batches of the training's total size to average over.
        """
        self.iterations = iterations

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Measure, if this was the last update."""
        if runner.iter + 1 < runner.max_iters:
            return
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        batches = runner.train_loop.dataloader_iterator
        with torch.no_grad(), measuring_statistics(model):
            for _ in range(self.iterations):
                for part in micro_batches(next(batches), runner.optim_wrapper._accumulative_counts):
                    with runner.optim_wrapper.optim_context(model):
                        model(**model.data_preprocessor(part, training=True), mode="loss")
