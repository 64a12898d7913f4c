"""Writes a network as a file that prism takes: .pt2 (torch.export) or TorchScript.

    python -m prism_cnn.export torchvision:resnet50 --weights DEFAULT
    python -m prism_cnn.export timm:efficientnet_lite0 --weights DEFAULT
    python -m prism_cnn.export my_network.py:MyNetwork --state-dict trained.pth --labels classes.txt
    python -m prism_cnn.export my_package.models:build --arguments '{"classes": 10}' --image-size 256

From torch 2.9 on the file is one of torch.export (.pt2). It is TorchScript (.pt) with older torch, and if torch.export
refuses the network: scripted if possible, else traced. The file is loaded again and must give the scores of the
network, for one image and for three. Input size, normalisation and class names are stored in the file (as the extra
file prism.json), so that prism needs no flags for them. Needs torch, and torchvision or timm for their networks.
"""
import argparse
import ast
import contextlib
import importlib
import importlib.util
import inspect
import io
import json
import logging
import os
import sys
import warnings
from dataclasses import dataclass
from typing import Any, Callable, Optional

try:
    import torch
except ImportError:
    if __name__ != "__main__":
        raise
    sys.exit("export: torch is not installed; install it beside prism-cnn, of any version from 2.4 on")

from .errors import first_line

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)

# Scores may differ by rounding if operators are fused.
TOLERANCE = 1e-4

# prism reads .pt2 of torch 2.5 and later. The weights of newer files lie in them as they are.
OLDEST_PT2, DEFAULT_PT2 = "2.5", "2.9"
FORMATS = {".pt2": "pt2", ".pt": "torchscript"}

# What long messages of torch.export mean.
REASONS = {
    "specialized it to be a constant": "the network's forward makes it a fixed number",
    "Constraints violated": "the network's forward does not take every size",
    "data-dependent expression": "the network's forward branches on values that it computes",
}
# Operators of libtorch itself; others are of a library that the program does not have.
OWN = {"aten", "prim", "prims", "quantized", "prepacked", "mkldnn", "profiler", "higher_order"}
# Given images on which the scores of a file are compared. A traced one is compared on all.
MOST_COMPARED = 8


class Refused(Exception):
    """An error with a one-line message: what is wrong, and what to do."""


@dataclass
class Choices:
    """How a network is written.

    Attributes:
        network: its name, for messages.
        stem: path of the file without its extension.
        output: path of the file, instead.
        format: "pt2" or "torchscript"; None: the first that works.
        trace: whether TorchScript is traced even if the network can be scripted.
        channels: of its input.
        note: what is done with a remark.
        images: `[N,C,H,W]` float32, which the network will be given; None if they are not known.
    """

    network: str
    stem: str
    output: Optional[str] = None
    format: Optional[str] = None
    trace: bool = False
    channels: int = 3
    note: Callable[[str], object] = lambda text: print(f"export: {text}", file=sys.stderr)
    images: Any = None


def reason(error):
    """The first line of the message of a library's exception, or what it means."""
    for words, meaning in REASONS.items():
        if words in str(error):
            return meaning
    return first_line(error)


