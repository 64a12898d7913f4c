#!/usr/bin/env bash
# Checks the prism beside this file on this machine's GPU, in about six minutes:
#
#   run.sh OUT        writes OUT/results.md, OUT/results.json and OUT/log.txt
#
# PYTHON names a Python with PyTorch of the release that prism is linked with (default python3).
# DEVICE=cpu tries the check itself where there is no GPU. LIBTORCH names another libtorch.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?run.sh OUT}
mkdir -p "$out"
chmod +x "$here/prism" 2>/dev/null
export PYTHONUNBUFFERED=1 PRISM_OFFLINE=1
"${PYTHON:-python3}" "$here/check.py" all "$here" "$out" 2>&1 | tee "$out/log.txt"
