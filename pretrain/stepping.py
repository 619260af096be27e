"""The steps of a run: what `pretrain.trainer.training_step` needs besides the batch, made once."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from pretrain.config import PretrainConfig
from pretrain.data.loader import Batch, network_inputs
from pretrain.distributed import rank, world_size
from pretrain.networks import Networks, choose_autocast
from pretrain.run_schedules import step_settings
from pretrain.trainer import StepSettings, training_step


@dataclass(frozen=True)
class Done:
    """A step that was done; see `pretrain.observers.Moment`."""

    crops: Sequence[Tensor]
    """The networks' input."""
    settings: StepSettings
    """The schedules' values."""
    losses: Mapping[str, Tensor]
    """Before the update."""


class Stepper:
    """Does the steps of a run, each a function of the networks and its number."""

    def __init__(self, config: PretrainConfig, device: torch.device, networks: Networks, steps_per_epoch: int) -> None:
        """Compile the networks if asked for, and wrap the student where there are several processes.

        Args:
            config: The run.
            device: Of this process.
            networks: What is trained.
            steps_per_epoch: For the schedules.
        """
        self._device = device
        self._networks = networks
        self._train = config.train
        self._settings = step_settings(config, steps_per_epoch)
        self._autocast = choose_autocast(config.train.precision, device)
        if config.train.compile:
            for network in (networks.student, networks.teacher):
                network.compile(dynamic=False)
        self._student: nn.Module = networks.student
        if world_size() > 1:
            device_ids = [device.index] if device.type == "cuda" else None
            self._student = DistributedDataParallel(networks.student, device_ids=device_ids)

    def do(self, step: int, batch: Batch, diagnose: bool) -> Done:
        """Do one step.

        Args:
            step: Steps done before.
            batch: This process's share of the global batch.
            diagnose: Whether the losses come with the objective's diagnostics.
        """
        _seed_step(self._train.seed, step)
        settings, crops = self._settings(step), network_inputs(batch, self._device)
        losses = training_step(
            self._student,
            self._networks.teacher,
            self._networks.objective,
            self._networks.optimizer,
            crops,
            settings,
            self._autocast,
            batch.boxes,
            diagnose=diagnose,
            accumulate=self._train.accumulate,
        )
        return Done(crops, settings, losses)


def _seed_step(seed: int, step: int) -> None:
    """Make stochastic depth a function of (seed, step, process), so that a continued run repeats it without stored states."""
    torch.manual_seed((seed * 1_000_003 + step) * 1_009 + rank())
