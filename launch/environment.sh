#!/usr/bin/env bash
# Makes .venv in the checkout and installs coevo with the exact versions of launch/constraints.txt; a second call returns
# at once. Run it (`bash launch/environment.sh`), or source it from a script to get the variables and the activated venv.
#
# COEVO_PYTHON=/path/to/python3.11 names the interpreter; COEVO_VENV=DIR puts the environment elsewhere. A machine without
# a GPU can have torch's small CPU build: PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu bash launch/test.sh
set -euo pipefail

COEVO_ROOT="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)"
COEVO_VENV="${COEVO_VENV:-$COEVO_ROOT/.venv}"

export HF_HUB_DISABLE_TELEMETRY=1
export TOKENIZERS_PARALLELISM=false
export WANDB_MODE="${WANDB_MODE:-offline}"
if [ -z "${OMP_NUM_THREADS:-}" ]; then
    # more threads than this gain nothing on small models
    OMP_NUM_THREADS="$(nproc 2>/dev/null || echo 2)"
    [ "$OMP_NUM_THREADS" -le 8 ] || OMP_NUM_THREADS=8
fi
export OMP_NUM_THREADS
# two threads that wait in a loop, beside a busy process, run at a tenth of one thread's speed (python -m tests.bench.threads)
export OMP_WAIT_POLICY="${OMP_WAIT_POLICY:-PASSIVE}"
# keep freed tensors in the process: a small model spends a fifth of its time on page faults otherwise (glibc)
export MALLOC_MMAP_THRESHOLD_="${MALLOC_MMAP_THRESHOLD_:-1073741824}" MALLOC_TRIM_THRESHOLD_="${MALLOC_TRIM_THRESHOLD_:-4294967296}"

coevo_fail() {
    echo "launch/environment.sh: $*" >&2
    exit 1
}

coevo_python() {
    local candidate
    for candidate in ${COEVO_PYTHON:-python3.11 python3.12 python3 python}; do
        if "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] < (3, 13))' 2>/dev/null; then
            echo "$candidate"
            return
        fi
    done
    return 1
}

coevo_install() {
    local python stamp="$1"
    if ! "$COEVO_VENV/bin/python" -c 'import pip' 2>/dev/null; then
        python="$(coevo_python)" || coevo_fail "no Python 3.11 or 3.12 among: ${COEVO_PYTHON:-python3.11 python3.12 python3 python}. Install one, or name it in COEVO_PYTHON."
        echo "[environment 1/3] $("$python" --version) -> $COEVO_VENV"
        "$python" -m venv --clear "$COEVO_VENV" || coevo_fail "step 1: $python cannot make a virtual environment (Debian and Ubuntu: install python3-venv)."
    fi
    command -v g++ >/dev/null || echo "note: no g++; DeepSpeed (launch/accelerate/*zero*.yaml) will not run until one is installed." >&2
    # torch first: what comes after finds it there and never asks the index for another build
    echo "[environment 2/3] torch"
    "$COEVO_VENV/bin/python" -m pip install -c "$COEVO_ROOT/launch/constraints.txt" torch setuptools || coevo_fail "step 2: pip could not install torch; see its message above (network, disk space, or no wheel for this platform)."
    echo "[environment 3/3] coevo and all else (about two minutes)"
    "$COEVO_VENV/bin/python" -m pip install -c "$COEVO_ROOT/launch/constraints.txt" -e "$COEVO_ROOT[dev]" || coevo_fail "step 3: pip could not install coevo; see its message above."
    echo "$stamp" >"$COEVO_VENV/coevo.stamp"
    echo "[environment] ready: $COEVO_VENV"
}

coevo_stamp="$(cat "$COEVO_ROOT/pyproject.toml" "$COEVO_ROOT/launch/constraints.txt" <(echo "$COEVO_ROOT") | cksum)"
if [ ! -x "$COEVO_VENV/bin/coevo" ] || [ "$(cat "$COEVO_VENV/coevo.stamp" 2>/dev/null)" != "$coevo_stamp" ]; then
    coevo_install "$coevo_stamp"
fi
export VIRTUAL_ENV="$COEVO_VENV" PATH="$COEVO_VENV/bin:$PATH"
