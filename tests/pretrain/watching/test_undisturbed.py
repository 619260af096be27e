import random

import numpy as np
import torch
from torch import nn

from pretrain.watching.undisturbed import undisturbed


def test_modes_and_random_states_are_restored() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    network[1].eval()  # a part that is not in training mode stays so

    def draws() -> tuple[float, float, float]:
        return random.random(), float(np.random.rand()), float(torch.rand(()))

    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    expected = draws()
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(0)
    with undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert draws() == expected
        assert not network(torch.rand(3, 2)).requires_grad
    assert draws() == expected
    assert [module.training for module in network.modules()] == [True, True, False, True]


def test_they_are_restored_after_an_error() -> None:
    network = nn.Linear(1, 1)
    try:
        with undisturbed(network):
            raise OSError
    except OSError:
        pass
    assert network.training
    assert torch.is_grad_enabled()
