#!/usr/bin/env bash
# Joins the pieces of the bundle beside this file and checks the prism in it on this machine's GPU,
# in about six minutes. Nothing is fetched.
#
#   run.sh OUT        writes OUT/results.md, OUT/results.json and OUT/log.txt
#
# PYTHON names a Python with PyTorch of the release that prism is linked with (default python3).
# DEVICE=cpu tries the check itself where there is no GPU. LIBTORCH names another libtorch.
set -uo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=${1:?run.sh OUT}
bundle=$(mktemp -d)
trap 'rm -rf "$bundle"' EXIT
mkdir -p "$out"
export PYTHONUNBUFFERED=1 PRISM_OFFLINE=1
cat "$here"/piece.* | "${PYTHON:-python3}" -c '
import sys, tarfile
tarfile.open(fileobj=sys.stdin.buffer, mode="r|xz").extractall(sys.argv[1], filter="data")
' "$bundle" || { echo "run.sh: the pieces beside it cannot be joined" >&2; exit 1; }
"${PYTHON:-python3}" "$bundle/check.py" all "$bundle" "$out" 2>&1 | tee "$out/log.txt"
