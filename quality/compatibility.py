"""Tests prism on every family of CNN classifiers of torchvision and timm: scripted, traced and by torch.export.

    python quality/compatibility.py FOLDER --prism target/release/prism [--page docs/compatibility.md] [--only NAME ...]
        [--files scripted traced exported onnx onnx_export decomposed] [--resume]

Each network gets seeded random weights (batch-norm statistics from one pass over noise). models/export.py writes it,
and `prism` runs on it with three photographs of samples/. A file works if prism ends with status 0, its map and class
scores are finite, the map is not constant, and the analysed activation is the expected one: its PCA has the same
variances as that of the final activation in eager PyTorch for the same input (named by hand for torchvision; for
timm, `forward_features`). Some of these untrained networks amplify rounding, so the comparison is with eager float64
and allows three times the error of eager float32. Vision transformers must be refused in one sentence.

The scores and the map of a `.pt2` file must also be those of the TorchScript file. A sample of networks is exported
once more as `run_decompositions()` leaves them (core ATen), and of another both saliency methods are compared.

The same holds for ONNX files, by both exporters of torch.

Rows are stored in FOLDER/rows.json; --resume reuses what is there of them. A full run takes two hours.

Needs torch, torchvision, timm, numpy, onnx and onnxscript.
"""
import argparse
import contextlib
import copy
import io
import json
import logging
import re
import subprocess
import sys
import time
import warnings
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

import pages

ROOT = Path(__file__).resolve().parent.parent
PHOTOGRAPHS = [ROOT / "samples" / f"{name}.jpg" for name in ("cat", "cow", "dog")]
SEED = 1
LIMIT = 600  # seconds that prism may take
AGREEMENT = 1e-3  # of the variance ratios
SCORES = 1e-4  # of the largest score: .pt2 against TorchScript
MAPS = 1e-2  # of the range of the map: .pt2 against TorchScript
SALIENCY = 1e-3  # of the largest saliency: .pt2 against TorchScript

# The kinds of files, and how models/export.py says that it wrote them.
SCRIPTS = ("scripted", "traced")
ONNX = ("onnx", "onnx_export")  # by the exporter that traces, and by torch.export
FILES = (*SCRIPTS, "exported", *ONNX, "decomposed")

# Network of torchvision -> the module whose output is the final activation.
TORCHVISION = {
    "alexnet": "features", "convnext_tiny": "features", "densenet121": "features", "efficientnet_b0": "features",
    "efficientnet_v2_s": "features", "googlenet": "inception5b", "inception_v3": "Mixed_7c", "mnasnet0_5": "layers",
    "mnasnet1_0": "layers", "mobilenet_v2": "features", "mobilenet_v3_large": "features",
    "mobilenet_v3_small": "features", "regnet_x_400mf": "trunk_output", "regnet_y_400mf": "trunk_output",
    "resnet18": "layer4", "resnet50": "layer4", "resnext50_32x4d": "layer4", "shufflenet_v2_x0_5": "conv5",
    "shufflenet_v2_x1_0": "conv5", "squeezenet1_0": "features", "squeezenet1_1": "features", "vgg11": "features",
    "vgg11_bn": "features", "wide_resnet50_2": "layer4",
}  # fmt: skip
# The final activation of these is a function's, not a module's.
BEHIND = {"densenet121": F.relu}

