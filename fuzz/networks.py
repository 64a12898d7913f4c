"""Files of networks that are damaged, each loaded by a prism of its own.

libtorch reads or runs them, in C++, so a mishap could end the whole process. A
prism must end by itself, with 0, 1 or 2 and no panic, within a time and memory.

    networks.py KIND PRISM [--seconds S] [--start SEED] [--replay FILE]

KIND is torchscript, exported (files of torch.export) or onnx.
"""

import argparse
import json
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
import zlib

ROOT = pathlib.Path(__file__).resolve().parent.parent
SEEDS = {
    "torchscript": ("tests/data/odd_networks/*.pt", "tests/data/bad_models/*.pt"),
    "exported": ("tests/data/exported/*.pt2",),
    "onnx": ("tests/data/onnx/*.onnx",),
}  # fmt: skip
ENDLESS = ("grows.pt", "greedy.pt")  # take all memory, as a program may
FOUND = ROOT / "fuzz/artifacts"
LARGEST_SEED = {"torchscript": 40_000, "exported": 100_000, "onnx": 12_000}  # bytes
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


# Operators that the seeds may lack, and some that are refused.
OPERATORS = """
    add.Tensor mul.Scalar div.Tensor_mode view.default view.dtype reshape.default as_strided.default permute.default
    expand.default cat.default stack.default split.Tensor unbind.int select.int slice.Tensor index.Tensor gather.default
    index_put_.default scatter.src repeat_interleave.Tensor unfold.default im2col.default col2im.default pad.default
    constant_pad_nd.default convolution.default conv_transpose2d.input conv3d.default batch_norm.default group_norm.default
    native_group_norm.default native_layer_norm.default layer_norm.default instance_norm.default max_pool2d_with_indices.default
    max_unpool2d.default avg_pool2d.default adaptive_max_pool2d.default fractional_max_pool2d.default grid_sampler_2d.default
    upsample_bicubic2d.vec pixel_shuffle.default embedding.default bucketize.Tensor searchsorted.Tensor topk.default sort.default
    cumsum.default matmul.default einsum.default addmm.default bmm.default softmax.int _softmax.default fft_rfft2.default
    istft.default full.default arange.start_step linspace.default eye.m one_hot.default to.dtype _to_copy.default clone.default
    copy_.default fill_.Scalar sym_size.int empty.memory_format zeros.default scaled_dot_product_attention.default
    _scaled_dot_product_flash_attention_for_cpu.default _fft_c2r.default _weight_norm.default _cdist_forward.default
    from_file.default resize_.default set_.source_Tensor rand.default _empty_affine_quantized.default
""".split()


def places(value: object, found: list) -> list:
    """Every container of a JSON document and a key in it."""
    keys = value.keys() if isinstance(value, dict) else range(len(value)) if isinstance(value, list) else ()
    for key in list(keys):
        found.append((value, key))
        places(value[key], found)
    return found


def json_mutated(data: bytes, rng: random.Random) -> bytes:
    """Parts of a document are removed, exchanged or replaced, so that it stays JSON."""
    document = json.loads(data)
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = places(document, [])
        if rng.random() < 0.3:
            found = [(holder, key) for holder, key in found if key == "target"] or found
        if not found:
            break
        holder, key = rng.choice(found)
        other, other_key = rng.choice(found)
        match rng.randrange(6):
            case 0:
                del holder[key]
            case 1:
                holder[key] = json.loads(json.dumps(other[other_key]))
            case 2:
                holder[key] = rng.choice([*NUMBERS, -1, 0.5, None, True, "", "Infinity", "a\nb", [], {}])
            case 3 if isinstance(holder, list):
                holder.insert(key, json.loads(json.dumps(holder[rng.randrange(len(holder))])))
            case 4 if key == "target":
                holder[key] = "torch.ops.aten." + rng.choice(OPERATORS)
            case _ if isinstance(holder[key], int):
                holder[key] = rng.choice([holder[key] + 1, holder[key] - 1, -holder[key], *NUMBERS])
    return json.dumps(document).encode()


