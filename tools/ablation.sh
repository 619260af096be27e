#!/usr/bin/env bash
# The paper's ablations: pretrain the recipe of each row, evaluate it on DAVIS, and put the results beside the published ones.
#   bash tools/ablation.sh components|compatibility [--only ROW ...] [--seeds S ...] [--data DIR] [--runs DIR] [--output DIR]
#   bash tools/ablation.sh components --dry-run        list the jobs with their estimated cost, start nothing
#   bash tools/ablation.sh components --scale tiny     the same recipes, shrunk to run in minutes on generated sample data
#   bash tools/ablation.sh components --slurm --gpus 8 --hours 24 --sbatch partition=P    submit each job to Slurm
#   bash tools/ablation.sh --help
# Environment: NPROC_PER_NODE, the number of processes of a job (default: the number of GPUs; 1 on the CPU or a GPU that is named by its number).
# Finished jobs are not run again; after an interruption or a kill, the same command line continues.
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
enter_environment
exec python tools/ablation.py "$@"