def arguments():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0], epilog=__doc__.split("\n\n", 1)[1],
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("network", help="torchvision:NAME, timm:NAME, or FILE.py:NAME or MODULE:NAME of an nn.Module, "
                                        "its class or a function that returns it")
    parser.add_argument("--weights", help="DEFAULT for the pretrained weights of the library (torchvision also takes their names)")
    parser.add_argument("--state-dict", metavar="FILE", help="state dict to load into the network")
    parser.add_argument("--arguments", default="{}", metavar="JSON", help="keyword arguments of the class or function")
    parser.add_argument("--output", metavar="FILE", help="default: the network's name with .pt2 or .pt")
    parser.add_argument("--format", choices=sorted(FORMATS.values()),
                        help="default: pt2 from torch 2.9 on, and torchscript if torch.export refuses the network")
    parser.add_argument("--channels", type=int, default=3, metavar="N", help="of the images that the network takes; default: 3")
    parser.add_argument("--image-size", metavar="N|HxW", help="default: as the library says, else 224")
    parser.add_argument("--mean", metavar="R,G,B", help="default: what the library says, else of 3 channels ImageNet's")
    parser.add_argument("--std", metavar="R,G,B", help="default: what the library says, else of 3 channels ImageNet's")
    parser.add_argument("--labels", metavar="FILE", help="names of the classes: one per line, or a JSON list")
    parser.add_argument("--trace", action="store_true", help="write TorchScript, and trace even if the network can be scripted")
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
    keywords = None
    for read in (json.loads, ast.literal_eval):
        with contextlib.suppress(ValueError, SyntaxError):
            keywords = keywords or read(options.arguments)
    if not isinstance(keywords, dict):
        raise Refused(f"--arguments {options.arguments[:60]}: expected a JSON object of keywords, such as '{{\"classes\": 10}}'")
    if source == "torchvision":
        network, about = from_torchvision(name, options, keywords)
    elif source == "timm":
        network, about = from_timm(name, options, keywords)
    else:
        network, about = from_user(source, name, options, keywords)
    if options.state_dict:
        state = state_of(options.state_dict)
        try:
            network.load_state_dict(state)
        except RuntimeError as error:  # a heading, then a line for each kind of key
            reasons = [line.strip() for line in str(error).splitlines()[1:] if line.strip()]
            raise Refused(f"{options.state_dict} does not fit {options.network}: {' '.join(reasons)[:300]}") from None
    return network.eval(), about


def state_of(path):
    """The state dict in a file."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError:
        raise
    except Exception:  # of pickle: the file has code, as that of a whole network has, or is none of torch
        raise Refused(f"{path} is no state dict; torch.save(network.state_dict(), FILE) writes one") from None
    state = state.get("state_dict", state) if isinstance(state, dict) else state
    if not isinstance(state, dict) or not all(isinstance(key, str) for key in state):
        raise Refused(f"{path} holds a {type(state).__name__}, which is no state dict")
    return {key.removeprefix("module."): value for key, value in state.items()}


def numbers(text, count, what):
    try:
        values = [float(value) for value in text.split(",")]
    except ValueError:
        values = []
    if len(values) != count:
        raise Refused(f"{what} {text}: expected {count} numbers separated by commas")
    return values


def complete(about, options, channels=3):
    """The contents of prism.json: from the flags, else from the library, else of three channels ImageNet's."""
    if options.image_size:
        sides = options.image_size.lower().split("x")
        if len(sides) > 2 or not all(side.isdecimal() and int(side) > 0 for side in sides):
            raise Refused(f"--image-size {options.image_size}: expected N or HxW in pixels")
        sides = [int(side) for side in sides]
        about["image_size"] = sides * 2 if len(sides) == 1 else sides
    about.setdefault("image_size", [224, 224])
    for name, text, usual in (("mean", options.mean, IMAGENET_MEAN), ("std", options.std, IMAGENET_STD)):
        if text:
            about[name] = numbers(text, channels, f"--{name}")
        elif channels == 3:
            about.setdefault(name, list(usual))
        else:
            about.pop(name, None)  # what the library says is of three
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


def noise(*shape, seed=0):
    """Normal random numbers, the same each time; whatever type and device torch has as its default."""
    generator = torch.Generator("cpu").manual_seed(seed)
    return torch.randn(shape, generator=generator, dtype=torch.float32, device="cpu")


def scored(network, images):
    """The scores that the network returns."""
    with torch.no_grad():
        return scores(network(images.clone()), len(images))  # it may write into its input


def expectation(network, about, channels):
    """The scores of the network as [(images, scores)], for one image and for several, and the number of classes."""
    cases = []
    for count in (1, 3):
        images = noise(count, channels, *about["image_size"])
        cases.append((images, scored(network, images)))
        if not cases[-1][1]:
            raise Refused("the network returns no class scores [N,K]; prism explains classifiers")
        if not all(tensor.isfinite().all() for tensor in cases[-1][1]):
            raise Refused("the network returns NaN or infinity for normal random images")
    images, expected = cases[0]
    if any(unlike(again, first) for again, first in zip(scored(network, images), expected)):
        raise Refused("two runs on the same image give different scores; does its forward draw random numbers?")
    classes = [tensor.shape[1] for tensor in expected]
    labels = len(about["labels"]) if "labels" in about else None
    if labels and not fits(labels, classes):
        raise Refused(f"there are {labels} labels for {' or '.join(map(str, classes))} classes")
    return cases, labels or classes[0]


