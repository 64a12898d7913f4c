#!/usr/bin/env bash
# Runs the package of scripts/dist.sh where nothing but glibc is installed:
#
#   scripts/test-dist.sh [TARBALL]    by default target/dist/prism-VERSION-x86_64-linux.tar.gz
#
# It unpacks the tarball into a fresh root that holds glibc and one photograph besides, and changes
# into it: there no library, network or font of this machine can help. Root is not needed where
# users may have namespaces of their own.
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
PATH=$PATH:/usr/sbin:/sbin # chroot lies there, and not every user has them

say() { printf 'test-dist: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

root=
# Nothing is ever mounted outside a namespace that is gone by then; one file system, to be sure.
trap 'if [ -n "$root" ]; then rm -rf --one-file-system "$root"; fi' EXIT
trap 'exit 130' INT TERM

version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
tarball=${1:-target/dist/prism-$version-x86_64-linux.tar.gz}
[ -s "$tarball" ] || die "$tarball is missing; run make dist"
for tool in unshare chroot mount ldd readelf; do
    command -v "$tool" >/dev/null || die "$tool is needed; install it"
done

# ---- a root with glibc alone ----------------------------------------------------------------

mkdir -p target
root=$(mktemp -d "$PWD/target/.test-dist.XXXXXX")
mkdir "$root/opt" "$root/proc" "$root/samples" "$root/out" "$root/links"
tar --extract --file "$tarball" --no-same-owner --directory "$root/opt" || die "$tarball cannot be unpacked"
name=$(find "$root/opt" -mindepth 1 -maxdepth 1 -printf '%f\n')
[ -x "$root/opt/$name/bin/prism" ] || # two names are no path either
    die "$tarball holds something else than one folder with bin/prism"
folder=/opt/$name
cp samples/dog.jpg "$root/samples/"

glibc='ld-linux-x86-64.so.2 libc.so.6 libm.so.6 libmvec.so.1 libdl.so.2 libpthread.so.0 librt.so.1 libutil.so.1'
glibc="$glibc libresolv.so.2 libanl.so.1"
is_glibc() { case " $glibc " in *" $1 "*) return 0 ;; esac; return 1; }
loader=/lib64/ld-linux-x86-64.so.2
install -D "$loader" "$root$loader"
while read -r library arrow path _; do
    if [ "$arrow" = "=>" ] && is_glibc "$library" && [ -e "$path" ]; then install -D "$path" "$root$path"; fi
done < <(env -u LD_LIBRARY_PATH -u LD_PRELOAD ldd "$root$folder/bin/prism")

# ---- how commands run in it -----------------------------------------------------------------

space=(unshare --mount --pid --fork --kill-child)
if [ "$(id -u)" != 0 ]; then space+=(--user --map-root-user); fi
"${space[@]}" true 2>/dev/null ||
    die "no namespace of its own for the test: run as root, or allow users theirs (kernel.unprivileged_userns_clone)"
# /proc is the one thing that every Linux has and prism cannot do without: by /proc/self/exe the
# loader finds $ORIGIN, and prism its networks. Where a container forbids a fresh one, its own is
# bound. /dev, /sys, /tmp and /etc are missing on purpose.
# shellcheck disable=SC2016 # for that shell to expand
enter=("${space[@]}" sh -c 'proc=$1/proc; shift
    mount -t proc proc "$proc" 2>/dev/null || mount --rbind /proc "$proc" || exit
    exec "$@"' sh "$root")
"${enter[@]}" true || die "/proc cannot be mounted in the new root; run where it can"
# inside COMMAND...: without anything of this shell's environment.
inside() { "${enter[@]}" "$(command -v env)" -i HOME=/ PRISM_OFFLINE=1 LD_BIND_NOW=1 "$(command -v chroot)" "$root" "$@"; }

# ---- what must hold -------------------------------------------------------------------------

# Every library is the package's own or glibc's, and none is packed that is not loaded.
listed=$(inside "$loader" --list "$folder/bin/prism") || die "the loader cannot list the libraries: $listed"
loaded=
while read -r library arrow path _; do
    [ "$arrow" = "=>" ] || continue
    if is_glibc "$library"; then continue; fi
    case "$path" in
        "$folder"/*) loaded="$loaded $library" ;;
        *) die "$library is not taken from the package, but: $path" ;;
    esac
done <<< "$listed"
for file in "$root$folder"/lib/*; do
    library=${file##*/}
    case " $loaded " in *" $library "*) ;; *) die "lib/$library is packed, but not loaded" ;; esac
done
for file in "$root$folder/bin/prism" "$root$folder"/lib/*; do
    readelf -dW "$file" | sed -n 's/.*R\(UN\)\{0,1\}PATH.*\[\(.*\)\]/\2/p' | tr ':' '\n' | while read -r path; do
        # shellcheck disable=SC2016 # for the loader to expand
        case "$path" in '$ORIGIN' | '$ORIGIN/../lib') ;; *) die "${file##*/} looks for libraries in $path" ;; esac
    done
done

said=$(inside "$folder/bin/prism" --version) || die "prism --version failed"
[ "prism-${said#prism }-x86_64-linux" = "$name" ] || die "prism --version says '$said', but the folder is $name"

said=$(inside "$folder/bin/prism" models) || die "prism models failed"
grep -q efficientnet_lite0 <<< "$said" || die "prism models does not name efficientnet_lite0: $said"

# figures HOW PROGRAM: the photograph's class and two figures by PROGRAM, in a folder HOW of its own.
figures() {
    local said file
    # Figures hold the command line, so it must be the same.
    said=$(inside "$2" --quiet --model efficientnet_lite0 --input /samples/dog.jpg --output-dir /out/figures) ||
        die "prism failed on samples/dog.jpg ($1)"
    mv "$root/out/figures" "$root/out/$1"
    grep -q "^/samples/dog.jpg$(printf '\t')German_shepherd: " <<< "$said" ||
        die "samples/dog.jpg should be a German_shepherd, but prism says: $said"
    for file in PRISM_efficientnet_lite0.jpg PRISM_var_efficientnet_lite0.jpg; do
        [ -s "$root/out/$1/$file" ] || die "prism wrote no $file ($1)"
        [ "$(head -c 2 "$root/out/$1/$file" | od -An -tx1)" = " ff d8" ] || die "$file is not a JPEG ($1)"
    done
}
figures plain "$folder/bin/prism"
# Relocatable: in another folder, and called by a link.
mv "$root$folder" "$root/moved"
ln -s /moved/bin/prism "$root/links/prism"
figures moved /links/prism
cmp -s "$root/out/plain/PRISM_efficientnet_lite0.jpg" "$root/out/moved/PRISM_efficientnet_lite0.jpg" ||
    die "the package draws another figure after it was moved"

for file in README.md bin/models/efficientnet_lite0.LICENSE share/man/man1/prism.1 \
    share/bash-completion/completions/prism share/zsh/site-functions/_prism share/fish/vendor_completions.d/prism.fish \
    licences/prism/LICENSE licences/libtorch/LICENSE licences/onemkl/LICENSE.txt licences/gcc/GPL-3.txt licences/crates.txt; do
    [ -s "$root/moved/$file" ] || die "the package lacks $file"
done
for file in "$root"/moved/lib/libcu*; do
    if [ -e "$file" ] && ! ls "$root"/moved/licences/nvidia-*/License.txt >/dev/null 2>&1; then
        die "${file##*/} is packed without NVIDIA's licence"
    fi
done
printf 'test-dist: %s runs with nothing but glibc\n' "$tarball"
