#!/usr/bin/env bash
# Every check, from a bare clone: environment, lint, format, types, tests.
#   bash tools/test.sh                   everything except the tests that take minutes each
#   bash tools/test.sh -m long           only those
#   bash tools/test.sh -m "not slow"     further arguments go to pytest
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
enter_environment

ruff check .
ruff format --check .
mypy
bash -n tools/*.sh tools/lib/*.sh
# One thread per test process: threads of several processes on the same cores would wait for each other.
OMP_NUM_THREADS=1 python -m pytest --numprocesses auto --dist worksteal -m "not long" "$@"
