#!/bin/bash
# One shard for each process that torchrun starts, each on a GPU of its own:
#
#   torchrun --standalone --nproc-per-node 8 --no-python examples/cluster/torchrun_shard.sh run.yaml
#   cai merge RUN RUN/shard-*-of-*
#   cai run run.yaml
#
# Over several nodes, with --nnodes and --rdzv-endpoint, there are as many shards as processes in all.
set -euo pipefail

config=${1:?usage: torchrun ... --no-python torchrun_shard.sh CONFIG.yaml [CAI OPTIONS]}
shift
shard=$((RANK + 1))/$WORLD_SIZE
gpu=$LOCAL_RANK
# What torchrun tells its processes is for training together: a shard is a run of its own.
unset RANK LOCAL_RANK WORLD_SIZE LOCAL_WORLD_SIZE MASTER_ADDR MASTER_PORT

status=0
CUDA_VISIBLE_DEVICES=$gpu cai run "$config" --shard "$shard" "$@" || status=$?
[ "$status" -eq 3 ] || exit "$status"
