#!/usr/bin/env bash
# Start a tool under Slurm: srun.sh PARTITION JOB_NAME TOOL [arguments of the tool]
# PSS_HOST_SETTINGS=0 leaves allocator and caches of the machines as they are; see pss_razor/host_settings.py.
# GPUS (8), GPUS_PER_NODE (8), CPUS_PER_TASK (5) and SRUN_ARGS, as in OpenMMLab.
set -euo pipefail
TOOLS=$(cd "$(dirname "$0")/.." && pwd)

# SRUN_ARGS is split into words on purpose.
# shellcheck disable=SC2086
PYTHONPATH="$TOOLS/..:${PYTHONPATH:-}" exec srun -p "$1" \
    --job-name="$2" \
    --gres="gpu:${GPUS_PER_NODE:-8}" \
    --ntasks="${GPUS:-8}" \
    --ntasks-per-node="${GPUS_PER_NODE:-8}" \
    --cpus-per-task="${CPUS_PER_TASK:-5}" \
    --kill-on-bad-exit=1 \
    ${SRUN_ARGS:-} \
    "${PYTHON:-python}" -m pss_razor.host_settings "${PYTHON:-python}" -u "$TOOLS/$3" "${@:4}" --launcher slurm
