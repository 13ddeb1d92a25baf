#!/usr/bin/env bash
# Train on several processes: tools/dist_train.sh CONFIG N [options of tools/train.py]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as in OpenMMLab.
set -euo pipefail

if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG N [options of tools/train.py]" >&2
    exit 2
fi
CONFIG=$1
PROCESSES=$2
TOOLS=$(cd "$(dirname "$0")" && pwd)

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$PROCESSES" \
    "$TOOLS/train.py" "$CONFIG" --launcher pytorch "${@:3}"
