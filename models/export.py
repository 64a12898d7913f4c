#!/usr/bin/env python3
"""Writes a network as a TorchScript file that prism takes.

    python models/export.py torchvision:resnet50 --weights DEFAULT
    python models/export.py timm:efficientnet_lite0 --weights DEFAULT
    python models/export.py my_network.py:MyNetwork --state-dict trained.pth --labels classes.txt
    python models/export.py my_package.models:build --arguments '{"classes": 10}' --image-size 256

The network is scripted if possible, else traced. The file is loaded again and must give the scores of the network,
for one image and for three. Input size, normalisation and class names are stored in the file (as the extra file
prism.json), so that prism needs no flags for them. Needs torch, and torchvision or timm for their networks.
"""
import argparse
import ast
import importlib
import importlib.util
import json
import os
import sys

import torch

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Scores may differ by rounding if TorchScript fuses operators.
TOLERANCE = 1e-4


class Refused(Exception):
    """An error with a one-line message: what is wrong, and what to do."""


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="torchvision:NAME, timm:NAME, or FILE.py:NAME or MODULE:NAME of an nn.Module, "
                                        "its class or a function that returns it")
    parser.add_argument("--weights", help="DEFAULT for the pretrained weights of the library (torchvision also takes their names)")
    parser.add_argument("--state-dict", metavar="FILE", help="state dict to load into the network")
    parser.add_argument("--arguments", default="{}", metavar="JSON", help="keyword arguments of the class or function")
    parser.add_argument("--output", metavar="FILE", help="default: the network's name with .pt")
    parser.add_argument("--image-size", metavar="N|HxW", help="default: as the library says, else 224")
    parser.add_argument("--mean", metavar="R,G,B", help="default: what the library says, else ImageNet's")
    parser.add_argument("--std", metavar="R,G,B", help="default: what the library says, else ImageNet's")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: one per line, or a JSON list")
    parser.add_argument("--trace", action="store_true", help="trace even if the network can be scripted")
    return parser.parse_args()


def from_torchvision(name, options, keywords):
    import torchvision

    if options.weights:
        known = torchvision.models.get_model_weights(name)
        weights = known.DEFAULT if options.weights == "DEFAULT" else known[options.weights]
        about = torchvision_preset(weights)
        about["labels"] = list(weights.meta.get("categories") or [])
    else:
        weights = None
        known = name in torchvision.models.list_models() and list(torchvision.models.get_model_weights(name))
        about = torchvision_preset(known[0]) if known else {}
        if name in ("googlenet", "inception_v3"):
            keywords = {"init_weights": False, **keywords}
    return torchvision.models.get_model(name, weights=weights, **keywords), about


def torchvision_preset(weights):
    """Input size, mean and std of the preprocessing of given weights."""
    preset = weights.transforms()
    if not hasattr(preset, "crop_size"):
        return {}
    size = preset.crop_size[0] if isinstance(preset.crop_size, (list, tuple)) else preset.crop_size
    return {"image_size": [size, size], "mean": list(preset.mean), "std": list(preset.std)}


def from_timm(name, options, keywords):
    import timm

    network = timm.create_model(name, pretrained=bool(options.weights), scriptable=True, **keywords)
    config = timm.data.resolve_data_config({}, model=network)
    about = {"image_size": list(config["input_size"][1:]), "mean": list(config["mean"]), "std": list(config["std"])}
    return network, about


def from_user(source, name, options, keywords):
    if source.endswith(".py"):
        spec = importlib.util.spec_from_file_location(os.path.basename(source)[:-3], source)
        if spec is None or not os.path.exists(source):
            raise Refused(f"{source}: no such file")
        module = importlib.util.module_from_spec(spec)
        sys.path.insert(0, os.path.dirname(os.path.abspath(source)))
        sys.modules[spec.name] = module
        spec.loader.exec_module(module)
    else:
        sys.path.insert(0, os.getcwd())
        module = importlib.import_module(source)
    if not hasattr(module, name):
        raise Refused(f"{source}: there is no '{name}' in it")
    made = getattr(module, name)
    network = made if isinstance(made, torch.nn.Module) else made(**keywords)
    if not isinstance(network, torch.nn.Module):
        raise Refused(f"{source}:{name} is not a torch.nn.Module and does not return one")
    return network, {}


def load(options):
    """The network in eval mode, and the known facts about its input and classes."""
    source, colon, name = options.network.rpartition(":")
    if not colon:
        raise Refused(f"'{options.network}' does not say where the network is; use torchvision:NAME, timm:NAME or FILE.py:NAME")
    try:
        keywords = json.loads(options.arguments)
    except ValueError:
        keywords = ast.literal_eval(options.arguments)
    if source == "torchvision":
        network, about = from_torchvision(name, options, keywords)
    elif source == "timm":
        network, about = from_timm(name, options, keywords)
    else:
        network, about = from_user(source, name, options, keywords)
    if options.state_dict:
        state = torch.load(options.state_dict, map_location="cpu", weights_only=True)
        state = state.get("state_dict", state)
        state = {key.removeprefix("module."): value for key, value in state.items()}
        try:
            network.load_state_dict(state)
        except RuntimeError as error:  # a heading, then a line for each kind of key
            reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
            raise Refused(f"{options.state_dict} does not fit {options.network}: {' '.join(reasons)[:300]}") from None
    return network.eval(), about


