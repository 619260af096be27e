"""Whether a teacher has collapsed: a judgement of the signs that objectives give (`pretrain.objectives.diagnostics`)."""

import logging
from collections import deque
from collections.abc import Iterator, Mapping
from typing import Literal

logger = logging.getLogger(__name__)

LEAST_INFORMATION = 0.05
"""Nats that a target says about its image or patch; below it says nothing. Identical targets have 0 but for rounding, below 1e-4.
On photographs a fresh ViT-S/16 of the recipes has 0.45 to 0.66 (CLS, 16 views), the sample recipes' runs stay above 0.59."""
UNIFORM_PART = 0.5
"""Of targets that are all alike: entropy as a part of log K above which they count as uniform, below as one constant output. Collapse
ends at 1 or near 0; between them either name would do."""
LEAST_DEVIATION = 0.1
"""Standard deviation of embeddings, 1 if directions are spread evenly; below it the mean cosine of two embeddings is above 0.99.
Identical ones have 0, the sample recipes' runs stay above 0.69."""
JUDGED_LINES = 5
"""Logged steps whose mean is judged: a single batch may be odd."""

State = Literal["healthy", "uniform", "constant"]

_DISTRIBUTION, _EMBEDDING = "batch_entropy", "deviation"

_WHAT = {
    "uniform": "all targets are alike and spread over all prototypes; they say nothing about the image. "
    "Sharpen them by a lower dino.teacher_temperature, or lower optim.lr",
    "constant": "all outputs are alike, whatever the image. Lower optim.lr; with prototypes, soften the targets by a higher "
    "dino.teacher_temperature, or let the centre follow faster by a lower dino.centre_momentum",
}


def judge(signs: Mapping[str, float]) -> State:
    """The state of one part of the loss.

    Args:
        signs: Those of `distribution_signs` or of `embedding_signs`.
    """
    if _EMBEDDING in signs:
        return "constant" if signs[_EMBEDDING] < LEAST_DEVIATION else "healthy"
    if signs[_DISTRIBUTION] - signs["entropy"] >= LEAST_INFORMATION:
        return "healthy"
    return "uniform" if signs["batch_entropy_part"] > UNIFORM_PART else "constant"


class CollapseWatch:
    """Warns when a part of the loss collapses and tells when it has recovered: once per change.

    Everything counts as healthy until the mean of `JUDGED_LINES` logged steps says otherwise.
    """

    def __init__(self) -> None:
        """Nothing is known."""
        self.states: dict[str, State] = {}
        self._recent: deque[Mapping[str, float]] = deque(maxlen=JUDGED_LINES)

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Take note of a logged step.

        Args:
            step: Steps done.
            values: Names as in the log; those that are no signs do not matter.
        """
        self._recent.append(values)
        if len(self._recent) < JUDGED_LINES:
            return
        means = {name: sum(line[name] for line in self._recent) / JUDGED_LINES for name in values}
        for part, signs in _by_part(means):
            state = judge(signs)
            before = self.states.get(part, "healthy")
            self.states[part] = state
            if state == before:
                continue
            shown = ", ".join(f"{part}_{name} {value:.3g}" for name, value in signs.items())
            if state == "healthy":
                logger.info("step %d: the %s outputs of the teacher are healthy again (%s)", step, part, shown)
            else:
                logger.warning("step %d: the teacher's %s outputs have collapsed: %s (%s)", step, part, _WHAT[state], shown)


def _by_part(values: Mapping[str, float]) -> Iterator[tuple[str, dict[str, float]]]:
    """`cls_entropy`, `patch_entropy`, ... -> the signs of `cls` and of `patch`."""
    for part in ("cls", "patch"):
        signs = {
            name.removeprefix(f"{part}_"): value
            for name, value in values.items()
            if name.startswith(f"{part}_") and name != f"{part}_loss"
        }
        if signs:
            yield part, signs
