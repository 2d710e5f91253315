#!/usr/bin/env bash
# Several machines under SLURM: sbatch slurm.sh RECIPE --out /shared/runs/NAME
# SLURM sends SIGTERM five minutes before the end to this script, which tells the processes; they save, and the job puts
# itself back into the queue and goes on from the latest checkpoint. They stop after the prompt that they are at: on one
# card alone that may take longer with Stable Diffusion XL (docs/cost.md), so let SLURM warn sooner there.
#SBATCH --job-name=fair-adaptors
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --time=08:00:00
#SBATCH --requeue
#SBATCH --signal=B:TERM@300
set -euo pipefail
head=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)

out=runs/${1:?a recipe}
for ((i = 1; i < $#; i++)); do [ "${!i}" = --out ] && next=$((i + 1)) && out=${!next}; done
resume=()
compgen -G "$out/checkpoints/step_*" >/dev/null && resume=(--resume)

# torchrun follows its SIGTERM with a kill after 30 seconds, so the processes are told from here instead.
stop() {
  touch "$out/.stopped"
  srun --overlap --ntasks-per-node=1 pkill -TERM -f -- '-u -m fair_adaptors train' || true
}
trap stop TERM
# A restart opens a new store: in the one that torchrun keeps, gloo may find the addresses of dead processes and hang.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
srun torchrun \
  --nnodes "$SLURM_NNODES" --nproc-per-node 4 --max-restarts 3 \
  --rdzv-backend c10d --rdzv-id "$SLURM_JOB_ID" --rdzv-endpoint "$head:29500" \
  -m fair_adaptors train "$@" "${resume[@]}" &
wait $! || wait $!
if [ -e "$out/.stopped" ]; then rm "$out/.stopped"; scontrol requeue "$SLURM_JOB_ID"; fi
