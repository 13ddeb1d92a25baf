#!/usr/bin/env bash
# Evaluate under Slurm.
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS; see launch/srun.sh.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG CHECKPOINT [options of tools/test.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch/srun.sh" "$1" "$2" test.py "$3" "$4" "${@:5}"
