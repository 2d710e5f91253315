#!/usr/bin/env bash
# One machine, N processes: ./torchrun.sh 4 RECIPE [options of fair-adaptors train]
# A process that dies restarts all; they go on from the latest checkpoint. On a CPU the processes talk through gloo.
set -euo pipefail
processes=$1
shift
# A restart opens a new store: in the one that torchrun keeps, gloo may find the addresses of dead processes and hang.
export TORCH_DISABLE_SHARE_RDZV_TCP_STORE=1
exec torchrun --standalone --nproc-per-node "$processes" --max-restarts 3 -m fair_adaptors train "$@"
