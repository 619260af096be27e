"""`python -m tables --runs DIR --output DIR` regenerates every table from the result files; `python -m tables check` compares."""

import logging
from collections.abc import Sequence

from common.cli import USER_ERROR, parse, run_command
from tables.check import CheckConfig, check_results
from tables.collect import CollectionError
from tables.make import TablesConfig, make_tables

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Write the tables or compare the results; results that cannot be used get a line each."""
    try:
        return _check(argv[1:]) if argv[:1] == ["check"] else _make(argv)
    except CollectionError as error:
        for problem in error.problems:
            logger.error("%s", problem)
        raise


def _make(argv: Sequence[str]) -> int:
    description = f"{TablesConfig.__doc__} `python -m tables check --help`: say which results may not be compared."
    for path in make_tables(parse(TablesConfig, argv, "python -m tables", description)):
        print(path)  # noqa: T201 - the command's own output
    return 0


def _check(argv: Sequence[str]) -> int:
    num_results, lines = check_results(parse(CheckConfig, argv, "python -m tables check"))
    for line in lines or [f"{num_results} results; nothing keeps them from being compared"]:
        print(line)  # noqa: T201 - the command's own output
    return USER_ERROR if lines else 0


if __name__ == "__main__":
    run_command(main)
