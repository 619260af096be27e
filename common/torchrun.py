"""`python -m common.torchrun OPTIONS -m MODULE ...`: torchrun, as our commands need it.

Three differences: SIGUSR1 and SIGUSR2 reach the processes too; these get time to save their state; and the exit status is that of the
process which failed first, or 128 + N after signal N, without a traceback of torchrun's own under the process's message.
"""

import os
import sys

from torch.distributed import run
from torch.distributed.elastic.multiprocessing.api import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError

from common.interruption import Interrupted

_FORWARDED = "SIGTERM,SIGINT,SIGHUP,SIGQUIT,SIGUSR1,SIGUSR2"

SAVING_SECONDS = 90
"""From a signal until processes that still run are killed: one step and one checkpoint. If one process fails, the others have
torchrun's 30 seconds."""


def main(argv: list[str]) -> int:
    """Start the processes and wait for them.

    Args:
        argv: torchrun's options, `-m`, and the module with its arguments.
    """
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", str(SAVING_SECONDS))
    try:
        run.run(run.parse_args(["--signals-to-handle", _FORWARDED, *argv]))
    except SignalException as error:
        return Interrupted(error.sigval).status
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        # A negative number is the signal that ended the process.
        return failure.exitcode if failure.exitcode >= 0 else Interrupted(-failure.exitcode).status
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
