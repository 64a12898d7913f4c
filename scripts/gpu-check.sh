#!/usr/bin/env bash
# Makes the bundle that checks prism on a machine with an NVIDIA GPU:
#
#   scripts/gpu-check.sh [PRISM]      target/gpu-bundle, with PRISM (default target/release/prism)
#
# This machine needs no GPU. PRISM must be linked with CUDA's libraries (make build CUDA=1).
# The other machine needs this folder and a Python with PyTorch of the same release, torchvision,
# NumPy and Pillow; it needs neither Rust nor a network:
#
#   target/gpu-bundle/run.sh OUT      the results: OUT/results.md, results.json, log.txt
#
# PRISM_CPU, where set, is the program that makes the expected arrays here, on the CPU.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'gpu-check: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

prism=${1:-target/release/prism}
bundle=target/gpu-bundle
[ -x "$prism" ] || die "$prism is missing; run make build CUDA=1 weights"
readelf -dW "$prism" | grep -q 'libtorch_cuda\.so' || die "$prism is not linked with CUDA's libraries; run make build CUDA=1"

rm -rf "$bundle"
mkdir -p "$bundle/samples" "$bundle/networks"
cp samples/*.jpg "$bundle/samples/"
cp models/efficientnet_lite0.pth "$bundle/"
cp scripts/gpu-check/run.sh scripts/gpu-check/check.py "$bundle/"
for folder in networks heads scores channels loading odd_networks; do
    for file in tests/data/"$folder"/*.pt; do
        cp "$file" "$bundle/networks/${folder}_${file##*/}"
    done
done
for method in none gradcam exct-backp; do
    "${PRISM_CPU:-$prism}" --quiet --offline --device cpu --model efficientnet_lite0 \
        --weights "$bundle/efficientnet_lite0.pth" --saliency "$method" --output-dir "$bundle/figures" \
        --save-arrays "$bundle/all.npz" --input "$bundle"/samples/*.jpg > /dev/null
    "${PYTHON:-python3}" - "$bundle" "$method" <<'PY'
import sys, zipfile
bundle, method = sys.argv[1:]
wanted = ("logits.npy", "features.npy", "saliency.npy", "variance_ratio.npy")
with zipfile.ZipFile(f"{bundle}/all.npz") as all, zipfile.ZipFile(f"{bundle}/expected_{method}.npz", "w", zipfile.ZIP_DEFLATED) as few:
    for name in wanted:
        if name in all.namelist():
            few.writestr(name, all.read(name))
PY
done
rm -rf "$bundle/figures" "$bundle/all.npz"
# The images of the small networks: FOLDER.npz for all of a folder, or FOLDER_NETWORK.npz.
"${PYTHON:-python3}" - "$bundle/networks" <<'PY'
import pathlib, sys, zipfile
for file in pathlib.Path("tests/data").glob("*/*.npz"):
    folder = file.parent.name
    if folder not in ("heads", "scores", "channels", "loading", "odd_networks"):
        continue
    name = folder if file.stem == "expected" else f"{folder}_{file.stem}"
    with zipfile.ZipFile(file) as all, zipfile.ZipFile(f"{sys.argv[1]}/{name}.npz", "w") as few:
        few.writestr("input.npy", all.read("input.npy"))
PY
strip -o "$bundle/prism" "$prism"
du -sh "$bundle" >&2
