#!/usr/bin/env bash
# Shards as a job array: each task makes its share of them, whoever makes the last one writes the index.
#
#   sbatch slurm/shards.sh RECIPE [--set section.field=value ...]                 # from the repository; 16 tasks
#   sbatch --array=0-63%8 --gpus-per-task=1 slurm/shards.sh RECIPE [--set ...]    # 64 tasks, 8 at a time, a GPU for each
#
# The same line again makes what is missing, whatever ended the tasks before. Any --array will do: the tasks share what
# is missing, whatever their numbers. What a site asks for goes before the script: --partition, --account, --time, --mem;
# --chdir=REPOSITORY from elsewhere. Another environment than .venv: IFVIT_PYTHON=/its/bin/python sbatch ...
#
#SBATCH --job-name=ifvit-shards
#SBATCH --array=0-15
#SBATCH --ntasks=1
#SBATCH --cpus-per-task=4
#SBATCH --output=%x-%A_%a.log
#SBATCH --open-mode=append
#SBATCH --requeue
set -euo pipefail
python=${IFVIT_PYTHON:-.venv/bin/python}
if ! command -v "$python" >/dev/null; then
    echo "error: $python is no program in $PWD; sbatch from the repository after \`make setup\`, or set IFVIT_PYTHON" >&2
    exit 2
fi
exec "$python" -m data_prep shards "$@"
