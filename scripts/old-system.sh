#!/usr/bin/env bash
# Builds the release binary in Debian 11, so that it runs on systems with glibc 2.31 and later:
#
#   scripts/old-system.sh    target/old-system/release/prism, in the root target/old-system/root
#
# Rust and libtorch are those of this machine; compiler, linker and C++ runtime are Debian 11's.
# Its Python 3.9 is for make test-wheel.
# Needs root and debootstrap; $MIRROR names another mirror of Debian.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin

SUITE=bullseye
HOME_OF=target/old-system
CARGO=${CARGO:-cargo}

say() { printf 'old-system: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

[ "$(id -u)" = 0 ] || die "root is needed for a root file system of Debian 11; SYSTEM=host packs a program for systems as new as this one"
for tool in debootstrap unshare chroot mount rustc "$CARGO"; do
    command -v "$tool" >/dev/null || die "$tool is needed; install it, or use SYSTEM=host for systems as new as this one"
done

root=$PWD/$HOME_OF/root
if ! [ -e "$root/ready" ]; then
    say "making a root of Debian 11 (once)"
    rm -rf --one-file-system "$root"
    mkdir -p "$HOME_OF"
    debootstrap --variant=minbase --include=g++,python3-pip,python3-numpy "$SUITE" "$root" ${MIRROR:+"$MIRROR"} > "$HOME_OF/debootstrap.log" 2>&1 ||
        die "debootstrap failed; see $HOME_OF/debootstrap.log (MIRROR names another mirror)"
    touch "$root/ready"
fi

"$CARGO" fetch --quiet --locked || die "cargo could not fetch the crates; see its message above"
libtorch=$(realpath "${LIBTORCH:-libtorch/torch}")
[ -e "$libtorch/lib/libtorch_cpu.so" ] || die "no libtorch in $libtorch; run make setup"
toolchain=$(rustc --print sysroot)
crates=$(realpath "${CARGO_HOME:-$HOME/.cargo}")

# Mounts end with the namespace. What the build needs has the same path inside.
say "building in Debian 11"
# shellcheck disable=SC2016 # for that shell to expand
unshare --mount --propagation private bash -euc '
    root=$1; shift
    mount -t proc proc "$root/proc" 2>/dev/null || mount --rbind /proc "$root/proc"
    mount --rbind /dev "$root/dev"
    while [ "$1" != -- ]; do
        mkdir -p "$root$1"
        mount --bind "$1" "$root$1"
        shift
    done
    shift
    exec chroot "$root" "$@"' bash "$root" "$PWD" "$(realpath "$libtorch/..")" "$toolchain" "$crates" -- \
    /usr/bin/env -i HOME=/root LC_ALL=C PATH="$toolchain/bin:/usr/bin:/bin" CARGO_HOME="$crates" LIBTORCH="$libtorch" \
    CARGO_TARGET_DIR="$PWD/$HOME_OF" ${CARGO_BUILD_JOBS:+CARGO_BUILD_JOBS="$CARGO_BUILD_JOBS"} \
    /bin/sh -c "cd '$PWD' && cargo build --release --locked --offline --bin prism" || die "the build failed; see its message above"