TIMM = [
    "convmixer_768_32", "convnext_atto", "convnextv2_atto", "cs3darknet_s", "csatv2", "cspdarknet53", "cspnext_tiny",
    "cspresnet50", "dla34", "dpn48b", "eca_nfnet_l0", "edgenext_xx_small", "efficientnet_lite0", "efficientvit_b0",
    "ese_vovnet19b_dw", "fasternet_t0", "fbnetc_100", "fbnetv3_b", "focalnet_tiny_srf", "gernet_s", "ghostnet_050",
    "ghostnetv2_100", "hardcorenas_a", "hgnetv2_b0", "hrnet_w18_small", "inception_next_atto", "inception_resnet_v2",
    "inception_v4", "lcnet_050", "lcnetv2_small", "legacy_seresnet18", "legacy_xception", "mixnet_s", "mnasnet_small",
    "mobilenet_edgetpu_v2_xs", "mobilenetv1_100", "mobilenetv4_conv_small", "mobileone_s0", "nasnetalarge",
    "nf_regnet_b0", "nf_resnet26", "pnasnet5large", "poolformerv2_s12", "rdnet_tiny", "regnetz_005", "regnetz_b16",
    "repghostnet_050", "repvgg_a0", "repvit_m0_9", "res2net50_48w_2s", "resnest14d", "resnet10t", "resnetaa50",
    "resnetblur18", "resnetv2_18", "rexnet_100", "selecsls42b", "semnasnet_050", "seresnext26t_32x4d", "skresnet18",
    "spnasnet_100", "starnet_s1", "tf_efficientnet_b0", "tf_efficientnetv2_b0", "tf_mobilenetv3_small_minimal_100",
    "tinynet_e", "tresnet_m", "vgg11_bn", "xception41",
]  # fmt: skip
# Convolutions with other ways to mix pixels, and activations [N,h,w,C].
TIMM += [
    "botnet26t_256", "caformer_s18", "coatnet_nano_rw_224", "convformer_s18", "cpubone_b0_bfrobust",
    "efficientformerv2_s0", "efficientvit_m0", "fastvit_sa12", "fastvit_t8", "gcvit_xxtiny", "halonet26t", "iformer_t",
    "lambda_resnet26t", "levit_conv_128s", "lowformer_b0", "mambaout_femto", "maxvit_nano_rw_256",
    "mobilenetv4_hybrid_medium", "mobilevit_xxs", "mobilevitv2_050", "nextvit_small", "pvt_v2_b0", "shvit_s1",
    "swiftformer_xs", "tiny_vit_5m_224", "visformer_tiny",
]  # fmt: skip
# The published MobileNetV3 of "once for all": pooling in two steps, then a convolution.
OFA = "ofa.imagenet_classification.networks:MobileNetV3Large"
# Operations of these networks between `forward_features` and their pooling.
HEADS = {
    "cpubone_b0_bfrobust": lambda network, final: network.head.in_conv(final),
    "efficientvit_b0": lambda network, final: network.head.in_conv(final),
    "lowformer_b0": lambda network, final: network.in_conv(final),
    "mambaout_femto": lambda network, final: final.permute(0, 3, 1, 2),
}
# More attention than convolutions: refused in one sentence.
TRANSFORMERS = ["timm:deit_tiny_patch16_224", "timm:swin_tiny_patch4_window7_224", "timm:vit_tiny_patch16_224", "torchvision:swin_t", "torchvision:vit_b_16"]


# Also exported as run_decompositions() leaves them.
DECOMPOSED = [
    "torchvision:convnext_tiny", "torchvision:densenet121", "torchvision:efficientnet_b0", "torchvision:googlenet",
    "torchvision:mobilenet_v3_small", "torchvision:regnet_y_400mf", "torchvision:resnet18",
    "torchvision:shufflenet_v2_x0_5", "torchvision:squeezenet1_1", "torchvision:vgg11_bn", "timm:ghostnet_050",
    "timm:hgnetv2_b0", "timm:mobileone_s0", "timm:poolformerv2_s12", "timm:res2net50_48w_2s",
]  # fmt: skip
# Their saliency is compared, too.
EXPLAINED = [
    "torchvision:convnext_tiny", "torchvision:densenet121", "torchvision:efficientnet_b0", "torchvision:googlenet",
    "torchvision:mobilenet_v2", "torchvision:resnet18", "torchvision:shufflenet_v2_x0_5", "torchvision:squeezenet1_1",
    "torchvision:vgg11", "timm:hrnet_w18_small",
]  # fmt: skip
METHODS = {"gradcam": "Grad-CAM", "exct-backp": "excitation backpropagation"}


