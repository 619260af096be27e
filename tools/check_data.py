"""Examine the datasets under a folder, and report what is there, missing or damaged."""

import json
import os
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command import parse_config, run_command
from common.files import write_text_atomically
from tools.data_doctor.config import DoctorConfig


def main(argv: Sequence[str]) -> int:
    """Parse, examine, print. Returns 1 if something asked for is not usable."""
    config = parse_config(DoctorConfig, "python tools/check_data.py", argv)
    # Not before: the worker processes import this file too, and need none of it.
    from tools.data_doctor.doctor import examine, to_dict
    from tools.data_doctor.text import render

    report = examine(config)
    print(render(report, config.names, sys.stdout.isatty() and "NO_COLOR" not in os.environ))  # noqa: T201 - the command's output
    if config.json is not None:
        write_text_atomically(config.json, json.dumps(to_dict(report), indent=1) + "\n")
    return 0 if report.is_healthy else 1


if __name__ == "__main__":
    run_command(main)
