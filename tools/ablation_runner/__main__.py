"""`python -m tools.ablation_runner`: one job of `tools/ablation.sh`."""

from common.cli import run_command
from tools.ablation_runner.job import main

if __name__ == "__main__":
    run_command(main)
