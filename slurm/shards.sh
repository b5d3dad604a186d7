#!/usr/bin/env bash
# Shards as a job array: each task makes every N-th shard, whoever makes the last one writes the index.
#
#   sbatch slurm/shards.sh RECIPE [--set section.field=value ...]        # from the repository; 16 tasks
#   sbatch --array=0-63%8 --gpus-per-task=1 slurm/shards.sh RECIPE ...   # 64 tasks, 8 at a time, on GPUs
#
# The same line again makes what is missing, whatever ended the tasks before.
#SBATCH --job-name=ifvit-shards
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --output=%x-%A_%a.log
#SBATCH --requeue
set -euo pipefail
cd "${SLURM_SUBMIT_DIR:?is not set: start this with sbatch}"
exec .venv/bin/python -m data_prep shards "$@"
