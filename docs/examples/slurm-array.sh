#!/bin/bash
# One experiment a task of the array, each on a GPU of its own.
#SBATCH --job-name=jaxdyn
#SBATCH --array=0-4
#SBATCH --gpus=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=B:TERM@120
set -euo pipefail
names=(width catapult rates subspace spikes)
name="${names[$SLURM_ARRAY_TASK_ID]}"
exec jaxdyn run "$name" --preset paper --log --store "${SCRATCH:-$PWD}/$name-paper.zarr"