def unlike(ours, theirs):
    """By how much scores differ at most; 0 if it is rounding. NaN is like NaN."""
    alike = (ours == theirs) | (ours.isnan() & theirs.isnan())
    worst = torch.where(alike, torch.zeros_like(ours), ours - theirs).abs().max().item()
    highest = theirs[theirs.isfinite()].abs().amax().item() if theirs.isfinite().any() else 0.0
    return 0 if worst <= TOLERANCE * max(1.0, highest) else worst


def given(network, options, most=MOST_COMPARED):
    """The scores of given images, one at a time: evenly taken from all, or all of them."""
    if options.images is not None:
        for index in range(0, len(options.images), -(-len(options.images) // most) if most else 1):
            images = torch.tensor(options.images[index : index + 1], dtype=torch.float32, device="cpu")
            yield images, scored(network, images)


def check(written, cases, how):
    """Checks that a file gives the scores of the network."""
    for images, expected in cases:
        count = len(images)
        found = scored(written, images)
        if [tensor.shape for tensor in found] != [tensor.shape for tensor in expected]:
            raise Refused(f"the {how} network does not take {count} images: its batch size is fixed")
        for ours, theirs in zip(found, expected):
            if worst := unlike(ours, theirs):
                raise Refused(f"the scores of the {how} network differ by {worst:.2g}; does its forward depend on values?")


def store(output, save, check):
    """Writes the file if it passes the check."""
    part = output + ".part"
    try:
        with open(part, "wb") as file:
            content = io.BytesIO()
            save(content)
            file.write(content.getbuffer())  # torch's own writer ends the process if the disk is full
        check(part)
        os.replace(part, output)
    finally:
        if os.path.exists(part):
            os.remove(part)


def write_torchscript(network, about, cases, options, output):
    """Writes a TorchScript file; returns "scripted" or "traced"."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message=".*torch.jit.* is deprecated")
        warnings.filterwarnings("ignore", category=torch.jit.TracerWarning)  # the scores are compared
        return scripted_or_traced(network, about, cases, options, output)


def scripted_or_traced(network, about, cases, options, output):
    """Writes a TorchScript file, scripted if possible; returns how."""
    def save(file):
        torch.jit.save(made, file, _extra_files={"prism.json": json.dumps(about)})

    reasons = []
    for how in ["traced"] if options.trace else ["scripted", "traced"]:
        try:
            with torch.no_grad():
                if how == "scripted":
                    made = torch.jit.script(network)
                else:
                    example = noise(1, options.channels, *about["image_size"], seed=1)
                    made = torch.jit.trace(network, example, check_trace=False)
            if name := foreign_operator(made):
                raise Refused(f"prism does not have the operator {name} of the network")
            images = [*cases, *given(network, options, None if how == "traced" else MOST_COMPARED)]
            store(output, save, lambda part: check(torch.jit.load(part, map_location="cpu"), images, how))
            return how
        except Refused as error:
            if how == "traced":
                raise
            reasons.append(str(error))
        except OSError:
            raise
        except Exception as error:  # of TorchScript
            reasons.append(f"not {how}: {reason(error)}")
    raise Refused("; ".join(reasons))


@contextlib.contextmanager
def quiet():
    """Without what torch.export prints: its own exceptions say why it failed."""
    level = logging.root.manager.disable
    logging.disable(logging.CRITICAL)
    nowhere = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(nowhere), contextlib.redirect_stderr(nowhere):
            warnings.simplefilter("ignore")
            yield
    finally:
        logging.disable(level)


def program(network, shape, dynamic):
    """The network as torch.export sees it, for a batch of any size or for one image."""
    # A batch of one would be taken for a constant.
    images = noise(2 if dynamic else 1, *shape, seed=1)  # other images than those of the check
    sizes = ({0: torch.export.Dim("batch")},)
    first = next(iter(inspect.signature(network.forward).parameters.values()), None)
    if first is not None and first.kind is first.VAR_POSITIONAL:
        sizes = (sizes,)
    with torch.no_grad():
        made = torch.export.export(network, (images,), dynamic_shapes=sizes if dynamic else None, strict=False)
    for module in made.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            node.meta.pop("stack_trace", None)  # has the paths of the source
    if torch.__version__ >= DEFAULT_PT2:
        made.example_inputs = None  # would be stored
    return made


def foreign(made):
    """The name of an operator that prism does not run, such as torch.cond or one of another library, or None."""
    for module in made.graph_module.modules():
        for node in module.graph.nodes if isinstance(module, torch.fx.GraphModule) else ():
            is_own = getattr(node.target, "namespace", "aten") == "aten"
            if node.op == "call_function" and not is_own and not str(node.target).startswith("wrap_with_"):
                return str(node.target)
    return None


def foreign_operator(made):
    """The name of an operator of TorchScript that libtorch alone does not have, or None."""
    graph = made.inlined_graph  # its nodes live as long as this name
    blocks = [graph]
    while blocks:
        for node in blocks.pop().nodes():
            if node.kind().split("::")[0] not in OWN:
                return node.kind()
            blocks.extend(node.blocks())
    return None


def save_pt2(made, about, file):
    torch.export.save(made, file, extra_files={"prism.json": json.dumps(about)})


def write_pt2(network, about, cases, options, output):
    """Writes a file of torch.export; returns "exported", and for one image if the batch size cannot be open."""
    def checked(part):
        try:
            with open(part, "rb") as file:
                written = torch.export.load(file).module()
        except Exception as error:
            if "is missing val field" not in str(error):
                raise
            written = made.module()  # torch 2.13 does not load what it wrote with an autocast in it
        check(written, [*taken, *given(network, options)], "exported")

    kinds = [("exported", cases, "a batch of any size"), ("exported for one image", cases[:1], "the network")]
    refusals = []
    for how, taken, what in kinds:
        try:
            with quiet():
                made = program(network, [options.channels, *about["image_size"]], dynamic=len(taken) > 1)
                if name := foreign(made):
                    raise Refused(f"prism does not run the network's operator {name} in a .pt2 file")
                store(output, lambda file: save_pt2(made, about, file), checked)
        except OSError:
            raise
        except Refused as error:
            refusals.append(str(error))
        except Exception as error:  # of torch.export
            refusals.append(f"torch.export refuses {what}: {reason(error)}")
        else:
            if refusals:
                options.note(f"{refusals[0]}; the file is for one image, and prism will forward one at a time")
            return how
    raise Refused(refusals[-1])


WRITERS = {"pt2": write_pt2, "torchscript": write_torchscript}


def formats(options):
    """The formats to try, in this order."""
    asked = options.format
    by_name = FORMATS.get(os.path.splitext(options.output or "")[1].lower())
    if asked and by_name and asked != by_name:
        raise Refused(f"--format {asked} does not fit --output {options.output}; leave out one of them")
    asked = asked or by_name
    if options.trace and asked == "pt2":
        raise Refused("--trace is for TorchScript; leave it out, or choose --format torchscript")
    if asked == "pt2" and torch.__version__ < OLDEST_PT2:
        raise Refused(f"prism reads no .pt2 of torch {torch.__version__}; use torch {DEFAULT_PT2} or later, or --format torchscript")
    if asked or options.trace:
        return [asked or "torchscript"]
    return ["torchscript"] if torch.__version__ < DEFAULT_PT2 else ["pt2", "torchscript"]


def export(network, about, options):
    """Writes the file; returns its path, how it was written, and the number of classes."""
    cases, classes = expectation(network, about, options.channels)
    refusals = []
    for kind in formats(options):
        extension = next(extension for extension, known in FORMATS.items() if known == kind)
        path = options.output or options.stem + extension
        try:
            how = WRITERS[kind](network, about, cases, options, path)
        except Refused as error:
            refusals.append(str(error))
            continue
        if refusals:
            options.note(f"{refusals[0]}; this is TorchScript instead")
        return path, how, classes
    raise Refused("; ".join(refusals))


def main():
    options = arguments()
    try:
        network, about = load(options)
        about = complete(about, options, options.channels)
        name = options.network.rpartition(":")[2]
        choices = Choices(options.network, name, options.output, options.format, options.trace, options.channels)
        output, how, classes = export(network, about, choices)
    except Refused as error:
        sys.exit(f"export: {error}")
    except Exception as error:  # of the network's own code, or of a library
        sys.exit(f"export: {options.network}: {type(error).__name__}: {reason(error)}")
    height, width = about["image_size"]
    print(f"{output}: {how}, {classes} classes, images of {height}x{width}")


if __name__ == "__main__":
    main()
