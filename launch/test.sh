#!/usr/bin/env bash
# Makes the environment and runs every check: lint, format, types, layers, tests. `--slow` adds the slow tests; other
# arguments go to pytest: bash launch/test.sh -k config
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$COEVO_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}" MPLBACKEND=Agg

selection=(-m "not slow")
arguments=()
for argument in "$@"; do
    if [ "$argument" = --slow ]; then selection=(); else arguments+=("$argument"); fi
done

step() {
    echo "== $*"
    "$@" || {
        echo "launch/test.sh: failed: $*" >&2
        exit 1
    }
}
step ruff check .
step ruff format --check .
step mypy
step lint-imports
# a file at a time on each core, the long ones of integration first; more threads than cores would wait for each other
export OMP_NUM_THREADS=1
step python -m pytest -n auto --maxprocesses 8 --dist loadfile --no-loadscope-reorder "${selection[@]}" "${arguments[@]}"
