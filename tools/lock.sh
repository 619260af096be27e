#!/usr/bin/env bash
# Regenerates requirements.txt, the exact pins, from requirements.in, the short list of direct dependencies.
#   bash tools/lock.sh              keep the present pins where requirements.in still allows them
#   bash tools/lock.sh --upgrade    take the newest versions that requirements.in allows
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
find_uv

# torch's own metadata pins the CUDA libraries and triton, and only for the wheels that need them. Listing them here would
# force them on a CPU-only install (TORCH_BACKEND=cpu).
cuda_packages=$(grep -oE '^(nvidia-[a-z0-9-]+|cuda-[a-z-]+|triton)' <("$UV" pip compile requirements.in \
    --override requirements-override.in --universal --python-version 3.11 --quiet --no-header --no-annotate "$@") | sort -u)
"$UV" pip compile requirements.in --override requirements-override.in --universal --python-version 3.11 --quiet \
    --custom-compile-command 'bash tools/lock.sh' \
    $(printf -- '--no-emit-package %s ' $cuda_packages) --output-file requirements.txt "$@"
echo "wrote requirements.txt"
