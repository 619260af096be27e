"""What a run leaves to look at: JSON lines, TensorBoard, a progress bar; and the warning when it collapses."""

import json
import logging
import threading
from collections import deque
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor
from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.distributed import mean_over_processes
from common.files import names_file, write_text_atomically
from pretrain.schedules import StepSettings

logger = logging.getLogger(__name__)

LOG_FILE = "log.jsonl"

LEAST_INFORMATION = 0.05
"""What healthy targets say about their image or patch, in nats. Identical ones say nothing, up to rounding (1e-4); on real images
those of a fresh ViT-S/16 say 0.45 to 0.66 (CLS, 16 views), those of the sample recipes' runs at least 0.59."""
UNIFORM_PART = 0.5
"""Targets that are all alike count as uniform if their entropy is a larger part of log K than this, otherwise as one constant output.
Collapse ends at 1 or near 0; between them either name would do."""
LEAST_DEVIATION = 0.1
"""Standard deviation of healthy embeddings, which is 1 if directions are spread evenly and 0 if all are the same. At this value two
embeddings have a mean cosine of 0.99; the sample recipes' runs stay above 0.69."""
JUDGED_LINES = 5  # How many logged steps are judged, by their mean: a single batch may be odd.

COLLAPSED = {
    "uniform": "all targets are alike and spread over all prototypes; they say nothing about the image. "
    "Sharpen them by a lower dino.teacher_temperature, or lower optim.lr",
    "constant": "all outputs are alike, whatever the image. Lower optim.lr; with prototypes, soften the targets by a higher "
    "dino.teacher_temperature, or let the centre follow faster by a lower dino.centre_momentum",
}


class RunLog:
    """Writes one line per logged step of a run with `last_step` steps, `first_step` of which are done.

    `board` takes what does not fit in a line, such as plots; `bar` shows the progress.
    """

    def __init__(self, folder: Path, first_step: int, last_step: int) -> None:
        self._path, self._board_folder = folder / LOG_FILE, folder / "tensorboard"
        text = self._path.read_text(encoding="utf-8", errors="replace") if self._path.exists() else ""
        # Of lines that are newer than the checkpoint, the run writes others.
        write_text_atomically(self._path, "".join(f"{line}\n" for line in text.splitlines() if 0 <= _step(line) <= first_step))
        self._stream = self._path.open("a", encoding="utf-8")
        # TensorBoard writes in a thread, whose failure the next call raises: no traceback besides.
        threading.excepthook = lambda end: None if isinstance(end.exc_value, OSError) else threading.__excepthook__(end)
        with names_file(self._board_folder):
            self.board = SummaryWriter(str(self._board_folder), purge_step=first_step + 1)  # which it forgets, and later ones
        self.collapse = CollapseWarning()
        self.bar = tqdm(initial=first_step, total=last_step, unit="step", dynamic_ncols=True, mininterval=1.0)

    def write(self, step: int, epoch: int, values: Mapping[str, float]) -> None:
        """Write one line after `step` steps, the last of them in this 0-based epoch."""
        with names_file(self._path):
            self._stream.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
            self._stream.flush()
        self.bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        with names_file(self._board_folder):
            for name, value in values.items():
                self.board.add_scalar(name, value, step)

    def close(self) -> None:
        self.bar.close()
        with names_file(self._path), self._stream:
            pass
        with names_file(self._board_folder):
            self.board.flush()  # says whether everything was written, which closing does not
            self.board.close()


def _step(line: str) -> int:
    """The step of a line of the log; -1 of one that a kill or a crash has damaged."""
    try:
        return int(json.loads(line)["step"])
    except (ValueError, TypeError, KeyError):
        return -1


def record_step(
    log: RunLog | None, step: int, epoch: int, losses: Mapping[str, Tensor], now: StepSettings, monitored: Mapping[str, float]
) -> None:
    """Log a step on the first process, which has the log; all take part in averaging the losses."""
    values = mean_over_processes({name: value.item() for name, value in losses.items()}, losses["loss"].device)
    if log is not None:
        log.collapse.update(step, values)
        schedules = {"lr": now.lr, "weight_decay": now.weight_decay, "teacher_momentum": now.teacher_momentum}
        log.write(step, epoch, {**monitored, **values, **schedules})


def judge(found: Mapping[str, float]) -> str:
    """`healthy`, or a key of `COLLAPSED`, by `distribution_diagnostics` or `embedding_diagnostics` of one part of the loss."""
    if "deviation" in found:
        return "constant" if found["deviation"] < LEAST_DEVIATION else "healthy"
    if found["batch_entropy"] - found["entropy"] >= LEAST_INFORMATION:
        return "healthy"
    return "uniform" if found["batch_entropy_part"] > UNIFORM_PART else "constant"


class CollapseWarning:
    """Warns when a part of the loss, `cls` or `patch`, collapses and tells when it has recovered: once per change."""

    def __init__(self) -> None:
        self.states: dict[str, str] = {}
        self._recent: deque[Mapping[str, float]] = deque(maxlen=JUDGED_LINES)

    def update(self, step: int, values: Mapping[str, float]) -> None:
        """Take note of the values that the log gets after so many steps."""
        self._recent.append(values)
        if len(self._recent) < JUDGED_LINES:
            return
        found: dict[str, dict[str, float]] = {}
        for name in values:
            part, _, diagnostic = name.partition("_")
            if part in ("cls", "patch") and diagnostic != "loss":
                found.setdefault(part, {})[diagnostic] = sum(line[name] for line in self._recent) / JUDGED_LINES
        for part, means in found.items():
            before, state = self.states.get(part, "healthy"), judge(means)
            self.states[part] = state
            shown = ", ".join(f"{part}_{name} {value:.3g}" for name, value in means.items())
            if state != before and state == "healthy":
                logger.info("step %d: the %s outputs of the teacher are healthy again (%s)", step, part, shown)
            elif state != before:
                logger.warning("step %d: the teacher's %s outputs have collapsed: %s (%s)", step, part, COLLAPSED[state], shown)
