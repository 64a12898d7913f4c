"""Makes the wheel of the Python package, with the program of `make dist` in it.

    python scripts/wheel.py    target/dist/prism_cnn-VERSION-py3-none-manylinux_2_NN_x86_64.whl

The same files give the same wheel: names are sorted, and times are the last commit's ($SOURCE_DATE_EPOCH, where set).
Needs Python 3.9 and readelf.
"""

import base64
import hashlib
import os
import re
import subprocess
import sys
import time
import zipfile
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
DIST = ROOT / "target" / "dist"
PACKAGE = ROOT / "python" / "prism_cnn"

#: What every Linux of the manylinux policies has.
SYSTEM = {
    "libc.so.6",
    "libm.so.6",
    "libdl.so.2",
    "librt.so.1",
    "libpthread.so.0",
    "libutil.so.1",
    "ld-linux-x86-64.so.2",
}

#: The licences of what lies in the package, by the names in its folder `licences`.
LICENCES = {
    "prism": "MIT",
    "efficientnet_lite0": "Apache-2.0",
    "open-sans": "Apache-2.0",
    "colorbrewer": "Apache-2.0",
    "rust": "(MIT OR Apache-2.0)",
    "gcc": "GPL-3.0-or-later WITH GCC-exception-3.1",
    "libtorch": "BSD-3-Clause AND LicenseRef-bundled-with-libtorch",
    "onemkl": "LicenseRef-Intel-Simplified-Software-License",
    "nvidia-cudart": "LicenseRef-NVIDIA-CUDA-Toolkit",
    "nvidia-cupti": "LicenseRef-NVIDIA-CUDA-Toolkit",
}

#: The oldest glibc that make test-wheel runs the wheel with: Debian 11's.
TESTED = (2, 31)

METADATA = """\
Metadata-Version: 2.4
Name: prism-cnn
Version: {version}
Summary: Shows what a convolutional network has seen in images: equal colours mean similar features
License-Expression: {expression}
{licence_files}
Requires-Python: >=3.9
Requires-Dist: numpy
Description-Content-Type: text/markdown
Classifier: Operating System :: POSIX :: Linux
Classifier: Programming Language :: Python :: 3
Classifier: Topic :: Scientific/Engineering :: Artificial Intelligence
Classifier: Typing :: Typed

{text}"""

TEXT = """\
# prism-cnn

`prism` runs images through a convolutional network (CNN) and shows its features as colours:
equal colours mean similar features, across all images.

```python
import prism_cnn

result = prism_cnn.explain("efficientnet_lite0", ["dog.jpg", "cat.jpg"])
result.show()
```

The wheel holds the program `prism` with libtorch, which never meets the torch that you have,
and the weights of EfficientNet-Lite0. It needs Linux on x86-64 with glibc {glibc} or later.
"""


def fail(text):
    sys.exit(f"wheel: {text}")


def versions():
    """The version of the program, which must be that of the package."""
    cargo = re.search(r'^version = "(.*)"$', (ROOT / "Cargo.toml").read_text(), re.M).group(1)
    package = re.search(r'^__version__ = "(.*)"$', (PACKAGE / "__init__.py").read_text(), re.M).group(1)
    if cargo != package:
        fail(f"Cargo.toml has version {cargo}, and python/prism_cnn/__init__.py {package}")
    return cargo


def readelf(*arguments):
    return subprocess.run(["readelf", *arguments], check=True, stdout=subprocess.PIPE).stdout.decode()


def oldest_glibc(tree):
    """The glibc that the program and its libraries need, and at least the oldest one that is tested, `(major, minor)`.

    All else that they need is packed.
    """
    files = [tree / "bin" / "prism", *sorted((tree / "lib").iterdir())]
    packed = {file.name for file in files}
    needed = TESTED
    for file in files:
        for library in re.findall(r"\(NEEDED\).*\[(.*)\]", readelf("-dW", str(file))):
            if library not in packed | SYSTEM:
                fail(f"{file.name} needs {library}, which is neither packed nor on every system")
        asked = readelf("-VW", str(file))
        if "GLIBC_ABI_DT_RELR" in asked:
            needed = max(needed, (2, 36))
        needed = max(
            [needed, *((int(major), int(minor)) for major, minor in re.findall(r"Name: GLIBC_(\d+)\.(\d+)", asked))]
        )
    return needed


