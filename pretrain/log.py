"""What a run leaves to look at: JSON lines, TensorBoard, a progress bar."""

import json
from collections.abc import Mapping
from pathlib import Path

from torch.utils.tensorboard import SummaryWriter
from tqdm import tqdm

from common.files import write_text_atomically

LOG_FILE = "log.jsonl"
TENSORBOARD_FOLDER = "tensorboard"


class RunLog:
    """Writes one line per logged step; on a continued run, lines after the checkpoint are dropped first.

    `board` takes what does not fit in a line, such as pictures.
    """

    def __init__(self, folder: Path, first_step: int, last_step: int) -> None:
        """Open the logs.

        Args:
            folder: The run's output.
            first_step: Steps that are done.
            last_step: Steps in total.
        """
        self._path = folder / LOG_FILE
        kept = [line for line in _complete_lines(self._path) if json.loads(line)["step"] <= first_step]
        write_text_atomically(self._path, "".join(f"{line}\n" for line in kept))
        self._stream = self._path.open("a", encoding="utf-8")
        self.board = SummaryWriter(str(folder / TENSORBOARD_FOLDER), purge_step=first_step or None)
        self._values: dict[str, float] = {}
        self._bar = tqdm(initial=first_step, total=last_step, unit="step", dynamic_ncols=True, mininterval=1.0)

    def advance(self) -> None:
        """Move the progress bar by one step."""
        self._bar.update()

    def add(self, values: Mapping[str, float]) -> None:
        """Add named numbers to the line of the step that is written next."""
        self._values.update(values)

    def write(self, step: int, epoch: int) -> None:
        """Log one step: one line with everything added since the last one.

        Args:
            step: Steps done.
            epoch: 0-based epoch of the step.
        """
        values, self._values = self._values, {}
        self._stream.write(json.dumps({"step": step, "epoch": epoch, **values}) + "\n")
        self._stream.flush()
        self._bar.set_postfix(loss=f"{values['loss']:.4f}", refresh=False)
        for name, value in values.items():
            self.board.add_scalar(name, value, step)

    def close(self) -> None:
        """Flush and close everything."""
        self._bar.close()
        self.board.close()
        self._stream.close()


def _complete_lines(path: Path) -> list[str]:
    """The lines of a log, without one that a kill cut short."""
    if not path.exists():
        return []
    text = path.read_text(encoding="utf-8")
    return text[: text.rfind("\n") + 1].splitlines()
