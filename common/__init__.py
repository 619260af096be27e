"""What every part of PatchBench shares: the command line, processes and devices, images, files, k-NN and plots."""

import os
import sys
from types import TracebackType

# Threads that spin while they wait for work slow each other down many times over on shared cores. OpenMP reads this once, when torch
# is loaded; on a quiet machine it costs some 5 %.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")

SPEAKER = "PATCHBENCH_SPEAKER"  # environment variable with the process that the user started


def tell_interrupted() -> None:
    """Say that Ctrl-C has ended the command: once, by the process that the user started."""
    own = str(os.getpid())
    if os.environ.get(SPEAKER, own) == own:
        sys.stderr.write("interrupted; the same command line continues\n")


def _end(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    if issubclass(kind, KeyboardInterrupt):
        tell_interrupted()
    else:
        sys.__excepthook__(kind, error, trace)


sys.excepthook = _end  # for Ctrl-C while modules are loaded, before `common.cli.run_command` answers it