# The messages within the messages of an ONNX file, by the numbers of their fields.
MESSAGES = {
    "model": {7: "graph", 8: "opset", 14: "entry", 25: "function"},
    "graph": {1: "node", 5: "tensor", 11: "value", 12: "value"},
    "node": {5: "attribute", 9: "entry"},
    "attribute": {5: "tensor", 6: "graph"},
    "function": {7: "node", 9: "opset", 11: "attribute"},
    "tensor": {13: "entry"},
    "value": {2: "type"},
    "type": {1: "tensor_type"},
    "tensor_type": {2: "shape"},
    "shape": {1: "dimension"},
}  # fmt: skip
ONNX_OPERATORS = """
    Add Mul Div Pow Mod Max Mean Where Clip PRelu Cast Conv ConvTranspose Pad MaxPool AveragePool LpPool GlobalMaxPool Gemm
    MatMul Einsum BatchNormalization InstanceNormalization GroupNormalization LayerNormalization LRN ReduceMean ReduceProd
    Softmax Hardmax ArgMax CumSum TopK Shape Size Reshape Flatten Squeeze Unsqueeze Transpose Concat Split Slice Gather
    GatherElements GatherND ScatterElements Expand Tile ConstantOfShape Range Constant Trilu DepthToSpace SpaceToDepth
    Resize Upsample GridSample QuantizeLinear DequantizeLinear If Loop QLinearConv Identity Dropout
""".split()


def read_number(data: bytes, at: int) -> tuple[int, int]:
    number = shift = 0
    while True:
        byte = data[at]
        number |= (byte & 127) << shift
        at, shift = at + 1, shift + 7
        if byte < 128:
            return number, at


def write_number(number: int) -> bytes:
    number %= 1 << 64
    made = bytearray()
    while number > 127:
        made.append(number & 127 | 128)
        number >>= 7
    return bytes(made) + bytes([number])


def read_message(data: bytes, kind: str) -> list:
    """The fields of a message: lists of number, type, value, and the kind of the message in it."""
    fields, at = [], 0
    while at < len(data):
        key, at = read_number(data, at)
        number, wire = key >> 3, key & 7
        inner = None
        if wire == 0:
            value, at = read_number(data, at)
        else:
            length, at = {1: (8, at), 5: (4, at)}.get(wire) or read_number(data, at)
            value, at = data[at : at + length], at + length
            inner = MESSAGES.get(kind, {}).get(number) if wire == 2 else None
            value = read_message(value, inner) if inner else value
        fields.append([number, wire, value, inner])
    return fields


def write_message(fields: list) -> bytes:
    made = bytearray()
    for number, wire, value, inner in fields:
        value = write_message(value) if inner else value
        made += write_number(number << 3 | wire)
        made += write_number(value) if wire == 0 else (write_number(len(value)) if wire == 2 else b"") + value
    return bytes(made)


def all_fields(fields: list, kind: str, found: list) -> list:
    """Every message, its kind, and the place of a field in it."""
    for at, (_, _, value, inner) in enumerate(fields):
        found.append((fields, kind, at))
        if inner:
            all_fields(value, inner, found)
    return found


def onnx_mutated(seed: pathlib.Path, target: pathlib.Path, rng: random.Random) -> None:
    """Fields are removed, exchanged or replaced, so that the file stays one of protocol buffers."""
    model = read_message(seed.read_bytes(), "model")
    for _ in range(rng.choice((1, 1, 1, 2, 4))):
        found = all_fields(model, "model", [])
        if rng.random() < 0.5:
            found = [one for one in found if one[1] in ("node", "attribute")] or found
        if not found:
            break
        fields, kind, at = rng.choice(found)
        others, other_kind, other = rng.choice(found)
        number, wire, value, inner = fields[at]
        match rng.randrange(5):
            case 0:
                del fields[at]
            case 1:
                fields[at] = others[other] if kind == other_kind else fields[at][:2] + others[other][2:] if wire == others[other][1] else fields[at]
            case 2:
                fields.insert(at, list(fields[rng.randrange(len(fields))]))
            case _ if kind == "node" and number == 4:
                fields[at][2] = rng.choice(ONNX_OPERATORS).encode()
            case _ if wire == 0:
                fields[at][2] = rng.choice([value + 1, value - 1, -value, -1, *NUMBERS])
            case _ if wire in (1, 2, 5) and not inner:
                changed = mutated(value, rng)
                fields[at][2] = changed if wire == 2 else (changed + value)[: len(value)]
    target.write_bytes(write_message(model))


