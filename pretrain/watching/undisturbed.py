"""Looking at a network without leaving a trace."""

import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch
from torch import nn


@contextmanager
def undisturbed(*networks: nn.Module) -> Iterator[None]:
    """Evaluation mode and no gradients inside; afterwards every module's mode and all random states are what they were.

    Not inference mode: tensors made in it cannot take part in training, and what is cached inside would.
    """
    modes = {module: module.training for network in networks for module in network.modules()}
    python_state, numpy_state = random.getstate(), np.random.get_state()
    devices = [torch.cuda.current_device()] if torch.cuda.is_initialized() else []
    for network in networks:
        network.eval()
    try:
        with torch.random.fork_rng(devices), torch.no_grad():
            yield
    finally:
        random.setstate(python_state)
        np.random.set_state(numpy_state)
        for module, mode in modes.items():
            module.training = mode
