"""`python -m tools.ablation_runner`: one job of `tools/ablation.sh`, which starts it; also under torchrun or as a Slurm job."""

from collections.abc import Sequence

from common.command import parse_config, run_command
from common.launch import run_or_launch
from tools.ablation_runner.job import MODULE, JobOptions, run_job


def main(argv: Sequence[str]) -> int:
    """Run the job here, or where the launch options say."""
    return run_or_launch(MODULE, argv, _run)


def _run(argv: Sequence[str]) -> int:
    run_job(parse_config(JobOptions, f"python -m {MODULE}", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