def load_exporter():
    sys.path.insert(0, str(ROOT / "python"))
    from prism_cnn import export

    return export


def options_for(network):
    return SimpleNamespace(network=network, weights=None, state_dict=None, arguments="{}", image_size=None, mean=None, std=None,
                           labels=None)  # fmt: skip


def choices_for(exporter, network, how, output):
    return exporter.Choices(network, "", output, "torchscript" if how in SCRIPTS else "pt2", how == "traced")


@torch.no_grad()
def settle(network, size):
    """Statistics of batch-norms as after training: those of what goes through, so that nothing explodes or dies."""
    norms = [module for module in network.modules() if isinstance(module, nn.modules.batchnorm._BatchNorm)]
    for norm in norms:
        norm.momentum = None
        norm.train()
    if norms:
        network(torch.randn(4, 3, *size))
    return network.eval()


class Expected:
    """The final activation of the eager network."""

    def __init__(self, network, source, name):
        self.network, self.source, self.name, self.facts = network, source, name, None

    @torch.no_grad()
    def activation(self, images):
        network = self.network if images.dtype == torch.float32 else copy.deepcopy(self.network).double()
        if self.source == "timm":
            final = network.forward_features(images)
            return HEADS.get(self.name, lambda _network, tensor: tensor)(network, final)
        seen = []
        module = network.get_submodule("final_expand_layer" if self.source.startswith("ofa") else TORCHVISION[self.name])
        handle = module.register_forward_hook(lambda _module, _inputs, output: seen.append(output.clone()))
        network(images)
        handle.remove()
        return BEHIND.get(self.name, lambda tensor: tensor)(seen[0])

    def __call__(self, images):
        """Its shape, and its variance ratios in float64 and in float32. Every file of a network gets the same images."""
        if self.facts is None:
            wanted = self.activation(images.double())
            shape = "x".join(str(n) for n in wanted.shape[1:])
            self.facts = shape, variances(wanted), variances(self.activation(images))
        return self.facts


def variances(final):
    """Variance ratios of all principal components of [N,C,h,w] over its channels."""
    rows = final.double().permute(0, 2, 3, 1).reshape(-1, final.shape[1])
    power = torch.linalg.svdvals(rows - rows.mean(0)).square()
    return (power / power.sum()).numpy()


def run(command):
    try:
        return subprocess.run(command, capture_output=True, text=True, timeout=LIMIT)
    except subprocess.TimeoutExpired:
        return SimpleNamespace(returncode=None, stdout="", stderr=f"more than {LIMIT} s")


def last_line(text, file):
    lines = [line for line in text.strip().splitlines() if line.strip()]
    line = lines[-1].removeprefix("prism: error: ").removeprefix(f"{file}: ") if lines else "no message"
    return "refused" if line.startswith("this is a vision transformer:") else line


def arrays_of(file, prism, folder, *flags):
    """The arrays of a run on the photographs, the warnings, and why it failed."""
    arrays = folder / "arrays.npz"
    arrays.unlink(missing_ok=True)
    command = [prism, "--model", str(file), "--output-dir", str(folder), "--save-arrays", str(arrays), *flags]
    done = run([*command, "--input", *map(str, PHOTOGRAPHS)])
    warned = [line for line in done.stderr.splitlines() if "warning: " in line]
    if done.returncode != 0:
        crashed = done.returncode not in (None, 1, 2)
        return None, warned, f"ended with status {done.returncode}" if crashed else last_line(done.stderr, file)
    with np.load(arrays) as found:
        return dict(found), warned, None


