#!/usr/bin/env bash
# Fuzzes one target after the other, and says what came of each:
#
#   fuzz/run.sh FOLDER SECONDS TARGET...
#
# FOLDER holds the fuzzers; PRISM, for the targets torchscript, exported and onnx, names the binary.
set -uo pipefail
cd "$(dirname "$0")/.."
binaries=$1
seconds=$2
shift 2

# Inputs are small; threads would only blur what the fuzzer sees of them.
export RAYON_NUM_THREADS=1 OMP_NUM_THREADS=1

# In memory where the system offers that: every input is a file.
memory=/dev/shm
[ -w "$memory" ] || memory=${TMPDIR:-/tmp}
TMPDIR=$(mktemp -d "$memory/prism-fuzz-XXXXXX") || exit
export TMPDIR
trap 'rm -rf "$TMPDIR"' EXIT
trap 'exit 130' INT TERM

# Valid files that the tests have anyway.
seeds() {
    case $1 in
        weights) echo tests/data/state_dicts ;;
        cluster_file) echo tests/data/clusters ;;
        image) echo tests/data/images ;;
        tar) echo tests/data/tars ;;
        arrays) echo tests/data/arrays ;;
    esac
}

logs=target/fuzz/logs
mkdir -p "$logs"
failed=0
summary=
for target in "$@"; do
    log=$logs/$target.log
    started=$SECONDS
    if [[ $target = torchscript || $target = exported || $target = onnx ]]; then
        "${PYTHON:-python3}" fuzz/networks.py "$target" "$PRISM" --seconds "$seconds" 2>&1 | tee "$log"
    else
        # What is found goes on in the first folder, so the next run starts from it.
        found=target/fuzz/corpus/$target
        mkdir -p "$found"
        corpora=("$found")
        for folder in "fuzz/corpus/$target" $(seeds "$target"); do
            [ -d "$folder" ] && corpora+=("$folder")
        done
        mkdir -p "fuzz/artifacts/$target"
        "$binaries/$target" "${corpora[@]}" -artifact_prefix="fuzz/artifacts/$target/" \
            -max_total_time="$seconds" -timeout=10 -rss_limit_mb=2048 -max_len=20000 \
            -print_final_stats=1 >"$log" 2>&1
    fi
    status=$?
    executions=$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")
    result=nothing
    if [ "$status" != 0 ]; then
        result="FAILED, see $log"
        failed=1
        tail -n 30 "$log"
    fi
    line=$(printf '%-15s %5d s %12s executions, found: %s' \
        "$target" $((SECONDS - started)) "${executions:-no}" "$result")
    echo "$line"
    summary+=$line$'\n'
done
printf '\n%s' "$summary"
exit "$failed"
