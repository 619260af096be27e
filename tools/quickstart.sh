#!/usr/bin/env bash
# From a bare clone to the report: environment, sample data, a short SelfPatch pretraining, every evaluation, the tables and the report.
# Needs Python 3.11 or newer and, for the environment, a package index; no GPU and no dataset. It takes a few minutes on two CPU cores.
# When run again, it repeats only what is missing.
set -euo pipefail
if [ $# -gt 0 ]; then
    echo "usage: bash tools/quickstart.sh (no arguments: environment, sample data, pretraining, every evaluation, tables, report)" >&2
    case $1 in -h | --help) exit 0 ;; *) exit 2 ;; esac
fi
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh

step() {
    printf '\n== %s\n' "$*"
}

SECONDS=0
step "1/4 environment"
enter_environment
python --version
step "2/4 sample data"
python tools/make_sample_data.py --output sample
step "3/4 SelfPatch pretraining on the sample photographs"
bash tools/pretrain.sh sample_selfpatch
step "4/4 evaluation, tables and report"
bash tools/eval_all.sh runs/sample_selfpatch/checkpoint.pth --sample
printf '\nDone in %d s. Open results/report.html in a browser, or read results/summary.md.\n' "$SECONDS"
printf 'The metrics are of generated data and show only that everything works.\n'
