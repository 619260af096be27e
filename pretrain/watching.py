"""`python -m pretrain.watching`: the former name of `python -m pretrain.monitoring`."""

from common.cli import run_command
from pretrain.monitoring.__main__ import main

if __name__ == "__main__":
    run_command(main)
