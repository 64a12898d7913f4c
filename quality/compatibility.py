"""Tests prism on every family of CNN classifiers of torchvision and timm, scripted and traced.

    python quality/compatibility.py FOLDER --prism target/release/prism [--page docs/compatibility.md] [--only NAME ...]

Each network gets seeded random weights (batch-norm statistics from one pass over noise). models/export.py writes it,
and `prism` runs on it with three photographs of samples/. A file works if prism ends with status 0, its map and class
scores are finite, the map is not constant, and the analysed activation is the expected one: its PCA has the same
variances as that of the final activation in eager PyTorch for the same input (named by hand for torchvision; for
timm, `forward_features`). Some of these untrained networks amplify rounding, so the comparison is with eager float64
and allows three times the error of eager float32. Vision transformers must be refused in one sentence.

Rows are stored in FOLDER/rows.json; --resume reuses them. A full run takes half an hour.

Needs torch, torchvision, timm and numpy.
"""
import argparse
import contextlib
import copy
import importlib.util
import io
import json
import logging
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


def load_exporter():
    spec = importlib.util.spec_from_file_location("export", ROOT / "models" / "export.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def options_for(network, trace):
    return SimpleNamespace(network=network, weights=None, state_dict=None, arguments="{}", output=None, image_size=None,
                           mean=None, std=None, labels=None, trace=trace)  # fmt: skip


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
        self.network, self.source, self.name, self.seen = network, source, name, None

    @torch.no_grad()
    def __call__(self, images):
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


def judged(file, expected, prism, folder):
    """(None, facts) of a file that works, else (reason, facts)."""
    layers = run([prism, "layers", "--model", str(file)])
    roles = [line.split() for line in layers.stdout.splitlines()]
    final = next((row[2] for row in roles if row[-1] == "excitation"), None)
    seen = {"final": final, "guides": sum(row[-1] == "guide" for row in roles)}
    arrays = folder / "arrays.npz"
    arrays.unlink(missing_ok=True)
    command = [prism, "--model", str(file), "--output-dir", str(folder), "--save-arrays", str(arrays)]
    done = run([*command, "--input", *map(str, PHOTOGRAPHS)])
    seen["warnings"] = [line for line in done.stderr.splitlines() if "warning: " in line]
    if done.returncode != 0:
        crash = "" if done.returncode in (1, 2) else f"status {done.returncode}: "
        return crash + last_line(done.stderr, file), seen
    with np.load(arrays) as found:
        maps, logits, ratio, images = (found[key] for key in ("maps", "logits", "variance_ratio", "input"))
    if not (np.isfinite(maps).all() and np.isfinite(logits).all()):
        return "not finite", seen
    if maps.min() == maps.max():
        return "constant map", seen
    if expected is not None:
        images = torch.from_numpy(images)
        wanted = expected(images.double())
        shape = "x".join(str(n) for n in wanted.shape[1:])
        if shape != final:
            return f"analyses {final}, expected is {shape}", seen
        exact = variances(wanted)[: len(ratio)]
        difference = np.abs(exact - ratio).max()
        noise = np.abs(exact - variances(expected(images))[: len(ratio)]).max()
        if not difference <= max(AGREEMENT, 3 * noise):
            return f"other variances than expected (by {difference:.2g})", seen
    return None, seen


def exported(exporter, name, trace, folder):
    """The file, the eager network, and how it was written (scripted or traced)."""
    torch.manual_seed(SEED)
    options = options_for(name, trace)
    network, about = exporter.load(options)
    about = exporter.complete(about, options)
    settle(network, about["image_size"])
    file = folder / "network.pt"
    how, _ = exporter.export(network, about, options, str(file))
    return file, network, how


def check(exporter, name, options, folder):
    """One row: {"scripted": "works" or why not, "traced": ..., "final": shape, "guides": count}."""
    source, _, short = name.partition(":")
    row = {"name": name, "scripted": None, "traced": None, "final": None, "guides": 0}
    for wanted in ("scripted", "traced"):
        begin = time.time()
        try:
            with contextlib.redirect_stdout(io.StringIO()):
                file, network, how = exported(exporter, name, wanted == "traced", folder)
        except Exception as error:  # of the library or of TorchScript
            row[wanted] = f"not exported: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}"
            continue
        if how != wanted:
            row[wanted] = "library"
            continue
        expected = None if name in TRANSFORMERS else Expected(network, source, short)
        reason, seen = judged(file, expected, options.prism, folder)
        file.unlink()
        row[wanted] = reason or "works"
        row |= seen
        print(f"{name} {wanted}: {row[wanted]} {seen} {time.time() - begin:.0f} s", file=sys.stderr, flush=True)
    return row


def cell(text):
    return {"library": "–", None: "–"}.get(text, text).replace("|", "\\|")


def page(rows, refused):
    files = [row[how] for row in rows for how in ("scripted", "traced") if row[how] != "library"]
    works = sum(file == "works" for file in files)
    import timm
    import torchvision

    lines = [
        f"{works} of {len(files)} files work ({100 * works / len(files):.1f} %), of {len(rows)} networks "
        f"(torchvision {torchvision.__version__.split('+')[0]}, timm {timm.__version__}).",
        "A dash: the network of the library cannot be scripted.",
        "", "| network | scripted | traced | final excitation | guides |", "|---|---|---|---|---|",
    ]  # fmt: skip
    for row in rows:
        lines.append(f"| {row['name']} | {cell(row['scripted'])} | {cell(row['traced'])} | {row['final'] or ''} | {row['guides'] or ''} |")
    lines += ["", "Vision transformers are refused:", "", "| network | scripted | traced |", "|---|---|---|"]
    for row in refused:
        lines.append(f"| {row['name']} | {cell(row['scripted'])} | {cell(row['traced'])} |")
    return "\n".join(lines), works, len(files)


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder")
    parser.add_argument("--prism", default=str(ROOT / "target/release/prism"))
    parser.add_argument("--page", help="Markdown file; the part between the markers is replaced")
    parser.add_argument("--resume", action="store_true", help="reuse the rows of an interrupted run")
    parser.add_argument("--only", nargs="+", help="only these networks, as torchvision:NAME or timm:NAME")
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
            if name not in known:
                known[name] = check(exporter, name, options, folder)
                memory.write_text(json.dumps(known, indent=1))
            rows.append(known[name])
        return rows

    rows, refused = rows_of(names), rows_of(TRANSFORMERS)
    text, works, files = page(rows, refused)
    print(text)
    if options.page:
        pages.put(options.page, text)
    crashed = [row["name"] for row in rows + refused for how in ("scripted", "traced") if "status" in str(row[how])]
    sys.exit(f"crashed: {', '.join(crashed)}" if crashed else 0 if works >= 0.95 * files else "fewer than 95 % work")


if __name__ == "__main__":
    main()