def numbers(text, count, what):
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise Refused(f"{what} {text}: expected {count} numbers separated by commas")
    return values


def complete(about, options):
    """The contents of prism.json: from the flags, else from the library, else ImageNet's."""
    if options.image_size:
        sides = options.image_size.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise Refused(f"--image-size {options.image_size}: expected N or HxW in pixels")
        sides = [int(side) for side in sides]
        about["image_size"] = sides * 2 if len(sides) == 1 else sides
    about.setdefault("image_size", [224, 224])
    about["mean"] = numbers(options.mean, 3, "--mean") if options.mean else about.get("mean", list(IMAGENET_MEAN))
    about["std"] = numbers(options.std, 3, "--std") if options.std else about.get("std", list(IMAGENET_STD))
    if options.labels:
        with open(options.labels, encoding="utf-8-sig") as file:
            about["labels"] = json.load(file) if options.labels.endswith(".json") else file.read().split("\n")
        while about["labels"] and not str(about["labels"][-1]).strip():
            about["labels"].pop()
        about["labels"] = [str(label).strip() for label in about["labels"]]
    if not about.get("labels"):
        about.pop("labels", None)
    return about


def scores(output, images):
    """All tensors in the output of a network that can be class scores of so many images, as [N,K]."""
    if isinstance(output, torch.Tensor):
        sizes = [size for size in output.shape[1:] if size != 1]
        fits = output.is_floating_point() and output.dim() and len(output) == images and len(sizes) < 2
        return [output.reshape(images, -1)] if fits else []
    values = output.values() if isinstance(output, dict) else output if isinstance(output, (tuple, list)) else []
    return [tensor for value in values for tensor in scores(value, images)]


def fits(labels, counts):
    """Whether so many labels fit outputs of so many values: one score has two classes, or one name."""
    return labels in counts or (1 in counts and labels in (1, 2)) or labels == counts.count(1)


def check(network, written, about, how):
    """Checks that the file gives the scores of the network, for one image and for several; returns the number of classes."""
    torch.manual_seed(0)
    for count in (1, 3):
        images = torch.randn(count, 3, *about["image_size"])
        with torch.no_grad():
            expected, found = scores(network(images), count), scores(written(images), count)
        if not expected:
            raise Refused("the network returns no class scores [N,K]; prism explains classifiers")
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
            raise Refused(f"the {how} network does not take {count} images: its batch size is fixed")
        for ours, theirs in zip(found, expected):
            worst = (ours - theirs).abs().max().item()
            if not worst <= TOLERANCE * max(1.0, theirs.abs().max().item()):
                raise Refused(f"the scores of the {how} network differ by {worst:.2g}; does its forward depend on values?")
    counts = [tensor.shape[1] for tensor in expected]
    labels = len(about["labels"]) if "labels" in about else None
    if labels and not fits(labels, counts):
        raise Refused(f"there are {labels} labels for {' or '.join(map(str, counts))} classes")
    return labels or counts[0]


def export(network, about, options, output):
    """Writes the file; returns "scripted" or "traced", and the number of classes."""
    reasons = []
    for how in ["traced"] if options.trace else ["scripted", "traced"]:
        try:
            with torch.no_grad():
                if how == "scripted":
                    made = torch.jit.script(network)
                else:
                    example = torch.randn(1, 3, *about["image_size"])
                    made = torch.jit.trace(network, example, check_trace=False)
            part = output + ".part"
            made.save(part, _extra_files={"prism.json": json.dumps(about)})
            try:
                classes = check(network, torch.jit.load(part, map_location="cpu"), about, how)
                os.replace(part, output)
            finally:
                if os.path.exists(part):
                    os.remove(part)
            return how, classes
        except Refused:
            if how == "traced":
                raise
            reasons.append("the scripted network is not equal")
        except Exception as error:  # of TorchScript
            reasons.append(f"not {how}: {str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__}")
    raise Refused("; ".join(reasons))


def main():
    options = arguments()
    try:
        network, about = load(options)
        about = complete(about, options)
        output = options.output or options.network.rpartition(":")[2] + ".pt"
        how, classes = export(network, about, options, output)
    except Refused as error:
        sys.exit(f"export: {error}")
    except (ImportError, OSError, KeyError, ValueError, RuntimeError, TypeError) as error:
        sys.exit(f"export: {options.network}: {type(error).__name__}: {str(error).strip().splitlines()[0]}")
    height, width = about["image_size"]
    print(f"{output}: {how}, {classes} classes, images of {height}x{width}")


if __name__ == "__main__":
    main()
