#!/usr/bin/env bash
# Evaluate on N processes.
# Several machines: NNODES, NODE_RANK, MASTER_ADDR and PORT; see launch/torchrun.sh.
set -euo pipefail
if [ $# -lt 3 ]; then
    echo "usage: $0 CONFIG CHECKPOINT N [options of tools/test.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch/torchrun.sh" "$3" test.py "$1" "$2" "${@:4}"
