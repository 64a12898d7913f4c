"""Checks prism on a GPU: against its own CPU run, against PyTorch, its speed, memory and errors.

    python check.py all BUNDLE OUT        everything; run.sh calls this

Each check is by itself: what fails is a row of the table, and the others go on. Networks are torchvision's
with seeded weights, made here. The other commands (make, truth, speed, hold) are parts that run as processes of their own.
A program prism_before in the bundle is compared with prism in speed.
"""
import concurrent.futures
import glob
import json
import os
import pathlib
import subprocess
import sys
import tempfile
import threading
import time
import traceback

DEVICE = os.environ.get("DEVICE", "cuda")
ON_GPU = DEVICE != "cpu"
SECONDS = float(os.environ.get("SECONDS_LIMIT", 345))  # of all checks; what does not fit is left out
BEGUN = time.monotonic()
CLOSE = 1e-3  # largest difference to the CPU, in units of the largest value
FEW, MANY = (128, 384) if ON_GPU else (4, 8)  # images of the two runs whose difference is a speed
HALVED = 512  # images at once that do not fit on a full GPU
BATCHES = (4, 32, 128) if ON_GPU else (2, 4)
METHODS = ("none", "gradcam", "exct-backp")
# How each network is given to prism: a file of TorchScript, or the name of a network with weights.
NETWORKS = {
    "efficientnet_lite0": "weights",
    "resnet18": "scripted",
    "mobilenet_v2": "traced",
    "squeezenet1_1": "scripted",
    "vgg11": "weights",
    "densenet121": "weights",
    "convnext_tiny": "traced",
    "makes_tensors": "scripted",
}
SPEED_NETWORKS = {"resnet50": "weights"}


# ---- networks ---------------------------------------------------------------------------------


def build(name):
    """A network in inference mode, with seeded weights and the statistics of a few batches."""
    import torch
    import torchvision

    torch.manual_seed(0)
    network = MakesTensors() if name == "makes_tensors" else getattr(torchvision.models, name)(weights=None)
    with torch.no_grad():
        for _ in range(3):  # batch-norms take the statistics of these
            network.train()(torch.randn(8, 3, 96, 96))
    return network.eval()


