#!/usr/bin/env bash
# Evaluate one checkpoint, of any known layout, on every task, and write the tables and the report.
#   bash tools/eval_all.sh CKPT [--tasks TASK,TASK] [--data DIR] [--name NAME] [--TASK.OPTION VALUE ...]
#   bash tools/eval_all.sh CKPT --tasks frozen     k-NN, linear segmentation, dense retrieval and DAVIS, as far as their data is there
#   bash tools/eval_all.sh timm:NAME ...     a pretrained model of timm
#   bash tools/eval_all.sh package.module:function ...     your own network (docs/your_backbone.md)
#   bash tools/eval_all.sh CKPT --sample     on generated sample data, with shortened fine-tuning
#   bash tools/eval_all.sh CKPT --slurm --gpus 8 --hours 24 --sbatch partition=P     submit each task to Slurm; --dry-run prints the jobs
#   bash tools/eval_all.sh --help            every option, and the tasks
# Environment: NPROC_PER_NODE, the number of processes (default: the number of GPUs; 1 on the CPU or a GPU that is named by its number).
# Finished tasks are not run again; after an interruption or a kill, the same command line continues.
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
enter_environment
exec python tools/eval_all.py "$@"
