"""Every adjustment of OpenMMLab's packages to today's libraries, each with its reason. All use public extension points."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from mmengine.runner.checkpoint import CheckpointLoader
from torch import device as Device

logger = logging.getLogger(__name__)


def refuse_unsafe_checkpoints() -> None:
    """Make mmengine read checkpoints without ever unpickling code.

    mmengine 0.10.12 tries `weights_only=True` with an allow-list that includes `getattr`, and unpickles anything where that fails.
    Our runs only read what they wrote themselves, so either could only ever meet a damaged or foreign file.
    """
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_plain_file, force=True)


def load_from_plain_file(filename: str, map_location: str | Device | None) -> dict[str, object]:
    """Read a checkpoint that holds tensors and plain values only, as `eval.openmmlab.runner` writes them.

    Args:
        filename: Path of the checkpoint.
        map_location: As `torch.load`.

    Raises:
        pickle.UnpicklingError: If the file holds anything else.
    """
    return torch.load(filename, map_location=map_location, weights_only=True)


@contextlib.contextmanager
def quiet_packages() -> Iterator[None]:
    """Keep OpenMMLab's and pycocotools' chatter off the command's output; it goes to this module's debug log.

    They print on standard output, where a command's own result belongs, and warn of deprecations inside their own code.
    """
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for line in printed.getvalue().splitlines():
            logger.debug("%s", line)
