#!/usr/bin/env bash
# Makes the environment and runs recipes/quickstart.yaml to its table. Arguments go to coevo train: bash
# launch/quickstart.sh seed=1 --out runs/seed-1
set -euo pipefail
source "$(dirname "${BASH_SOURCE[0]}")/environment.sh"
cd "$COEVO_ROOT"
export HF_HUB_OFFLINE="${HF_HUB_OFFLINE:-1}"
exec coevo train recipes/quickstart.yaml --out runs/quickstart "$@"