def expression(licences):
    """What all parts of the wheel are licensed under, as an SPDX expression."""
    found = []
    for part in sorted(licences.iterdir()):
        if part.name == "crates.txt":
            for said in re.findall(r"^  licence: (.*)$", part.read_text(), re.M):
                if said == "in its own file":
                    fail("a crate names no licence")
                said = said.replace("/", " OR ")
                found.append(f"({said})" if " OR " in said else said)
        elif part.name in LICENCES:
            found.append(LICENCES[part.name])
        else:
            fail(f"{part} is a licence that LICENCES does not know")
    single = [term for terms in found for term in (terms.split(" AND ") if "(" not in terms else [terms])]
    return " AND ".join(dict.fromkeys(["MIT", *sorted(single)]))


def contents(tree, info, version, tag, glibc):
    """Name in the wheel -> (bytes or file, whether it is executable)."""
    files = {}
    for file in sorted(PACKAGE.rglob("*")):
        if file.suffix == ".py" or file.name == "py.typed":
            files[f"prism_cnn/{file.relative_to(PACKAGE)}"] = (file, False)
    for part in ("bin", "lib"):
        for file in sorted((tree / part).rglob("*")):
            if file.is_file():
                files[f"prism_cnn/program/{file.relative_to(tree)}"] = (file, part == "bin" and file.name == "prism")
    # pip puts these below the prefix of the environment, where a manual and shells look.
    for file in sorted((tree / "share").rglob("*")):
        if file.is_file() and "doc" not in file.parts[-3:]:
            files[f"prism_cnn-{version}.data/data/{file.relative_to(tree)}"] = (file, False)
    licences = [file for file in sorted((tree / "licences").rglob("*")) if file.is_file()]
    names = [str(file.relative_to(tree / "licences")) for file in licences]
    for name, file in zip(names, licences):
        files[f"{info}/licenses/{name}"] = (file, False)
    metadata = METADATA.format(
        version=version,
        expression=expression(tree / "licences"),
        licence_files="\n".join(f"License-File: {name}" for name in names),
        text=TEXT.format(glibc=".".join(map(str, glibc))),
    )
    files[f"{info}/METADATA"] = (metadata.encode(), False)
    files[f"{info}/WHEEL"] = (
        f"Wheel-Version: 1.0\nGenerator: scripts/wheel.py\nRoot-Is-Purelib: false\nTag: {tag}\n".encode(),
        False,
    )
    files[f"{info}/entry_points.txt"] = (b"[console_scripts]\nprism = prism_cnn.__main__:main\n", False)
    return files


def when():
    """The time of all files."""
    epoch = (
        os.environ.get("SOURCE_DATE_EPOCH")
        or subprocess.run(
            ["git", "log", "-1", "--format=%ct"], cwd=ROOT, check=True, stdout=subprocess.PIPE
        ).stdout.decode()
    )
    return time.gmtime(int(epoch))[:6]


def write(path, files, info):
    moment = when()
    record = []
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:

        def put(name, data, is_program=False):
            entry = zipfile.ZipInfo(name, moment)
            entry.external_attr = (0o100755 if is_program else 0o100644) << 16
            entry.compress_type = zipfile.ZIP_DEFLATED
            archive.writestr(entry, data)

        for name, (content, is_program) in files.items():
            data = content if isinstance(content, bytes) else content.read_bytes()
            digest = base64.urlsafe_b64encode(hashlib.sha256(data).digest()).rstrip(b"=").decode()
            record.append(f"{name},sha256={digest},{len(data)}\n")
            put(name, data, is_program)
        put(f"{info}/RECORD", "".join([*record, f"{info}/RECORD,,\n"]).encode())


def main():
    version = versions()
    tree = DIST / f"prism-{version}-x86_64-linux"
    if not (tree / "bin" / "prism").exists():
        fail(f"{tree} is missing; run make wheel")
    glibc = oldest_glibc(tree)
    tag = f"py3-none-manylinux_{glibc[0]}_{glibc[1]}_x86_64"
    info = f"prism_cnn-{version}.dist-info"
    wheel = DIST / f"prism_cnn-{version}-{tag}.whl"
    part = wheel.with_suffix(".part")
    write(part, contents(tree, info, version, tag, glibc), info)
    for old in DIST.glob("prism_cnn-*.whl"):
        old.unlink()
    part.rename(wheel)
    print(f"{wheel.stat().st_size / 1e6:.0f}MB  {wheel.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
