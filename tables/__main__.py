"""`python -m tables --runs DIR --output DIR`: regenerate every table from the result files."""

import logging
from collections.abc import Sequence

from common.command import parse_config, run_command
from tables.collect import CollectionError
from tables.make import TablesConfig, make_tables

logger = logging.getLogger(__name__)


def main(argv: Sequence[str]) -> int:
    """Parse, write the tables, print their paths."""
    config = parse_config(TablesConfig, "python -m tables", argv)
    try:
        paths = make_tables(config)
    except CollectionError as error:
        for problem in error.problems:
            logger.error("%s", problem)
        raise
    for path in paths:
        print(path)  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
