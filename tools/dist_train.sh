#!/usr/bin/env bash
# Train on N processes.
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT; see launch/torchrun.sh.
set -euo pipefail
if [ $# -lt 2 ]; then
    echo "usage: $0 CONFIG N [options of tools/train.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch/torchrun.sh" "$2" train.py "$1" "${@:3}"
