#!/usr/bin/env bash
#SBATCH --job-name=coevo
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#SBATCH --output=%x-%j.log
#SBATCH --open-mode=append
#SBATCH --signal=TERM@120
#SBATCH --requeue
# One recipe on several nodes, one accelerate launcher a node and one process a GPU. From the checkout, on a file system
# that all nodes share, with the environment made before (`bash launch/environment.sh`):
#   sbatch launch/slurm.sh recipes/NAME.yaml --out runs/NAME
#   CONFIG=launch/accelerate/zero3.yaml sbatch --nodes=4 launch/slurm.sh --resume runs/NAME
# SIGTERM comes 120 s before the time limit, and at a preemption: coevo finishes its step, writes a checkpoint and says how to
# go on. A job that Slurm requeues (after a preemption or a node's failure) goes on with the run that --out names.
set -euo pipefail

# Slurm runs a copy of this file, so the checkout is where sbatch was called
cd "${SLURM_SUBMIT_DIR:?start this with sbatch}"
source launch/environment.sh
unset OMP_NUM_THREADS

if [ "${SLURM_RESTART_COUNT:-0}" -gt 0 ]; then
    for ((place = 1; place < $#; place++)); do
        folder="${*:place+1:1}"
        if [ "${!place}" = --out ] && [ -f "$folder/resolved.yaml" ]; then
            set -- "$@" --resume "$folder"
            break
        fi
    done
fi

export CONFIG="${CONFIG:-launch/accelerate/zero2.yaml}"
export GPUS="${SLURM_GPUS_ON_NODE:?ask for GPUs with --gpus-per-node}"
export MAIN_ADDRESS="$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)"
export MAIN_PORT="$((20000 + SLURM_JOB_ID % 20000))"

# SLURM_NODEID is known only inside srun, hence the inner shell
srun --kill-on-bad-exit=1 bash -c '
    exec accelerate launch --config_file "$CONFIG" \
        --num_machines "$SLURM_NNODES" --num_processes "$((SLURM_NNODES * GPUS))" \
        --machine_rank "$SLURM_NODEID" --main_process_ip "$MAIN_ADDRESS" --main_process_port "$MAIN_PORT" \
        -m coevo train "$@"
' coevo "$@"