def archive_mutated(seed: pathlib.Path, target: pathlib.Path, rng: random.Random) -> None:
    """One entry is changed or left out; the rest of the archive stays good."""
    with zipfile.ZipFile(seed) as archive:
        entries = [(name, archive.read(name)) for name in archive.namelist()]
    # Where the tensors' numbers change, nothing happens.
    others = [i for i, (name, _) in enumerate(entries) if "/data/" not in name or name.endswith(".json")]
    chosen = rng.choice(others or range(len(entries)))
    programs = [i for i, (name, _) in enumerate(entries) if name.endswith("model.json")]
    if programs and rng.random() < 0.8:
        chosen = programs[0]
    name, data = entries[chosen]
    if rng.random() < 0.02:
        del entries[chosen]
    elif name.endswith(".py") and rng.random() < 0.7:
        for _ in range(rng.choice((1, 1, 2, 4))):
            data = lines_mutated(data, rng)
        entries[chosen] = (name, data)
    elif name.endswith(".json") and rng.random() < 0.9:
        entries[chosen] = (name, is_json(data) and json_mutated(data, rng) or mutated(data, rng))
    else:
        entries[chosen] = (name, mutated(data, rng))
    with zipfile.ZipFile(target, "w", zipfile.ZIP_STORED) as archive:
        for name, data in entries:
            archive.writestr(name, data)


def is_json(data: bytes) -> bool:
    try:
        return bool(json.loads(data))
    except (ValueError, RecursionError):
        return False


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
    parser.add_argument("kind", choices=SEEDS)
    parser.add_argument("prism")
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--start", type=int, default=int(time.time()))
    parser.add_argument("--replay", type=pathlib.Path)
    args = parser.parse_args()
    signal.signal(signal.SIGALRM, ring)
    if args.replay:
        sys.exit(complaint(args.prism, args.replay))

    seeds = [file for pattern in SEEDS[args.kind] for file in sorted(ROOT.glob(pattern))]
    largest = LARGEST_SEED[args.kind]
    seeds = [file for file in seeds if file.stat().st_size <= largest and file.name not in ENDLESS]
    end = time.monotonic() + args.seconds
    executions = found = 0
    with tempfile.TemporaryDirectory() as folder:
        file = pathlib.Path(folder) / f"a{seeds[0].suffix}"
        while time.monotonic() < end:
            rng = random.Random(f"{args.start} {executions}")
            seed = rng.choice(seeds)
            is_blind = rng.random() < 0.2
            try:
                change = onnx_mutated if args.kind == "onnx" else archive_mutated
                is_blind or change(seed, file, rng)
            except (zipfile.BadZipFile, EOFError, OSError, NotImplementedError, zlib.error, IndexError, RecursionError):
                is_blind = True  # some seeds are damaged
            if is_blind:
                file.write_bytes(mutated(seed.read_bytes(), rng))
            executions += 1
            if wrong := complaint(args.prism, file):
                found += 1
                kept = FOUND / args.kind / f"{args.start}-{executions}{file.suffix}"
                kept.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, kept)
                print(f"{kept.relative_to(ROOT)} (from {seed.name}): {wrong}", flush=True)
    print(f"stat::number_of_executed_units: {executions}")
    sys.exit(found > 0)


main()
