#!/bin/bash
# One sweep, shared by eight processes of a GPU each on two nodes; JAX finds Slurm's variables. Submitted again, it goes on where it was.
#SBATCH --job-name=jaxdyn-width
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-task=1
#SBATCH --cpus-per-task=8
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
set -euo pipefail
store="${SCRATCH:-$PWD}/width-paper.zarr" # on a file system that all nodes see
srun jaxdyn run width --preset paper --distributed --log --store "$store"
