"""`python -m tables --runs DIR --output DIR` regenerates every table from the result files; `python -m tables check` compares."""

import logging
from collections.abc import Sequence

from common.command import USER_ERROR, parse_config, run_command
from tables.check import CheckConfig, check_results
from tables.collect import CollectionError
from tables.make import TablesConfig, make_tables

CHECK = "check"

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Parse, and write the tables or compare the results; results that cannot be used get a line each."""
    try:
        return _check(argv[1:]) if argv[:1] == [CHECK] else _make(argv)
    except CollectionError as error:
        for problem in error.problems:
            logger.error("%s", problem)
        raise


def _make(argv: Sequence[str]) -> int:
    description = f"{TablesConfig.__doc__} `python -m tables {CHECK} --help`: say which results may not be compared."
    for path in make_tables(parse_config(TablesConfig, "python -m tables", argv, description)):
        print(path)  # noqa: T201 - the command's own output
    return 0


def _check(argv: Sequence[str]) -> int:
    checked = check_results(parse_config(CheckConfig, f"python -m tables {CHECK}", argv))
    lines = checked.lines or [f"{checked.num_results} results; nothing keeps them from being compared"]
    print(*lines, sep="\n")  # noqa: T201 - the command's own output
    return USER_ERROR if checked.lines else 0


if __name__ == "__main__":
    run_command(main)
