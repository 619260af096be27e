#!/usr/bin/env bash
# Makes .venv from the pins in requirements.txt. Needs Python 3.11 or newer and nothing else; safe to run again.
#   bash tools/setup.sh                     the plain torch wheels: they run with and without a GPU
#   TORCH_BACKEND=cpu bash tools/setup.sh   the small CPU-only wheels, where PyTorch's own index can be reached
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
enter_environment
echo "environment ready: .venv (python $(.venv/bin/python -c 'import platform; print(platform.python_version())'))"
