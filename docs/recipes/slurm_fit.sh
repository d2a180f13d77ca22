#!/bin/bash
# Fit ratings in the tasks of a Slurm job: sbatch slurm_fit.sh
#SBATCH --job-name=factorization
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --cpus-per-task=16
#SBATCH --time=01:00:00

# init_process_group("gloo") reads these two variables, and RANK and WORLD_SIZE, which each task sets from those of Slurm.
MASTER_ADDR=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export MASTER_ADDR MASTER_PORT=$((20000 + SLURM_JOB_ID % 10000)) OMP_NUM_THREADS=$SLURM_CPUS_PER_TASK

srun --kill-on-bad-exit=1 --cpus-per-task="$SLURM_CPUS_PER_TASK" \
    bash -c 'RANK=$SLURM_PROCID WORLD_SIZE=$SLURM_NTASKS exec python torchrun_fit.py'