def MakesTensors():
    """A network that makes tensors in its forward pass without naming a device."""
    import torch

    class Module(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.first = torch.nn.Conv2d(3, 16, 3, 2, 1)
            self.second = torch.nn.Conv2d(16, 32, 3, 2, 1)
            self.scores = torch.nn.Linear(32, 10)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = torch.relu(self.first(x))
            rows = torch.linspace(0.5, 1.5, x.size(2)).view(1, 1, -1, 1)
            order = torch.arange(x.size(1) - 1, -1, -1)
            x = torch.relu(self.second((x * rows)[:, order]))
            return self.scores(x.mean([2, 3])) + torch.tensor([1.0, 2.0]).sum()

    return Module()


def make(folder):
    """Writes the networks into `folder`."""
    import torch

    torch.set_num_threads(max(1, (os.cpu_count() or 4) // 2))
    for name, form in {**NETWORKS, **SPEED_NETWORKS}.items():
        if name == "efficientnet_lite0":
            continue
        network = build(name)
        part = f"{file_of(name, folder)}.part"
        if form == "weights":
            torch.save(network.state_dict(), part)
        elif form == "scripted":
            torch.jit.script(network).save(part)
        else:
            with torch.no_grad():
                torch.jit.trace(network, torch.rand(1, 3, 224, 224)).save(part)
        os.rename(part, file_of(name, folder))


def file_of(name, folder):
    form = {**NETWORKS, **SPEED_NETWORKS}[name]
    return f"{folder}/{name}.{'pth' if form == 'weights' else 'pt'}"


# ---- prism ------------------------------------------------------------------------------------


def libraries():
    """The folders of libtorch and of what it loads."""
    if "LIBTORCH" in os.environ:
        torch = pathlib.Path(os.environ["LIBTORCH"])
        site = pathlib.Path(os.environ.get("NVIDIA", torch.parent / "nvidia"))
    else:
        import torch as module

        torch = pathlib.Path(module.__file__).parent
        site = torch.parent / "nvidia"
    return [str(torch / "lib"), *sorted(glob.glob(f"{site}/*/lib"))]


class Prism:
    def __init__(self, bundle, work):
        self.bundle, self.work = bundle, work
        self.environment = {**os.environ, "LD_LIBRARY_PATH": ":".join(libraries()), "RUST_BACKTRACE": "0"}
        self.samples = sorted(glob.glob(f"{bundle}/samples/*.jpg"))
        for count in (FEW, MANY):  # folders with copies of them
            folder = pathlib.Path(f"{work}/photographs_{count}")
            folder.mkdir()
            for i in range(count):
                (folder / f"{i:04}.jpg").symlink_to(self.samples[i % len(self.samples)])

    def network(self, name):
        if name == "efficientnet_lite0":
            return ["--model", name, "--weights", f"{self.bundle}/efficientnet_lite0.pth"]
        file = file_of(name, self.work)
        return ["--model", file] if file.endswith(".pt") else ["--model", name, "--weights", file]

    def run(self, tag, arguments, device=None, seconds=60, program="prism", **environment):
        """Runs prism; the result has its exit status, its lines on standard error and, if it worked, its summary and arrays."""
        base = f"{self.work}/{tag}"
        command = [f"{self.bundle}/{program}", *arguments, "--device", device or DEVICE]
        if arguments[0] != "layers":
            command += ["--output-dir", base, "--json", f"{base}.json"]
        begin = time.monotonic()
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=seconds, env={**self.environment, **environment})
            code, lines = done.returncode, [line for line in done.stderr.splitlines() if not line.startswith("prism: wrote ")]
        except subprocess.TimeoutExpired:
            code, lines = "timeout", [f"not done after {seconds} s"]
        took = time.monotonic() - begin
        print(f"[{time.monotonic() - BEGUN:6.1f}] {code} {took:5.1f} s  {tag}: {' | '.join(lines[-3:])[:300]}")
        result = {"code": code, "lines": lines, "took": took, "json": {}, "base": base}
        if code == 0 and os.path.exists(f"{base}.json"):
            result["json"] = json.loads(pathlib.Path(f"{base}.json").read_text())
        return result

    def arrays(self, tag, arguments, device=None, **more):
        import numpy

        result = self.run(tag, [*arguments, "--save-arrays", f"{self.work}/{tag}.npz"], device, **more)
        result["arrays"] = dict(numpy.load(f"{self.work}/{tag}.npz")) if result["code"] == 0 else {}
        return result


def difference(a, b):
    """The largest difference of two arrays, in units of the largest value."""
    import numpy

    if a.shape != b.shape:
        return float("inf")
    return float(numpy.abs(a.astype("f8") - b).max() / max(numpy.abs(b).max(), 1e-30))


# ---- the table --------------------------------------------------------------------------------


class Table:
    def __init__(self, out):
        self.out, self.rows, self.lock = pathlib.Path(out), [], threading.Lock()

    def add(self, part, what, value, ok=None, note=""):
        """`ok` is None for a number that is only reported."""
        with self.lock:
            self.rows.append({"part": part, "what": what, "value": value, "ok": ok, "note": str(note)[:600]})
            self.write()

    def write(self):
        (self.out / "results.json").write_text(json.dumps(self.rows, indent=1))
        bad = [row for row in self.rows if row["ok"] is False]
        lines = [f"{len(self.rows)} rows, {len(bad)} failed, {time.monotonic() - BEGUN:.0f} s.", ""]
        for rows, head in ((bad, "failed"), (self.rows, "all")):
            lines += ["", f"## {head}", "", "| part | what | value | | note |", "|---|---|---|---|---|"]
            for row in rows:
                mark = {None: "", True: "ok", False: "**FAILED**"}[row["ok"]]
                value = f"{row['value']:.3g}" if isinstance(row["value"], float) else str(row["value"])
                note = row["note"].replace("|", "\\|").replace("\n", " ")
                lines.append(f"| {row['part']} | {row['what']} | {value} | {mark} | {note} |")
        (self.out / "results.md").write_text("\n".join(lines) + "\n")


def left():
    return SECONDS - (time.monotonic() - BEGUN)


def child(part, *arguments, seconds=60):
    """Runs a part of this file as a process of its own, and returns the JSON it prints last."""
    seconds = max(5, min(seconds, left()))
    done = subprocess.run([sys.executable, __file__, part, *map(str, arguments)], capture_output=True, text=True, timeout=seconds)
    sys.stdout.write(done.stdout + done.stderr[-3000:])
    if done.returncode != 0:
        raise RuntimeError(f"{part}: {done.stderr.strip().splitlines()[-1:]}")
    return json.loads(done.stdout.strip().splitlines()[-1]) if done.stdout.strip() else None


# ---- checks -----------------------------------------------------------------------------------


def machine(prism, table):
    def said(command, **more):
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, **more)
        return (done.stdout + done.stderr).strip()

    if ON_GPU:
        table.add("machine", "GPU", said(["nvidia-smi", "--query-gpu=name,driver_version,memory.total", "--format=csv,noheader"]))
    table.add("machine", "cores", os.cpu_count())
    version = subprocess.run([f"{prism.bundle}/prism", "--version"], capture_output=True, text=True, env=prism.environment, timeout=120)
    table.add("machine", "prism --version", version.stdout.strip(), version.returncode == 0, version.stderr)
    missing = [line for line in said(["ldd", f"{prism.bundle}/prism"], env=prism.environment).splitlines() if "not found" in line]
    table.add("machine", "libraries not found", len(missing), not missing, missing)


def first_run(prism, table):
    """Whether it runs at all, twice: the first run reads the libraries from the disk."""
    for run in ("first", "second"):
        result = prism.run(f"{run}_run", [*prism.network("efficientnet_lite0"), "--verbose", "--input", *prism.samples], seconds=120)
        device = result["json"].get("device")
        ok = result["code"] == 0 and device == ("cuda:0" if ON_GPU else "cpu")
        table.add("first run", f"{run}: seconds", result["took"], ok, f"{device}; {' / '.join(result['lines'][-1:])}")
        table.add("first run", f"{run}: stages", json.dumps(result["json"].get("seconds")))
    # What lies beside libtorch is found without a path to it.
    alone = prism.run("libtorch_alone", [*prism.network("efficientnet_lite0"), "--input", *prism.samples], LD_LIBRARY_PATH=libraries()[0])
    table.add("first run", "with a path to libtorch alone", alone["code"], alone["code"] == 0, alone["lines"])
    result = prism.run("layers", ["layers", *prism.network("efficientnet_lite0")])
    table.add("first run", "prism layers", result["code"], result["code"] == 0, result["lines"])


def accuracy(prism, table, name, method):
    """Scores, features, saliency and maps against the CPU's."""
    part = f"{name}, {method}"
    arguments = [*prism.network(name), "--saliency", method, "--threads", "3", "--input", *prism.samples]
    cpu = prism.arrays(f"{name}_{method}_cpu", arguments, "cpu", seconds=90)
    gpu = prism.arrays(f"{name}_{method}_gpu", arguments, seconds=60)
    if cpu["code"] != 0 or gpu["code"] != 0:
        same = cpu["code"] == gpu["code"] and cpu["lines"][-1:] == gpu["lines"][-1:]
        table.add(part, "exit status CPU, GPU", f"{cpu['code']}, {gpu['code']}", same, gpu["lines"])
        return
    words = [line for line in gpu["lines"] if not line.startswith("prism: ")]
    if words:
        table.add(part, "lines that are not prism's", len(words), False, words)
    if gpu["lines"] != cpu["lines"]:
        table.add(part, "other remarks than on the CPU", len(gpu["lines"]), None, gpu["lines"])
    for key, limit in (("logits", CLOSE), ("features", CLOSE), ("saliency", CLOSE), ("variance_ratio", CLOSE), ("maps", 1e-2)):
        if key in cpu["arrays"]:
            off = difference(gpu["arrays"][key], cpu["arrays"][key])
            table.add(part, key, off, off < limit, f"limit {limit:g}")
    same = gpu["arrays"]["logits"].argmax(1).tolist() == cpu["arrays"]["logits"].argmax(1).tolist()
    table.add(part, "same top classes", same, same)
    expected = f"{prism.bundle}/expected_{method}.npz"
    if name == "efficientnet_lite0" and os.path.exists(expected):
        import numpy

        for key, array in numpy.load(expected).items():
            off = difference(gpu["arrays"][key], array)
            table.add(part, f"{key}, against the arrays in the bundle", off, off < CLOSE)
    if method == "none":
        again = prism.arrays(f"{name}_again", arguments, seconds=60)
        if again["code"] == 0:
            table.add(part, "features of a second run", difference(again["arrays"]["features"], gpu["arrays"]["features"]))
        for precision, limit, device in (("bf16", 0.2, "cpu"), ("bf16", 0.2, DEVICE), ("f16", 0.02, DEVICE))[: 3 if ON_GPU else 1]:
            if name in ("efficientnet_lite0", "resnet18", "mobilenet_v2", "vgg11", "densenet121"):
                rounded = prism.arrays(f"{name}_{precision}_{device}", [*arguments, "--precision", precision], device, seconds=90)
                for key in ("logits", "features") if rounded["code"] == 0 else ():
                    off = difference(rounded["arrays"][key], cpu["arrays"][key])
                    ok = off < limit if key == "logits" else off < limit or None  # rounding may turn components
                    table.add(part, f"{key} of {precision} on {device}, against f32 on the CPU", off, ok)
                if rounded["code"] != 0:
                    table.add(part, f"{precision} on {device}", rounded["code"], False, rounded["lines"])


# The numbers of a seed differ between devices.
RANDOM = {"loading_Random"}
# Layers with 8-bit weights are refused on a GPU.
EIGHT_BITS = {"loading_DynamicInt8", "loading_Quantised", "loading_QuantisedScripted"}


def small_network(prism, table, file):
    """A small network on both devices: the same scores, or the same refusal."""
    name = pathlib.Path(file).stem
    stored = [array for array in glob.glob(f"{prism.bundle}/networks/*.npz") if name.startswith(pathlib.Path(array).stem)]
    images = ["--input", *stored] if stored else ["--image-size", "64", "--input", *prism.samples[:4]]
    arguments = ["--model", file, "--threads", "2", *images]
    cpu = prism.arrays(f"small_{name}_cpu", arguments, "cpu", seconds=40)
    gpu = prism.arrays(f"small_{name}_gpu", arguments, seconds=40)
    if name in EIGHT_BITS and ON_GPU:
        table.add("small networks", name, gpu["code"], one_line(gpu, 1, ["8-bit weights"]), gpu["lines"])
        return
    if cpu["code"] != 0 or gpu["code"] != 0:
        same = cpu["code"] == gpu["code"] and cpu["lines"][-1:] == gpu["lines"][-1:]
        table.add("small networks", name, f"exit status {cpu['code']}, {gpu['code']}", same, gpu["lines"])
        return
    off = {key: difference(gpu["arrays"][key], cpu["arrays"][key]) for key in ("logits", "features")}
    if name in RANDOM and ON_GPU:
        table.add("small networks", name, max(off.values()), any("random" in line for line in gpu["lines"]), gpu["lines"])
        return
    remarks = gpu["lines"] == cpu["lines"]
    note = "" if remarks else f"other remarks: {gpu['lines']} / {cpu['lines']}"
    table.add("small networks", name, max(off.values()), max(off.values()) < CLOSE and remarks, f"{off} {note}")


def one_line(result, code, words):
    """Whether prism ended with one line that has these words."""
    foreign = [line for line in result["lines"] if not line.startswith("prism: ")]
    errors = [line for line in result["lines"] if line.startswith("prism: error: ")]
    plain = len(errors) == 1 and not foreign and len(errors[0]) <= 300
    return result["code"] == code and plain and all(word in errors[0] for word in words)


def errors(prism, table):
    samples = [*prism.network("resnet18"), "--input", *prism.samples]
    half = prism.run("f16_on_cpu", [*samples, "--precision", "f16"], "cpu")
    table.add("errors", "f16 on the CPU", half["code"], one_line(half, 2, ["float16"]), half["lines"])
    half = prism.run("f16_hidden", [*samples, "--precision", "f16"], "auto", CUDA_VISIBLE_DEVICES="")
    table.add("errors", "f16, no visible GPU, --device auto", half["code"], one_line(half, 2, ["float16"]), half["lines"])
    other = prism.run("no_such_gpu", samples, "cuda:9")
    table.add("errors", "cuda:9", other["code"], one_line(other, 1, ["cuda:9"]), other["lines"])
    hidden = prism.run("hidden_gpu", samples, "cuda", CUDA_VISIBLE_DEVICES="")
    table.add("errors", "no visible GPU, --device cuda", hidden["code"], one_line(hidden, 1, ["no CUDA device"]), hidden["lines"])
    auto = prism.run("hidden_auto", [*samples, "--verbose"], "auto", CUDA_VISIBLE_DEVICES="")
    ok = auto["code"] == 0 and any("the CPU, because there is no CUDA device" in line for line in auto["lines"])
    table.add("errors", "no visible GPU, --device auto", auto["json"].get("device"), ok, auto["lines"][:1])
    auto = prism.run("auto", samples, "auto")
    table.add("errors", "--device auto", auto["json"].get("device"), auto["json"].get("device") == ("cuda:0" if ON_GPU else "cpu"))
    if not ON_GPU:
        return
    # Another process holds the GPU's memory up to what is left here.
    few = ["--input", f"{prism.work}/photographs_{FEW}"]
    cases = (
        (3500, [*prism.network("resnet50"), "--batch-size", str(FEW), *few], "128 images at once"),
        (2000, [*prism.network("resnet50"), *few], "the default number of images at once"),
        (2500, [*prism.network("vgg11"), "--batch-size", str(HALVED), *few], "vgg11"),
        (600, [*prism.network("vgg11"), *few], "no room for the network"),
        (60, samples, "a full GPU"),
    )
    for free, arguments, what in cases:
        hold = subprocess.Popen([sys.executable, __file__, "hold", str(free)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        try:
            held = hold.stdout.readline().strip()
            result = prism.arrays(f"full_{free}", arguments, seconds=60)
            lines = [line for line in result["lines"] if "memory is not enough" in line]
            if free < 1000:
                ok = one_line(result, 1, ["memory is not enough on the GPU"])
            else:  # halved, with the same scores, or it did not need to be
                ok = result["code"] == 0 and len(lines) <= 1
                table.add("full GPU", f"{what} ({free} MiB free): halved", len(lines), None, lines)
            table.add("full GPU", f"{what} ({free} MiB free)", result["code"], ok, f"{result['lines'][-2:]}; {held}")
            reference = pathlib.Path(f"{prism.work}/vgg11_none_gpu.npz")
            if what == "vgg11" and result["code"] == 0 and reference.exists():
                import numpy

                scores = numpy.load(reference)["logits"]
                off = difference(result["arrays"]["logits"][: len(scores)], scores)
                table.add("full GPU", "vgg11: scores, against those with room", off, off < CLOSE)
                off = difference(result["arrays"]["logits"][-len(scores) :], result["arrays"]["logits"][FEW - 2 * len(scores) : FEW - len(scores)])
                table.add("full GPU", "vgg11: scores of the last images, against the same images before", off, off < CLOSE)
        finally:
            hold.stdin.close()
            hold.wait(20)


class Memory:
    """The most memory in use on the GPU, read every 50 ms."""

    def __enter__(self):
        self.most, self.first = 0, None
        if ON_GPU:
            query = ["nvidia-smi", "--query-gpu=memory.used", "--format=csv,noheader,nounits", "-lms", "50"]
            self.reader = subprocess.Popen(query, stdout=subprocess.PIPE, text=True)
            self.first = self.most = int(self.reader.stdout.readline())
            threading.Thread(target=self.read, daemon=True).start()
        return self

    def read(self):
        for line in self.reader.stdout:
            if line.strip().isdigit():
                self.most = max(self.most, int(line))

    def __exit__(self, *_):
        if ON_GPU:
            self.reader.terminate()


def prism_speed(prism, table):
    """Images a second of passes, in one process (gpu_speed)."""
    for network, precisions in (("resnet50", ("f32", "bf16", "f16") if ON_GPU else ("f32",)), ("efficientnet_lite0", ("f32",))):
        weights = f"{prism.bundle}/efficientnet_lite0.pth" if network == "efficientnet_lite0" else file_of(network, prism.work)
        for precision in precisions:
            command = [f"{prism.bundle}/gpu_speed", network, weights, precision, *map(str, BATCHES)]
            done = subprocess.run(command, capture_output=True, text=True, timeout=max(10, min(90, left())), env=prism.environment)
            for line in done.stdout.splitlines():
                rates = json.loads(line)
                for key, rate in rates.items():
                    if key != "batch":
                        share = f"{rate / rates['bare']:.2f} of bare, {rate / rates['bare, images on the device']:.2f} of that on the device"
                        table.add("speed", f"prism: {network}, {precision}, {key}, batch {rates['batch']}, images/s", rate, None, share)
            if done.returncode != 0:
                table.add("speed", f"gpu_speed {network} {precision}", done.returncode, False, done.stderr)


def run_speed(prism, table):
    """Whole runs: the difference of a short and a long one, so that start and warm-up fall out."""
    import numpy

    inputs = prism.arrays("input", [*prism.network("resnet50"), "--input", *prism.samples])["arrays"]["input"]
    photographs, arrays = {}, {}
    for count in (FEW, MANY):
        copies = numpy.concatenate([inputs] * (count // len(inputs) + 1))[:count]
        arrays[count] = [f"{prism.work}/input_{count}.npz"]
        numpy.savez(arrays[count][0], input=copies)
        photographs[count] = [f"{prism.work}/photographs_{count}"]

    def measure(network, options, files, device=None, program="prism"):
        kind = "photographs" if files is photographs else "arrays"
        label = f"{program}: {network}, {kind}, {' '.join(options) or 'default batch'}{', CPU' if device else ''}"
        if left() < 15:
            table.add("speed", label, "left out: no time")
            return
        stages, most, took = {}, 0, {}
        for count in (FEW, MANY):
            arguments = [*prism.network(network), *options, "--memory", "8G", "--input", *files[count]]
            with Memory() as memory:
                result = prism.run("speed", arguments, device, seconds=60, program=program)
            if result["code"] != 0:
                table.add("speed", label, result["code"], False, result["lines"])
                return
            stages[count], took[count] = result["json"]["seconds"], result["took"]
            most = memory.most - (memory.first or 0)
        few, many = stages
        more = {stage: stages[many][stage] - stages[few][stage] for stage in stages[few]}
        per = {stage: f"{1000 * seconds / (many - few):.2f}" for stage, seconds in more.items()}
        network_ms = 1000 * (more["forwarding"] + more["collecting"]) / (many - few)
        table.add("speed", f"{label}: forwarding and collecting of a further image, ms", network_ms, None, f"ms of a further image: {per}; GPU memory {most} MiB")
        table.add("speed", f"{label}: images/s of everything", (many - few) / max(1e-9, took[many] - took[few]), None,
                  f"{many} images: {took[many]:.1f} s; {stages[many]}")  # fmt: skip

    programs = ["prism", "prism_before"] if os.path.exists(f"{prism.bundle}/prism_before") else ["prism"]
    for program in programs:
        measure("resnet50", [], photographs, program=program)
    for program in programs:
        measure("resnet50", ["--batch-size", str(BATCHES[-1])], arrays, program=program)
    measure("resnet50", ["--precision", "f16" if ON_GPU else "bf16"], photographs)
    measure("efficientnet_lite0", [], photographs)
    measure("resnet50", ["--saliency", "gradcam"], arrays)
    measure("resnet50", ["--saliency", "exct-backp"], arrays)
    if ON_GPU:
        measure("resnet50", [], photographs, "cpu")


# ---- parts that run as processes of their own -------------------------------------------------


def truth(work):
    """Scores against PyTorch in float64: of prism on both devices, and of PyTorch with and without TF32."""
    import numpy
    import torch

    torch.set_num_threads(min(8, os.cpu_count() or 1))
    found = {}
    for name in NETWORKS:
        if name in ("efficientnet_lite0", "makes_tensors"):
            continue
        try:
            runs = {key: numpy.load(f"{work}/{name}_none_{key}.npz") for key in ("cpu", "gpu")}
            network = build(name).to(DEVICE)
            images = torch.from_numpy(runs["cpu"]["input"]).to(DEVICE)
            with torch.no_grad():
                found[name] = {}
                scores = {}
                for tf32 in (False, True):
                    torch.backends.cudnn.allow_tf32 = tf32
                    scores[f"PyTorch, TF32 {'on' if tf32 else 'off'}"] = network(images).cpu().numpy()
                exact = network.double()(images.double()).cpu().numpy()
            scores |= {f"prism on the {key.upper()}": run["logits"] for key, run in runs.items()}
            found[name] = {key: difference(array, exact) for key, array in scores.items()}
        except Exception as error:
            found[name] = {"error": repr(error)[:200]}
    print(json.dumps(found))


def speed(network_name):
    """Images a second of PyTorch: the bare forward pass, and with forward hooks on twelve blocks."""
    import torch

    def quarters(value):
        return torch.stack([part.mean(1) for part in value.relu().chunk(4, 1)], 1)

    torch.backends.cudnn.allow_tf32 = False
    name = network_name
    network = build(name).to(DEVICE)
    blocks = [m for n, m in network.named_modules() if type(m).__name__ in ("Bottleneck", "BasicBlock", "InvertedResidual")][-12:]
    kept = []

    def hook(module, _, output):
        kept.append(output if module is blocks[-1] else quarters(output))

    def rate(batch, hooked, transfer, kind, last=False):
        layout = torch.channels_last if last else torch.contiguous_format
        model = network.to(kind).to(memory_format=layout)
        handles = [block.register_forward_hook(hook) for block in blocks] if hooked else []
        images = torch.rand(batch, 3, 224, 224)
        if not transfer:
            images = images.to(DEVICE, kind).to(memory_format=layout)

        def once():
            kept.clear()
            scores = model(images.to(DEVICE, kind).to(memory_format=layout))
            made = [scores, *kept]
            return [value.float().cpu() for value in made] if transfer else made

        sync = torch.cuda.synchronize if ON_GPU else lambda: None
        with torch.no_grad():
            once()
            once()
            sync()
            rounds, begin = 0, time.perf_counter()
            while rounds < 2 or time.perf_counter() - begin < (0.5 if ON_GPU else 0.1):
                once()
                sync()
                rounds += 1
            seconds = time.perf_counter() - begin
        for handle in handles:
            handle.remove()
        return rounds * batch / seconds

    found = {}
    for batch in BATCHES:
        for label, options in {
            "bare forward pass, images on the device": (False, False, torch.float),
            "bare forward pass": (False, True, torch.float),
            "forward hooks": (True, True, torch.float),
            "bare forward pass, f16, images on the device": (False, False, torch.half),
            "bare forward pass, f16": (False, True, torch.half),
            "forward hooks, f16": (True, True, torch.half),
            "forward hooks, f16, channels last": (True, True, torch.half, True),
        }.items():
            found[f"{label}, batch {batch}"] = rate(batch, *options)
    torch.backends.cudnn.allow_tf32 = True
    found[f"bare forward pass, TF32, images on the device, batch {BATCHES[-1]}"] = rate(BATCHES[-1], False, False, torch.float)
    print(json.dumps(found))


def hold(free):
    """Takes the GPU's memory but for `free` MiB, until standard input ends."""
    import torch

    held = []
    for step in (1 << 30, 64 << 20, 8 << 20):
        while torch.cuda.mem_get_info()[0] - step > int(free) << 20:
            held.append(torch.empty(step, dtype=torch.uint8, device="cuda"))
    print(f"{torch.cuda.mem_get_info()[0] >> 20} MiB are free", flush=True)
    sys.stdin.read()


# ---- all --------------------------------------------------------------------------------------


def everything(bundle, out):
    table = Table(out)
    work = tempfile.mkdtemp(prefix="gpu-check.")

    def step(function, *arguments):
        try:
            function(*arguments)
        except Exception as error:
            traceback.print_exc()
            table.add("the check itself", f"{function.__name__} {arguments[2:]}", "failed", False, repr(error))

    prism = Prism(bundle, work)
    making = subprocess.Popen([sys.executable, __file__, "make", work])
    step(machine, prism, table)
    step(first_run, prism, table)
    try:
        made = making.wait(100)
    except subprocess.TimeoutExpired:
        making.kill()
        made = "not done after 100 s"
    table.add("machine", "networks made by torchvision", made, made == 0, f"after {time.monotonic() - BEGUN:.0f} s")

    with concurrent.futures.ThreadPoolExecutor(8 if ON_GPU else 1) as pool:
        for name in NETWORKS:
            for method in METHODS:
                pool.submit(step, accuracy, prism, table, name, method)
    step(errors, prism, table)

    def against_truth():
        for name, found in child("truth", work, seconds=60 if ON_GPU else 300).items():
            for key, value in found.items():
                table.add("scores against float64", f"{name}: {key}", value, key != "error" and value < CLOSE if "prism" in key else None)

    step(against_truth)

    def pytorch_speed():
        for key, value in child("speed", "resnet50", seconds=60 if ON_GPU else 200).items():
            table.add("speed", f"PyTorch: resnet50, {key}, images/s", value)

    step(pytorch_speed)
    step(prism_speed, prism, table)

    def small(prism, table, file):
        if left() > 10:
            small_network(prism, table, file)

    files = sorted(glob.glob(f"{bundle}/networks/*.pt"))
    with concurrent.futures.ThreadPoolExecutor(10 if ON_GPU else 1) as pool:
        for file in files:
            pool.submit(step, small, prism, table, file)
    count = sum(row["part"] == "small networks" for row in table.rows)
    table.add("small networks", "compared", f"{count} of {len(files)}")
    step(run_speed, prism, table)
    for row in table.rows:
        if row["part"] == "speed" or row["ok"] is False:
            print(row["ok"], row["part"], row["what"], row["value"], row["note"][:200], sep=" | ")
    print(f"done after {time.monotonic() - BEGUN:.0f} s")


if __name__ == "__main__":
    {"all": everything, "make": make, "truth": truth, "speed": speed, "hold": hold}[sys.argv[1]](*sys.argv[2:])
