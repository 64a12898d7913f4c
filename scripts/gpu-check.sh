#!/usr/bin/env bash
# Makes the bundle that checks prism on a machine with an NVIDIA GPU:
#
#   scripts/gpu-check.sh [FOLDER]     target/gpu-bundle, with FOLDER/prism and
#                                     FOLDER/examples/gpu_speed (default target/release)
#
# This machine needs no GPU. Both must be linked with CUDA's libraries: make build CUDA=1, and
# cargo build --release --example gpu_speed. The bundle is pieces of at most 60 MB and run.sh, which
# joins them. The other machine needs a Python with PyTorch of the same release, torchvision, NumPy
# and Pillow; it needs neither Rust nor a network:
#
#   target/gpu-bundle/run.sh OUT      the results: OUT/results.md, results.json, log.txt
#
# PRISM_CPU, where set, is the program that makes the expected arrays here, on the CPU;
# PRISM_BEFORE an older one, with CUDA, whose speed is compared.
set -euo pipefail
cd "$(dirname "$0")/.."

say() { printf 'gpu-check: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

built=${1:-target/release}
prism=$built/prism
pieces=target/gpu-bundle
bundle=$pieces/unpacked
for program in "$prism" "$built/examples/gpu_speed"; do
    [ -x "$program" ] || die "$program is missing; run make build CUDA=1 weights, and cargo build --release --example gpu_speed"
    readelf -dW "$program" | grep -q 'libtorch_cuda\.so' || die "$program is not linked with CUDA's libraries; run make build CUDA=1"
done

rm -rf "$pieces"
mkdir -p "$bundle/samples" "$bundle/networks"
cp samples/*.jpg "$bundle/samples/"
cp models/efficientnet_lite0.pth "$bundle/"
cp scripts/gpu-check/check.py "$bundle/"
cp scripts/gpu-check/run.sh "$pieces/"
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
strip -o "$bundle/gpu_speed" "$built/examples/gpu_speed"
if [ -n "${PRISM_BEFORE:-}" ]; then strip -o "$bundle/prism_before" "$PRISM_BEFORE"; fi
tar -C "$bundle" -cf - . | xz -T0 | split -b 60MB - "$pieces/piece."
rm -rf "$bundle"
du -h "$pieces"/* >&2
