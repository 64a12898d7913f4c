#!/usr/bin/env bash
# Tests the wheel of make wheel, each time installed from scratch:
#
#   scripts/test-wheel.sh    without torch; beside torch 2.13 and timm, with the notebook; in Debian 11, if the
#                            package was built there; with OLD_TORCH=1 also beside torch 2.4 (fetches 3 GB)
#
# Beside torch 2.13 the packages are those of target/pytorch (make test-wheel fetches them).
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C.UTF-8 PIP_DISABLE_PIP_VERSION_CHECK=1
PATH=$PATH:/usr/sbin:/sbin

PYTHON=${PYTHON:-python3}
WORK=$PWD/target/test-wheel
ROOT=$PWD/target/old-system/root

say() { printf 'test-wheel: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

wheels=(target/dist/prism_cnn-*.whl)
[ -s "${wheels[0]}" ] && [ ${#wheels[@]} = 1 ] || die "there is no wheel in target/dist; run make wheel"
wheel=$PWD/${wheels[0]}
rm -rf "$WORK"
mkdir -p "$WORK"
unset PYTHONPATH PRISM_PROGRAM PRISM_MODELS

seconds() { date +%s.%N; }
passed() { "$PYTHON" -c "print(f'{$2 - $1:.1f} s')"; }
# tests ENVIRONMENT: the tests by that environment's Python, from a folder without prism_cnn.
tests() {
    (cd "$WORK" && "$1/bin/python" -B -W always::ResourceWarning -m unittest discover -s "$OLDPWD/tests/python") 2>&1 |
        tee "$WORK/said" || die "the tests fail with $1"
    # Python raises none of these warnings, even as errors: it only prints them.
    ! grep ResourceWarning "$WORK/said" || die "with $1 a file is left open"
}

# ---- a fresh environment --------------------------------------------------------------------

begin=$(seconds)
"$PYTHON" -m venv "$WORK/fresh"
"$WORK/fresh/bin/python" -m pip install --quiet "$wheel"
installed=$(seconds)
mkdir "$WORK/first"
said=$(cd "$WORK/first" && ../fresh/bin/prism --quiet --model efficientnet_lite0 --input ../../../samples/dog.jpg) ||
    die "the command prism fails in a fresh environment"
end=$(seconds)
grep -q "dog.jpg$(printf '\t')German_shepherd: 0.9" <<< "$said" || die "samples/dog.jpg should be a German_shepherd, but prism says: $said"
[ -s "$WORK/first/results/PRISM_efficientnet_lite0.jpg" ] || die "the command prism wrote no figure"
[ -s "$WORK/fresh/share/man/man1/prism.1" ] || die "the manual is not installed"
"$PYTHON" -c "import sys; sys.exit($end - $begin > 60)" || die "from the wheel to a figure took $(passed "$begin" "$end"), more than a minute"
say "without torch: installed in $(passed "$begin" "$installed"), first figure after $(passed "$installed" "$end")"
"$WORK/fresh/bin/python" -m pip install --quiet pillow
tests "$WORK/fresh"

# ---- beside torch 2.13 and timm -------------------------------------------------------------

"target/pytorch/bin/python" -m venv "$WORK/torch"
"target/pytorch/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
    > "$("$WORK/torch/bin/python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/pytorch.pth"
"$WORK/torch/bin/python" -m pip install --quiet "$wheel" nbclient ipykernel
say "beside torch $("$WORK/torch/bin/python" -c 'import torch; print(torch.__version__)')"
PATH=$WORK/torch/bin:$PATH tests "$WORK/torch"

# ---- beside an old torch --------------------------------------------------------------------

if [ "${OLD_TORCH:-0}" = 1 ]; then
    say "fetching torch 2.4"
    "$PYTHON" -m venv "$WORK/old-torch"
    "$WORK/old-torch/bin/python" -m pip install --quiet "$wheel" torch==2.4.1
    tests "$WORK/old-torch"
fi

# ---- on an old system -----------------------------------------------------------------------

if [ "${SYSTEM:-old}" = old ]; then
    # Its own pip must take the wheel's tag, and its Python 3.9 and NumPy the package.
    inside=$ROOT/opt/prism
    rm -rf "$inside"
    mkdir -p "$inside/clone"
    cp "$wheel" "$inside/"
    cp -R tests samples docs examples "$inside/clone/"
    say "in $(sed -n 's/^PRETTY_NAME="\(.*\)"/\1/p' "$ROOT/etc/os-release"), $(chroot "$ROOT" ldd --version | head -n 1)"
    # shellcheck disable=SC2016 # for that shell to expand
    unshare --mount --propagation private bash -euc '
        mount -t proc proc "$1/proc" 2>/dev/null || mount --rbind /proc "$1/proc"
        mount --rbind /dev "$1/dev"
        exec chroot "$1" /usr/bin/env -i HOME=/root LC_ALL=C.UTF-8 PATH=/usr/bin:/bin sh -euc "
            cd /opt/prism
            python3 -m pip install --quiet --no-index --no-deps --target packages *.whl
            export PYTHONPATH=/opt/prism/packages
            python3 -m prism_cnn --quiet --model efficientnet_lite0 --input clone/samples/dog.jpg
            python3 -B -m unittest discover -s clone/tests/python"' bash "$ROOT" || die "the wheel fails on Debian 11"
    rm -rf "$inside"
fi
say "${wheel##*/} passes"
