"""What looks at training without being part of it: logging, saving, monitoring.

An observer is called after every step on every process, in the order in which `pretrain.run` lists them, so it may exchange values
between processes as long as all of them do. It may read networks and crops and draw random numbers, but not change weights,
gradients or modes: a run with an observer computes bit for bit what one without it does.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from pretrain.log import RunLog
from pretrain.networks import Networks
from pretrain.trainer import StepSettings


@dataclass(frozen=True, kw_only=True)
class Moment:
    """The state of a run right after a step."""

    step: int
    """Steps done in the whole run, this one included."""
    epoch: int
    """0-based epoch to which this step belongs."""
    epoch_ended: bool
    """Whether this was the epoch's last step; then `epoch + 1` epochs are done."""
    is_logged: bool
    """Whether this step gets a line in the log."""
    is_last: bool
    """Whether no step follows in this process."""
    networks: Networks
    """After the update; the student without wrapper."""
    crops: Sequence[Tensor]
    """float32 [B, 3, H, W] per view, global ones first, normalised; this process's share of the batch, on its device."""
    boxes: Sequence[Tensor]
    """int64 [B, 5] per view: where the crops were cut out, see `pretrain.data.views.CropBox`; on the CPU."""
    losses: Mapping[str, Tensor]
    """Scalars of this process's share before the update, detached, on its device; `loss` is what was minimised. At logged steps also
    `Objective.diagnostics` of all processes."""
    settings: StepSettings
    """The schedules' values in this step."""
    log: RunLog | None
    """Where scalars and pictures go; None on all processes but the first."""


class Observer(Protocol):
    """Something called after every step."""

    def after_step(self, moment: Moment) -> None:
        """Look at a step that is done.

        Args:
            moment: The state; valid during the call only, since the next step changes it.
        """

    def close(self) -> None:
        """Release what is held; called once, also when training ends by an error."""
