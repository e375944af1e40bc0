#!/usr/bin/env bash
# Train on a Slurm cluster:
#   [GPUS=8 GPUS_PER_NODE=8 CPUS_PER_TASK=5 SRUN_ARGS=""] \
#       tools/slurm_train.sh PARTITION JOB_NAME CONFIG [WORK_DIR [arguments of train.py]]
set -euo pipefail

if [ $# -lt 3 ]; then
    echo "Usage: $0 PARTITION JOB_NAME CONFIG [WORK_DIR [arguments of train.py]]" >&2
    exit 2
fi
TOOLS="$(cd "$(dirname "$0")" && pwd)"
GPUS="${GPUS:-8}"
GPUS_PER_NODE="${GPUS_PER_NODE:-$((GPUS < 8 ? GPUS : 8))}"
read -ra SRUN_ARGS <<< "${SRUN_ARGS:-}"

# WORK_DIR is optional: an argument that starts with - belongs to train.py.
WORK_DIR=()
if [ $# -ge 4 ] && [ "${4#-}" = "$4" ]; then
    WORK_DIR=("--work-dir=$4")
    set -- "${@:1:3}" "${@:5}"
fi

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:$GPUS_PER_NODE" \
    --ntasks="$GPUS" \
    --ntasks-per-node="$GPUS_PER_NODE" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS[@]+"${SRUN_ARGS[@]}"} \
    python -u "$TOOLS/train.py" "$3" ${WORK_DIR[@]+"${WORK_DIR[@]}"} --launcher=slurm "${@:4}"
