"""What all processes must agree on after every step: whether its numbers are finite, and whether somebody was asked to stop."""

from collections import deque
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
import torch.distributed as dist
from torch import Tensor

from pretrain.distributed import world_size
from pretrain.networks import Networks


@dataclass(frozen=True)
class Verdict:
    """What was found out."""

    signum: int
    """The signal after which all processes stop here; 0 for none."""
    failed: "Sent | None"
    """The first step with a number that is not finite."""


@dataclass(frozen=True)
class Sent:
    """A step whose flags are on their way."""

    step: int
    """Steps done, this one included."""
    losses: Mapping[str, Tensor]
    """Of this process."""
    flags: Tensor
    """[2] on the host: the largest signal number, and 1 if a number is not finite, over all processes."""
    arrived: torch.cuda.Event | None
    """Passes when `flags` are there; None if they are."""


class Sentinel:
    """Exchanges two numbers per step, on a GPU without making the host wait for it.

    With `lag` 0 a step's verdict is known at once. On a GPU it is read one step later, so that the host stays a step ahead of the
    device, except before a checkpoint (`settle`), which therefore never holds a number that is not finite. What counts as poisoned is
    the step's losses and what it left behind: the student's weights and all running state, since a gradient that is not finite
    leaves weights that are not.
    """

    def __init__(self, device: torch.device, lag: int) -> None:
        """Store how to look.

        Args:
            device: Where the networks are.
            lag: Steps by which a verdict may come late.
        """
        self._device = device
        self._lag = lag
        self._pending: deque[Sent] = deque()

    def check(self, step: int, networks: Networks, losses: Mapping[str, Tensor], signum: int, settle: bool) -> Verdict:
        """Report a step; every process calls this after every step.

        Args:
            step: Steps done, this one included.
            networks: After the update.
            losses: Of this process.
            signum: The signal that this process got; 0 for none.
            settle: Wait until everything about this step is known.

        Returns:
            The same on all processes.
        """
        self._pending.append(self._send(step, networks, losses, signum))
        lag = 0 if settle else self._lag
        stop = 0
        # Once a stop is agreed on, this step is the last one and is saved: nothing about it may stay open.
        while len(self._pending) > (0 if stop else lag):
            sent = self._pending.popleft()
            if sent.arrived is not None:
                sent.arrived.synchronize()
            agreed, broken = sent.flags.tolist()
            if broken:
                return Verdict(0, sent)
            stop = stop or int(agreed)
        return Verdict(stop, None)

    def _send(self, step: int, networks: Networks, losses: Mapping[str, Tensor], signum: int) -> Sent:
        broken = ~all_finite(networks, losses)
        flags = torch.stack([torch.full((), float(signum), device=self._device), broken.float()])
        if world_size() > 1:
            dist.all_reduce(flags, op=dist.ReduceOp.MAX)
        if self._device.type != "cuda":
            return Sent(step, losses, flags, None)
        host = torch.empty(2, pin_memory=True).copy_(flags, non_blocking=True)
        arrived = torch.cuda.Event()
        arrived.record()
        return Sent(step, losses, host, arrived)


@torch.no_grad()
def all_finite(networks: Networks, losses: Mapping[str, Tensor]) -> Tensor:
    """Whether losses, weights and running state are finite; a boolean scalar on their device, without waiting for it."""
    total = torch.nn.utils.get_total_norm([*_state(networks), *(loss.float() for loss in losses.values())])
    return torch.isfinite(total)


def _state(networks: Networks) -> Iterator[Tensor]:
    yield from networks.student.parameters()
    for module in (networks.student, networks.teacher, networks.objective):
        yield from (buffer for buffer in module.buffers() if buffer.is_floating_point())
