#!/usr/bin/env bash
# Pretrain a backbone on every GPU of this machine, or on the CPU.
#   bash tools/pretrain.sh RECIPE [--section.field VALUE ...]    RECIPE: a name in pretrain/recipes/ or a YAML file
#   bash tools/pretrain.sh --help                                every field, with its default
# Environment:
#   NPROC_PER_NODE   processes on this machine (default: the number of GPUs; 1 on the CPU or a GPU that is named by its number)
#   NNODES, NODE_RANK, MASTER_ADDR, MASTER_PORT   several machines: run the same command on each (torchrun's meaning)
#   Under `srun` with several tasks, Slurm's variables are used instead: one process per task.
# After an interruption or a kill, the same command line continues. On SIGTERM, SIGUSR1 and SIGUSR2 it finishes its step and saves before
# it exits with 128 + the signal's number (143, 138, 140). In a script for sbatch:
#   #SBATCH --requeue --signal=USR1@120
#   srun bash tools/pretrain.sh RECIPE || { [ $? -eq 138 ] && scontrol requeue "$SLURM_JOB_ID"; }
# `--slurm --gpus N --nodes M` as options submit such a job instead; with `--dry-run` it is only printed.
set -euo pipefail
CDPATH= cd "$(dirname "${BASH_SOURCE[0]}")/.."
source tools/lib/environment.sh
enter_environment

if [ "${SLURM_NTASKS:-1}" -gt 1 ] && [ -n "${SLURM_PROCID:-}" ]; then
    export RANK=$SLURM_PROCID LOCAL_RANK=${SLURM_LOCALID:-0} WORLD_SIZE=$SLURM_NTASKS
    MASTER_ADDR=${MASTER_ADDR:-$(scontrol show hostnames "${SLURM_JOB_NODELIST:-}" | head -n 1)} ||
        fail "SLURM_NTASKS=$SLURM_NTASKS, but Slurm does not tell the job's machines; unset SLURM_NTASKS to run alone"
    MASTER_PORT=${MASTER_PORT:-$((20000 + ${SLURM_JOB_ID:-0} % 20000))}
    export MASTER_ADDR MASTER_PORT
    exec python -m pretrain "$@"
fi

for argument in "$@"; do
    case ${argument%%=*} in
    # These start the processes themselves, or none.
    --slurm | --gpus | --dry-run | --dry_run | --help | -h) exec python -m pretrain "$@" ;;
    esac
done

# Mistakes are answered before torch is loaded, which takes seconds.
device=$(python -c 'from common.cli import run_command; from pretrain.config import parse_run_here
run_command(lambda argv: print(parse_run_here(argv).train.device))' "$@")
case $device in
auto | cuda) processes=${NPROC_PER_NODE:-$(python -c 'import common, torch; print(max(1, torch.cuda.device_count()))')} ;;
*) processes=${NPROC_PER_NODE:-1} ;;
esac
if [ -n "${NNODES:-}" ] && [ "$NNODES" -gt 1 ]; then
    : "${MASTER_ADDR:?error: with NNODES=$NNODES set MASTER_ADDR to the first machine}"
    exec python -m common.launch --nnodes "$NNODES" --node-rank "${NODE_RANK:?error: with NNODES=$NNODES set NODE_RANK}" \
        --master-addr "$MASTER_ADDR" --master-port "${MASTER_PORT:-29500}" --nproc-per-node "$processes" -m pretrain "$@"
fi
if [ "$processes" -gt 1 ]; then
    exec python -m common.launch --standalone --nproc-per-node "$processes" -m pretrain "$@"
fi
exec python -m pretrain "$@"
