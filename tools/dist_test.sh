#!/usr/bin/env bash
# Evaluate on several GPUs, on each of NNODES machines:
#   [NNODES=1 NODE_RANK=0 PORT=29500 MASTER_ADDR=127.0.0.1] tools/dist_test.sh CONFIG CHECKPOINT GPUS [arguments]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "Usage: $0 CONFIG CHECKPOINT GPUS [arguments of test.py]" >&2
    exit 2
fi
TOOLS="$(cd "$(dirname "$0")" && pwd)"

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec torchrun \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$3" \
    "$TOOLS/test.py" "$1" "$2" --launcher pytorch "${@:4}"
