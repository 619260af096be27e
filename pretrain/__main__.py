"""`python -m pretrain RECIPE [--section.field VALUE ...]`."""

import logging
from collections.abc import Sequence

from common.cli import run_command
from common.launch import run_or_launch
from pretrain.config import parse_run, parse_run_here


def main(argv: Sequence[str]) -> int:
    """Train here, or where the launch options say."""
    return run_or_launch("pretrain", argv, _train, parse_run)


def _train(argv: Sequence[str]) -> int:
    config = parse_run_here(argv)
    from pretrain.run import pretrain  # loads torch, for which `--help` and mistakes need not wait

    checkpoint = pretrain(config)
    logging.getLogger("pretrain").info("checkpoint: %s", checkpoint)
    return 0


if __name__ == "__main__":
    run_command(main)