def judged(file, expected, prism, folder):
    """(None, facts, arrays) of a file that works, else (reason, facts, None)."""
    layers = run([prism, "layers", "--model", str(file)])
    roles = [line.split() for line in layers.stdout.splitlines()]
    final = next((row[2] for row in roles if row[-1] == "excitation"), None)
    seen = {"final": final, "guides": sum(row[-1] == "guide" for row in roles)}
    found, seen["warnings"], failure = arrays_of(file, prism, folder)
    if failure:
        return failure, seen, None
    if not (np.isfinite(found["maps"]).all() and np.isfinite(found["logits"]).all()):
        return "not finite", seen, None
    if found["maps"].min() == found["maps"].max():
        return "constant map", seen, None
    if expected is not None:
        shape, exact, rounded = expected(torch.from_numpy(found["input"]))
        if shape != final:
            return f"analyses {final}, expected is {shape}", seen, None
        ratio = found["variance_ratio"]
        difference = np.abs(exact[: len(ratio)] - ratio).max()
        noise = np.abs(exact - rounded)[: len(ratio)].max()
        if not difference <= max(AGREEMENT, 3 * noise):
            return f"other variances than expected (by {difference:.2g})", seen, None
    return None, seen, found


def off(found, wanted):
    """The largest difference of two arrays, as a share of the largest value."""
    if found.shape != wanted.shape:
        return float("inf")
    return float(np.abs(found - wanted).max() / np.abs(wanted).max())


@torch.no_grad()
def rounding(exporter, network, images):
    """How far the scores of the eager network in float32 are off those in float64."""
    images = torch.from_numpy(images)
    outputs = network(images), copy.deepcopy(network).double()(images.double())
    rounded, exact = (exporter.scores(output, len(images))[0].double().numpy() for output in outputs)
    return off(rounded, exact)


def decomposed(exporter, network, about, file):
    """Writes the network as run_decompositions() leaves it."""
    with exporter.quiet():
        program = exporter.program(network, [3, *about["image_size"]], True).run_decompositions()
        exporter.save_pt2(program, about, file)
    return "decomposed"


def write_onnx(network, about, file, how):
    """Writes the network as ONNX, with what it expects beside it."""
    images = torch.zeros(2, 3, *about["image_size"])
    options = dict(input_names=["images"], output_names=["scores"])
    if how == "onnx":
        torch.onnx.export(network, (images[:1],), str(file), dynamo=False, opset_version=17,
                          dynamic_axes={"images": {0: "batch"}, "scores": {0: "batch"}}, **options)
    else:
        torch.onnx.export(network, (images,), str(file), dynamo=True, external_data=False, verbose=False,
                          dynamic_shapes=({0: torch.export.Dim("batch")},), **options)
    expected = {key: about[key] for key in ("image_size", "mean", "std")}
    file.with_suffix(".prism.json").write_text(json.dumps(expected))
    return how


def message(error):
    """The first sentence, without colours."""
    text = re.sub(r"\x1b\[[0-9;]*m", "", str(error).strip())
    return text.splitlines()[0].split(". ")[0] if text else type(error).__name__


