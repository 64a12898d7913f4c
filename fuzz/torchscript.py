"""TorchScript archives that are damaged, each loaded by a prism of its own.

libtorch reads them, in C++, so a mishap could end the whole process. A prism
must end by itself, with 0, 1 or 2 and no panic, within a time and memory.

    torchscript.py PRISM [--seconds S] [--start SEED] [--replay FILE]
"""

import argparse
import os
import pathlib
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import zipfile

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = ("tests/data/odd_networks", "tests/data/bad_models")
ENDLESS = ("grows.pt", "greedy.pt")  # take all memory, as a program may
FOUND = ROOT / "fuzz/artifacts/torchscript"
LARGEST_SEED = 40_000  # bytes
TIMEOUT = 20  # seconds
# bytes, in use: libtorch takes memory for a text by its length, which has 4 bytes, before it reads it
MOST_MEMORY = 5 << 30
MOST_ADDRESSES = 16 << 30  # bytes; so that this machine survives
TOLD = 10_000  # bytes of a message that are kept

# What numbers in files are often, and pieces of what the archives hold.
NUMBERS = [0, 1, 2, 127, 128, 255, 65535, 1 << 20, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1]
PIECES = [
    b"(", b"]", b"}", b"Q", b"R", b"b", b"c", b"0", b"2", b"t", b"\x85", b"\x86", b"\x87", b"\x93",
    b"ctorch._utils\n_rebuild_tensor_v2\n", b"ctorch.jit._pickle\nbuild_intlist\n", b"ctorch\nFloatStorage\n",
    b"torch.", b"self.", b"Tensor", b"List[int]", b"Optional[Tensor]", b"None", b"-1", b"9223372036854775807",
    b"0", b"1e400", b"CONSTANTS.c0", b"return ", b"while True:\n", b"\n  ", b"annotate(", b"__torch__.", b"def forward(",
]  # fmt: skip


def mutated(data: bytes, rng: random.Random) -> bytes:
    data = bytearray(data)
    for _ in range(rng.choice((1, 1, 1, 2, 3, 8))):
        at = rng.randrange(len(data) + 1)
        end = min(len(data), at + rng.choice((1, 1, 2, 4, 16, 64)))
        match rng.randrange(8):
            case 0 if at < len(data):
                data[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(data):
                data[at] = rng.randrange(256)
            case 2:
                del data[at:end]
            case 3:
                data[at:at] = data[at:end] * rng.choice((1, 2, 100))
            case 4:
                number = rng.choice(NUMBERS)
                size = rng.choice((1, 2, 4, 8))
                data[at : at + size] = (number % (1 << 8 * size)).to_bytes(size, "little")
            case 5:
                data[at:at] = rng.choice(PIECES)
            case 6:
                piece = rng.choice(PIECES)
                data[at : at + len(piece)] = piece
            case 7:
                other = rng.randrange(len(data) + 1)
                data[at:end] = data[other : other + rng.choice((1, 4, 16, 64))]
    return bytes(data)


def lines_mutated(data: bytes, rng: random.Random) -> bytes:
    """Code stays readable more often where whole lines are moved or numbers and names exchanged."""
    lines = data.split(b"\n")
    at, other = rng.randrange(len(lines)), rng.randrange(len(lines))
    match rng.randrange(4):
        case 0:
            del lines[at]
        case 1:
            lines.insert(at, lines[other])
        case 2:
            lines[at], lines[other] = lines[other], lines[at]
        case 3:
            words = lines[at].split(b" ")
            words[rng.randrange(len(words))] = rng.choice(lines[other].split(b" ") + PIECES)
            lines[at] = b" ".join(words)
    return b"\n".join(lines)


def archive_mutated(seed: pathlib.Path, target: pathlib.Path, rng: random.Random) -> None:
    """One entry is changed or left out; the rest of the archive stays good."""
    with zipfile.ZipFile(seed) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    # Where the tensors' numbers change, nothing happens.
    chosen = rng.choice([i for i, (name, _) in enumerate(entries) if "/data/" not in name])
    name, data = entries[chosen]
    if rng.random() < 0.02:
        del entries[chosen]
    elif name.endswith(".py") and rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = lines_mutated(data, rng)
        entries[chosen] = (name, data)
    else:
        entries[chosen] = (name, mutated(data, rng))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(name, data)


def limit() -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MOST_ADDRESSES, MOST_ADDRESSES))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


def complaint(prism: str, file: pathlib.Path) -> str | None:
    """What is wrong with how prism ends on the file."""
    with tempfile.TemporaryFile() as told:
        child = subprocess.Popen(
            [prism, "layers", "--offline", "--device", "cpu", "--threads", "1", "--model", file],
            stdin=subprocess.DEVNULL, stdout=told, stderr=told, preexec_fn=limit,
        )  # fmt: skip
        signal.setitimer(signal.ITIMER_REAL, TIMEOUT)
        late = False
        try:
            _, status, usage = os.wait4(child.pid, 0)
        except TimeoutError:
            late = True
            child.kill()
            _, status, usage = os.wait4(child.pid, 0)
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0)
        child.returncode = os.waitstatus_to_exitcode(status)
        told.seek(0)
        text = told.read(TOLD).decode(errors="replace")
    if late:
        return f"it takes more than {TIMEOUT} s"
    if child.returncode not in (0, 1, 2):
        return f"it ends with {child.returncode}: {text[-500:]}"
    if "failed within itself" in text:
        return f"it panics: {text[-500:]}"
    if child.returncode and not text.strip():
        return "it fails without a word"
    if usage.ru_maxrss * 1024 > MOST_MEMORY:
        return f"it takes {usage.ru_maxrss >> 10} MB"
    return None


def ring(*_: object) -> None:
    raise TimeoutError


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("prism")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--start", type=int, default=int(time.time()))
    parser.add_argument("--replay", type=pathlib.Path)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, ring)
    if args.replay:
        sys.exit(complaint(args.prism, args.replay))

    seeds = [file for folder in SEEDS for file in sorted((ROOT / folder).glob("*.pt"))]
    seeds = [file for file in seeds if file.stat().st_size <= LARGEST_SEED and file.name not in ENDLESS]
    end = time.monotonic() + args.seconds
    executions = found = 0
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / "a.pt"
        while time.monotonic() < end:
            rng = random.Random(f"{args.start} {executions}")
            seed = rng.choice(seeds)
            if rng.random() < 0.2:
                file.write_bytes(mutated(seed.read_bytes(), rng))
            else:
                archive_mutated(seed, file, rng)
            executions += 1
            if wrong := complaint(args.prism, file):
                found += 1
                FOUND.mkdir(parents=True, exist_ok=True)
                kept = FOUND / f"{args.start}-{executions}.pt"
                shutil.copy(file, kept)
                print(f"{kept.relative_to(ROOT)} (from {seed.name}): {wrong}", flush=True)
    print(f"stat::number_of_executed_units: {executions}")
    sys.exit(found > 0)


main()
