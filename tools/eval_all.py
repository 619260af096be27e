"""Convert a checkpoint, run every task on it, write the tables. `tools/eval_all.sh` calls this."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command import config_parser, run_command
from tools.evaluation.launching import add_launch_options, take_launch_options
from tools.evaluation.options import EvalAllOptions, split_task_options
from tools.evaluation.run import evaluate_all

PROG = "bash tools/eval_all.sh"


def main(argv: Sequence[str]) -> int:
    """Parse, evaluate."""
    own, task_options = split_task_options(argv)
    parser = config_parser(PROG, EvalAllOptions.__doc__ or "")
    parser.add_argument(
        "checkpoint", type=Path, help="a checkpoint of any known layout, a backbone file, or timm:NAME for a model of timm"
    )
    parser.add_argument(
        "--sample", action="store_true", help="sample data (drawn into sample/), short fine-tuning: a trial, no measurement"
    )
    parser.add_class_arguments(EvalAllOptions, as_group=False, skip={"sample"})
    add_launch_options(parser, skip={"gpus"})
    values = parser.parse_args(own).as_dict()
    checkpoint = values.pop("checkpoint")
    launching = take_launch_options(values, gpus=values["gpus"])
    return 0 if evaluate_all(checkpoint, EvalAllOptions(**values), task_options, launching) else 1


if __name__ == "__main__":
    run_command(main)
