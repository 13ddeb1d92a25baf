#!/usr/bin/env bash
# Start N processes of a tool on this machine: torchrun.sh N TOOL [arguments of the tool]
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT, as in OpenMMLab.
# PSS_HOST_SETTINGS=0 leaves allocator and caches of the machine as they are; see pss_razor/host_settings.py.
set -euo pipefail
TOOLS=$(cd "$(dirname "$0")/.." && pwd)

PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec "${PYTHON:-python}" -m pss_razor.host_settings "${PYTHON:-python}" -m torch.distributed.run \
    --nnodes="${NNODES:-1}" \
    --node_rank="${NODE_RANK:-0}" \
    --master_addr="${MASTER_ADDR:-127.0.0.1}" \
    --master_port="${PORT:-29500}" \
    --nproc_per_node="$1" \
    "$TOOLS/$2" "${@:3}" --launcher pytorch
