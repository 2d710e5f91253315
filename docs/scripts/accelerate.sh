#!/usr/bin/env bash
# One machine with GPUs, through accelerate: ./accelerate.sh 4 RECIPE [options of fair-adaptors train]
# On a CPU use torchrun.sh: `accelerate launch --cpu` starts one process whatever it is asked for.
set -euo pipefail
processes=$1
shift
# A restart opens a new store: in the one that torchrun keeps, gloo may find the addresses of dead processes and hang.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec accelerate launch --multi_gpu --num_processes "$processes" --module fair_adaptors train "$@"
