"""`python -m pretrain RECIPE [--section.field VALUE ...]`."""

import logging
from collections.abc import Sequence

from common.command import run_command
from pretrain.config import parse_run
from pretrain.run import pretrain


def main(argv: Sequence[str]) -> int:
    """Parse, train, say where the checkpoint is."""
    checkpoint = pretrain(parse_run(argv))
    logging.getLogger("pretrain").info("checkpoint: %s", checkpoint)
    return 0


if __name__ == "__main__":
    run_command(main)
