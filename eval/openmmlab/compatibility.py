"""Every adjustment of OpenMMLab's packages to today's libraries, each with its reason. All use public extension points."""

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator

import torch
from mmengine.runner.checkpoint import CheckpointLoader, get_torch_safe_globals
from torch import device as Device

logger = logging.getLogger(__name__)


def refuse_unsafe_checkpoints() -> None:
    """Make mmengine read checkpoints without ever unpickling code.

    mmengine 0.10.12 tries `weights_only=True` and, where that fails, falls back to unpickling anything. Our runs only read what they
    wrote themselves, so the fallback could only ever meet a damaged or foreign file.
    """
    CheckpointLoader.register_scheme(prefixes="", loader=load_from_trusted_types, force=True)


def load_from_trusted_types(filename: str, map_location: str | Device | None) -> dict[str, object]:
    """Read a checkpoint that holds tensors, plain values and mmengine's own records only.

    Args:
        filename: Path of the checkpoint.
        map_location: As `torch.load`.

    Raises:
        pickle.UnpicklingError: If the file holds anything else.
    """
    # mmengine's allow-list: numpy arrays and scalars, and the HistoryBuffer of its message hub. It also names `getattr`, with which
    # a crafted file could reach further; our checkpoints do not need it.
    allowed = [entry for entry in get_torch_safe_globals() if entry is not getattr]
    with torch.serialization.safe_globals(allowed):
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
