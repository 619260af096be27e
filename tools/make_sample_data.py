"""`python tools/make_sample_data.py --output DIR`: draw small data sets in the benchmarks' formats."""

import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from common.command import parse_config, run_command
from tools.sample_data.draw import SampleConfig, draw_samples


def main(argv: Sequence[str]) -> int:
    """Parse, draw."""
    draw_samples(parse_config(SampleConfig, "python tools/make_sample_data.py", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