def check(exporter, name, options, folder, row):
    """Completes a row: {"scripted": "works" or why not, "traced": ..., "exported": ..., "final": shape, "guides": count,
    "scores": the largest difference to the TorchScript file, "maps": ..., "explained": {method: ...}}."""
    source, _, short = name.partition(":")
    torch.manual_seed(SEED)
    try:
        network, about = exporter.load(options_for(name))
        about = exporter.complete(about, options_for(name))
        settle(network, about["image_size"])
    except Exception as error:  # of the library
        return row | {how: f"not exported: {message(error)}" for how in options.files}
    expected = None if name in TRANSFORMERS else Expected(network, source, short)
    kept = folder / "torchscript.pt"
    kept.unlink(missing_ok=True)
    script = None
    for how in FILES:
        if how == "decomposed" and name not in DECOMPOSED:
            continue
        is_asked = how in options.files and how not in row
        # Both the comparison and the saliency need a TorchScript file.
        is_needed = how == "traced" and any(file not in SCRIPTS and file not in row for file in options.files)
        if not is_asked and not is_needed:
            continue
        begin = time.time()
        file = folder / ("network.pt" if how in SCRIPTS else "network.onnx" if how in ONNX else "network.pt2")
        try:
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                if how in ONNX:
                    written = write_onnx(network, about, file, how)
                elif how == "decomposed":
                    written = decomposed(exporter, network, about, file)
                else:
                    _, written, _ = exporter.export(network, about, choices_for(exporter, name, how, str(file)))
        except Exception as error:  # of the library, of TorchScript or of torch.export
            row[how] = f"not exported: {message(error)}"
            continue
        if how == "scripted" and written != how:
            row[how] = "library"
            continue
        reason, seen, found = judged(file, expected, options.prism, folder)
        if reason is None and how == "traced":
            script = found
            file.rename(kept)
        elif reason is None and how not in SCRIPTS and script is not None:
            differences = {"scores": off(found["logits"], script["logits"]), "maps": off(found["maps"], script["maps"])}
            if how == "exported":
                row |= differences
            elif how in ONNX:
                row |= {f"{how}_{what}": value for what, value in differences.items()}
            if not differences["scores"] <= SCORES and not differences["scores"] <= 3 * rounding(exporter, network, found["input"]):
                reason = f"other scores than TorchScript (by {differences['scores']:.2g})"
            elif not differences["maps"] <= MAPS:
                reason = f"another map than TorchScript (by {differences['maps']:.2g})"
            if how == "exported" and name in EXPLAINED:
                row["explained"] = {method: explained(method, kept, file, options.prism, folder) for method in METHODS}
            seen["differences"] = differences
        if reason is None and written == "exported for one image":
            row["one"] = True
        file.unlink(missing_ok=True)
        row[how] = reason or "works"
        if how in ONNX:
            row[f"{how}_guides"] = seen["guides"]
        elif how != "decomposed":
            row |= {key: seen[key] for key in ("final", "guides")}
        print(f"{name} {how}: {row[how]} {seen} {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
    kept.unlink(missing_ok=True)
    torch._dynamo.reset()
    return row


def explained(method, script, file, prism, folder):
    """How far the saliency of a .pt2 file is off that of the TorchScript file, or why there is none."""
    maps = []
    for network in (script, file):
        found, _, failure = arrays_of(network, prism, folder, "--saliency", method)
        if failure:
            return failure
        maps.append(found["saliency"])
    return off(maps[1], maps[0])


def cell(text):
    return {"library": "–", None: "–"}.get(text, text).replace("|", "\\|")


def count(rows, files):
    """How many files of these kinds work, and how many there are."""
    found = [row[how] for row in rows for how in files if row.get(how, "library") != "library"]
    return sum(file == "works" for file in found), len(found)


def share(works, files):
    return f"{works} of {files} ({100 * works / max(files, 1):.1f} %)"


def page(rows, refused):
    import timm
    import torchvision

    scripts, exported, onnx = count(rows, SCRIPTS), count(rows, ["exported"]), count(rows, ONNX)
    versions = f"torch {torch.__version__.split('+')[0]}, torchvision {torchvision.__version__.split('+')[0]}, timm {timm.__version__}"
    lines = [
        f"{len(rows)} networks ({versions}):",
        "",
        f"- {share(*scripts)} TorchScript files work.",
        f"- {share(*exported)} `.pt2` files work.",
    ]
    compared = [row for row in rows if "scores" in row and row["exported"] == "works"]
    for what, values in (("scores", "of the largest"), ("maps", "of their range")):
        worst = max((row[what] for row in compared), default=0)
        same = sum(row[what] == 0 for row in compared)
        lines.append(f"- The {what} of {same} `.pt2` files are those of the traced files bit for bit; those of the other "
                     f"{len(compared) - same} differ by at most {worst:.1g} {values}.")  # fmt: skip
    lines.append(f"- {share(*onnx)} ONNX files work: {share(*count(rows, ONNX[:1]))} of the exporter that traces, "
                 f"{share(*count(rows, ONNX[1:]))} of that by torch.export.")  # fmt: skip
    for what, values in (("scores", "of the largest"), ("maps", "of their range")):
        found = [row[f"{how}_{what}"] for row in rows for how in ONNX if row.get(how) == "works" and f"{how}_{what}" in row]
        if found:
            lines.append(f"- The {what} of an ONNX file differ from those of the traced file by at most {max(found):.1g} {values}.")
    core = [row for row in rows if "decomposed" in row]
    if core:
        failures = [f"{row['name']}: {row['decomposed']}" for row in core if row["decomposed"] != "works"]
        lines.append(f"- {share(*count(core, ['decomposed']))} `.pt2` files work after `run_decompositions()` (a sample)."
                     + "".join(f"\n  {failure}." for failure in failures))  # fmt: skip
    told = [row["explained"] for row in rows if "explained" in row]
    for method, words in METHODS.items():
        values = [row[method] for row in told]
        numbers = [value for value in values if not isinstance(value, str)]
        if numbers:
            works = sum(value <= SALIENCY for value in numbers)
            lines.append(f"- The saliency by {words} of a `.pt2` file is that of the traced file in {works} of {len(values)} networks (a sample); "
                         f"{sum(value == 0 for value in numbers)} are equal bit for bit.")  # fmt: skip
    lines += [
        "",
        "A dash: the network of the library cannot be scripted.",
        "",
        "| network | scripted | traced | `.pt2` | ONNX (traced) | ONNX (torch.export) | final excitation | guides |",
        "|---|---|---|---|---|---|---|---|",
    ]
    kinds = (*SCRIPTS, "exported", *ONNX)
    for row in rows:
        cells = " | ".join(cell(row.get(how)) for how in kinds)
        lines.append(f"| {row['name']} | {cells} | {row['final'] or ''} | {row['guides'] or ''} |")
    lines += ["", "Vision transformers are refused:", "", "| network | scripted | traced | `.pt2` | ONNX (traced) | ONNX (torch.export) |", "|---|---|---|---|---|---|"]
    for row in refused:
        lines.append(f"| {row['name']} | {' | '.join(cell(row.get(how)) for how in kinds)} |")
    return "\n".join(lines), scripts, exported, onnx


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prism", default=str(ROOT / "target/release/prism"))
    parser.add_argument("--page", help="Markdown file; the part between the markers is replaced")
    parser.add_argument("--resume", action="store_true", help="reuse the rows of an interrupted run")
    parser.add_argument("--only", nargs="+", help="only these networks, as torchvision:NAME or timm:NAME")
    parser.add_argument("--files", nargs="+", choices=FILES, default=FILES, help="only these kinds of files")
    options = parser.parse_args()
    options.prism = str(Path(options.prism).resolve())
    warnings.filterwarnings("ignore")
    logging.disable(logging.WARNING)
    folder = Path(options.folder)
    folder.mkdir(parents=True, exist_ok=True)
    exporter = load_exporter()

    names = [f"torchvision:{name}" for name in TORCHVISION] + [f"timm:{name}" for name in TIMM] + [OFA]
    memory = folder / "rows.json"
    known = json.loads(memory.read_text()) if options.resume and memory.exists() else {}

    def rows_of(names):
        rows = []
        for name in names:
            if options.only and name not in options.only:
                continue
            row = known.setdefault(name, {"name": name, "final": None, "guides": 0})
            files = [how for how in options.files if how != "decomposed" or name in DECOMPOSED]
            if any(how not in row for how in files):
                known[name] = check(exporter, name, options, folder, row)
                memory.write_text(json.dumps(known, indent=1))
            rows.append(known[name])
        return rows

    rows, refused = rows_of(names), rows_of(TRANSFORMERS)
    text, scripts, exported, onnx = page(rows, refused)
    print(text)
    if options.page:
        pages.put(options.page, text)
    crashed = [row["name"] for row in rows + refused for how in FILES if "with status" in str(row.get(how))]
    few = [f"fewer than {100 * least:.0f} % of {what} work" for what, (works, files), least in
           (("TorchScript files", scripts, 0.95), (".pt2 files", exported, 0.97), ("ONNX files", onnx, 0.95)) if works < least * files]  # fmt: skip
    sys.exit(f"crashed: {', '.join(crashed)}" if crashed else "; ".join(few))


if __name__ == "__main__":
    main()
