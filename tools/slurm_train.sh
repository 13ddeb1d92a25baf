#!/usr/bin/env bash
# Train under Slurm.
# GPUS, GPUS_PER_NODE, CPUS_PER_TASK and SRUN_ARGS; see launch/srun.sh.
set -euo pipefail
if [ $# -lt 4 ]; then
    echo "usage: $0 PARTITION JOB_NAME CONFIG WORK_DIR [options of tools/train.py]" >&2
    exit 2
fi
exec "$(dirname "$0")/launch/srun.sh" "$1" "$2" train.py "$3" --work-dir "$4" "${@:5}"
