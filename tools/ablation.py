"""Pretrain and evaluate the rows of a published ablation. `tools/ablation.sh` calls this."""

import sys
import typing
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command import config_parser, run_command
from tools.ablation_runner.plan import AblationOptions
from tools.ablation_runner.rows import Table
from tools.ablation_runner.run import run_ablation
from tools.evaluation.launching import add_launch_options, take_launch_options

PROG = "bash tools/ablation.sh"


def main(argv: Sequence[str]) -> int:
    """Parse, run."""
    parser = config_parser(PROG, AblationOptions.__doc__ or "")
    parser.add_argument("table", choices=typing.get_args(Table), help="which of the published ablations")
    parser.add_class_arguments(AblationOptions, as_group=False)
    add_launch_options(parser)
    values = parser.parse_args(list(argv)).as_dict()
    table = values.pop("table")
    launching = take_launch_options(values)
    return 0 if run_ablation(table, AblationOptions(**values), launching) else 1


if __name__ == "__main__":
    run_command(main)
