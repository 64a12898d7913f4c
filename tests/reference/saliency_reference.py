"""Grad-CAM and contrastive excitation backpropagation in eager PyTorch: the independent computation that the
Rust tests compare with.

Nothing here is part of the product. The network is traced with torch.fx and run node by node; excitation
backpropagation then walks the recorded nodes backwards, one written-out rule per kind of operator.

    python tests/reference/saliency_reference.py --arrays FOLDER --torch-home FOLDER

compares it with FOLDER/saliency.npz (input from FOLDER/vgg16.npz and FOLDER/resnet18.npz; weights in
TORCH_HOME/hub/checkpoints). Needs torch 2.13.0 and torchvision 0.28.0. Exit status 1 on disagreement.

Selvaraju et al., "Grad-CAM", ICCV 2017. Zhang et al., "Top-down Neural Attention by Excitation Backprop",
ECCV 2016.
"""
import argparse
import copy
import operator
import os
import sys

import numpy as np
import torch
import torch.nn.functional as F
from torch import fx, nn

from prism_reference import compare_vector, torchvision_network

EPSILON = 1e-20  # keeps a unit without any positive input from dividing by zero: its share is lost


class Unsupported(Exception):
    """An operator without a rule; the message names it."""


# in-place operators and the two divisions, as the function of torch that gives a new tensor
PLAIN = {
    operator.iadd: torch.add,
    operator.isub: torch.sub,
    operator.imul: torch.mul,
    operator.itruediv: torch.div,
    operator.truediv: torch.div,
}


# --- the forward pass, node by node ----------------------------------------------------------------------


class Tracer(fx.Tracer):
    """Notes for every module, leaf or not, the nodes that enter and leave it: {path: [(input, output)]}."""

    def __init__(self):
        super().__init__()
        self.calls = {}

    def call_module(self, m, forward, args, kwargs):
        output = super().call_module(m, forward, args, kwargs)
        entering = args[0].node if args and isinstance(args[0], fx.Proxy) else None
        leaving = output.node if isinstance(output, fx.Proxy) else None
        self.calls.setdefault(self.path_of_module(m), []).append((entering, leaving))
        return output


class Recorded:
    """One forward pass over `images` [N, 3, H, W]: the value of every node, from before any later in-place
    change, for the network is run without in-place operators."""

    def __init__(self, network, images):
        with torch.no_grad():
            untouched = list(flat(network(images.clone())))
        self.network = copy.deepcopy(network)
        for module in self.network.modules():
            if hasattr(module, "inplace"):
                module.inplace = False
        tracer = Tracer()
        self.graph = tracer.trace(self.network)
        self.calls = tracer.calls
        self.modules = dict(self.network.named_modules())
        self.values, self.from_image = {}, set()
        for node in self.graph.nodes:
            if node.op == "placeholder":
                self.values[node] = images.clone().requires_grad_()
                self.from_image.add(node)
            elif node.op != "output":
                self.values[node] = self.evaluate(node, self.values)
                if any(source in self.from_image for source in node.all_input_nodes):
                    self.from_image.add(node)
        self.scores = self.score_node()
        value = self.values[self.scores].detach()
        same = any(v.shape == value.shape and torch.allclose(v, value, rtol=1e-4, atol=1e-5) for v in untouched)
        if not same:
            raise Unsupported("the network without in-place operators gives other scores")

    def evaluate(self, node, values):
        """The node's result with the given values of its inputs; in-place forms as their plain ones."""
        plain = {key: value for key, value in node.kwargs.items() if key != "inplace"}
        args, kwargs = (fx.node.map_arg(part, lambda source: values[source]) for part in (node.args, plain))
        if node.op == "get_attr":
            value = self.network
            for part in node.target.split("."):
                value = getattr(value, part)
            return value.detach()
        if node.op == "call_module":
            return self.modules[node.target](*args, **kwargs)
        if node.op == "call_method":
            return getattr(args[0], node.target.rstrip("_"))(*args[1:], **kwargs)
        return PLAIN.get(node.target, node.target)(*args, **kwargs)

    def operation(self, node):
        """The class of the module ("Conv2d"), or the name of the function or method ("add", also for += and add_)."""
        if node.op == "call_module":
            return type(self.modules[node.target]).__name__
        if node.op == "call_method":
            return node.target.rstrip("_")
        target = PLAIN.get(node.target, node.target)
        return getattr(target, "__name__", str(target))

    def score_node(self):
        """The node of the first [N, K] tensor in the network's output (a tensor, tuple or dict)."""
        output = next(node for node in self.graph.nodes if node.op == "output").args[0]
        if isinstance(output, fx.Node) and isinstance(self.values[output], tuple):
            output = output.args  # a named tuple is made by a node of its own
        return next(node for node in flat(output) if self.values[node].dim() == 2)

    def place(self, side, path):
        """The node at the "input" or "output" of the module at `path`, which must be called once."""
        calls = self.calls.get(path, [])
        if len(calls) != 1:
            raise KeyError(f"module {path} is called {len(calls)} times")
        return calls[0][side == "output"]

    def value(self, node):
        return self.values[node].detach()

    def sources(self, node):
        """The node's inputs that are tensors (or tuples of them) and depend on the image."""
        kinds = (torch.Tensor, tuple, list)
        return [s for s in node.all_input_nodes if s in self.from_image and isinstance(self.values[s], kinds)]


def flat(value):
    """The non-None leaves of nested tuples, lists and dictionaries, in order."""
    if isinstance(value, dict):
        value = tuple(value.values())
    if isinstance(value, (tuple, list)):
        for item in value:
            yield from flat(item)
    elif value is not None:
        yield value


# --- Grad-CAM ---------------------------------------------------------------------------------------------


def top_classes(scores):
    return scores.argmax(dim=1)


def gradcam(network, images, place, targets=None):
    """relu(sum over c of A_c * mean over pixels of d y_t / d A_c) at place (side, module path): [N, 1, h, w].
    `targets` [N] class ids, by default each image's own top class."""
    run = Recorded(network, images)
    node = run.place(*place)
    scores, activation = run.values[run.scores], run.values[node]
    targets = top_classes(scores) if targets is None else targets
    # images do not mix in eval mode, so one sum gives each image its own gradient
    chosen = scores.gather(1, targets[:, None]).sum()
    (gradient,) = torch.autograd.grad(chosen, activation)
    weights = gradient.mean(dim=(2, 3), keepdim=True)
    return F.relu((activation.detach() * weights).sum(dim=1, keepdim=True))


# --- rules: from the winning probability p of a node's output to that of its inputs, {source: p} ------------


def adjoint(f, inputs, p):
    """The transpose of the linear f at `inputs` (or its gradient there, where not linear) applied to p."""
    with torch.enable_grad():
        leaves = [x.detach().clone().requires_grad_() for x in inputs]
        return torch.autograd.grad(f(*leaves), leaves, grad_outputs=p)


def excite(f, x, p):
    """Eq. 5 of Zhang et al. for y = f(x) linear with weights that are not negative: x+ * f'(p / f(x+))."""
    x = x.clamp(min=0)
    with torch.no_grad():
        y = f(x)
    (share,) = adjoint(f, [x], p / (y + EPSILON))
    return x * share


def folded_batch_norm(run, node):
    """The batch-norm that alone reads this convolution's or linear layer's output, or None."""
    users = list(node.users)
    if len(users) == 1 and run.operation(users[0]).startswith("BatchNorm"):
        return run.modules[users[0].target]
    return None


def weighted(run, node, p, negated):
    """Convolution and linear layer, without bias, with the batch-norm behind it folded into its weights: a
    negative scale there turns inhibition into excitation."""
    module = run.modules[node.target]
    weight = module.weight.detach()
    norm = folded_batch_norm(run, node)
    if norm is not None:
        scale = (norm.running_var + norm.eps).rsqrt()
        scale = scale if norm.weight is None else scale * norm.weight.detach()
        if isinstance(module, nn.ConvTranspose2d):  # [in, out / groups, kh, kw]
            per_group = weight.view(module.groups, -1, *weight.shape[1:])
            weight = (per_group * scale.view(module.groups, 1, -1, 1, 1)).view(weight.shape)
        else:
            weight = weight * scale.view(-1, *[1] * (weight.dim() - 1))
    positive = (-weight if negated else weight).clamp(min=0)
    if isinstance(module, nn.Linear):
        f = lambda x: F.linear(x, positive)
    elif isinstance(module, nn.ConvTranspose2d):
        f = lambda x: F.conv_transpose2d(
            x, positive, None, module.stride, module.padding, module.output_padding, module.groups, module.dilation
        )
    else:
        if module.padding_mode != "zeros":
            raise Unsupported(f"{node.name}: a convolution with padding mode {module.padding_mode}")
        f = lambda x: F.conv2d(x, positive, None, module.stride, module.padding, module.dilation, module.groups)
    (source,) = run.sources(node)
    return {source: excite(f, run.value(source), p)}


def averaged(run, node, p):
    """Average-pooling, or the mean over the pixels of [N, C, h, w]: a convolution with equal weights."""
    (source,) = run.sources(node)
    x = run.value(source)
    if run.operation(node) == "mean":
        dims = node.kwargs.get("dim", node.args[1] if len(node.args) > 1 else None)
        dims = {d % 4 for d in ([dims] if isinstance(dims, int) else dims or ())}
        if x.dim() != 4 or dims != {2, 3}:
            raise Unsupported(f"{node.name}: a mean that is not over the pixels")
    return {source: excite(lambda x: run.evaluate(node, Replaced(run, {source: x})), x, p)}


def passed(run, node, p):
    """Element-wise non-linearities, normalisations, dropout: p goes through."""
    source = run.sources(node)[0]
    if run.values[source].shape != p.shape:
        raise Unsupported(f"{node.name}: {run.operation(node)} that changes the shape")
    return {source: p}


def moved(run, node, p):
    """Max-pooling and whatever only moves values: the ordinary gradient."""
    sources = run.sources(node)
    tuples = [s for s in sources if not isinstance(run.values[s], torch.Tensor)]
    if tuples:  # one piece of a chunk or split
        (source,), index = sources, node.args[1]
        if run.operation(node) != "getitem" or not isinstance(index, int):
            raise Unsupported(f"{node.name}: {run.operation(node)} of a tuple")
        pieces = [torch.zeros_like(piece) for piece in run.values[source]]
        pieces[index] = p
        return {source: tuple(pieces)}
    f = lambda *inputs: run.evaluate(node, Replaced(run, dict(zip(sources, inputs))))
    return dict(zip(sources, adjoint(f, [run.value(s) for s in sources], p)))


def shared(run, node, p):
    """A sum: in proportion to the positive parts. A constant summand gets nothing."""
    if node.kwargs.get("alpha", 1) != 1:
        raise Unsupported(f"{node.name}: a sum with alpha")
    sources = run.sources(node)
    if len(sources) == 1:
        return passed(run, node, p)  # also x + x, where both halves come together again
    a, b = (run.value(s).clamp(min=0) for s in sources)
    share = p / (a + b + EPSILON)
    return {s: (share * x).sum_to_size(x.shape) for s, x in zip(sources, (a, b))}


def gated(run, node, p):
    """A product: to the tensor with more elements, the other being a constant gate; of two of the same size
    to the one the other is computed from."""
    sources = run.sources(node)
    if len(sources) == 1:
        return passed(run, node, p)
    a, b = sorted(sources, key=lambda s: run.values[s].numel(), reverse=True)
    if run.values[a].numel() == run.values[b].numel():
        if comes_from(b, a):
            return {a: p}
        if comes_from(a, b):
            return {b: p}
        raise Unsupported(f"{node.name}: a product of two tensors of one size, neither computed from the other")
    return {a: p}


def comes_from(node, ancestor):
    """Whether `node` is computed from `ancestor`."""
    pending, seen = [node], set()
    while pending:
        for source in pending.pop().all_input_nodes:
            if source is ancestor:
                return True
            if source not in seen:
                seen.add(source)
                pending.append(source)
    return False


def by_constant(run, node, p):
    """Difference and quotient only where a constant is taken away or divides."""
    if len(run.sources(node)) != 1 or node.args[0] is not run.sources(node)[0]:
        raise Unsupported(f"{node.name}: {run.operation(node)} of two tensors")
    return passed(run, node, p)


class Replaced(dict):
    """Recorded values, some of them replaced; the others without history."""

    def __init__(self, run, values):
        super().__init__(values)
        self.run = run

    def __missing__(self, node):
        value = self.run.values[node]
        return value.detach() if isinstance(value, torch.Tensor) else value


WEIGHTED = {"Conv2d", "ConvTranspose2d", "Linear"}
RULES = {
    averaged: "AvgPool2d AdaptiveAvgPool2d avg_pool2d adaptive_avg_pool2d mean",
    passed: "BatchNorm1d BatchNorm2d LayerNorm layer_norm Dropout Dropout2d dropout Identity contiguous "
    "ReLU relu ReLU6 relu6 Hardtanh hardtanh LeakyReLU leaky_relu ELU elu PReLU GELU gelu SiLU silu Mish mish Sigmoid "
    "sigmoid Tanh tanh Hardswish hardswish Hardsigmoid hardsigmoid Softplus softplus clamp",
    moved: "MaxPool2d AdaptiveMaxPool2d max_pool2d adaptive_max_pool2d Flatten flatten view reshape permute transpose "
    "squeeze unsqueeze getitem chunk split narrow cat concat PixelShuffle ChannelShuffle channel_shuffle ZeroPad2d pad",
    shared: "add",
    gated: "mul",
    by_constant: "sub div",
}
RULES = {name: rule for rule, names in RULES.items() for name in names.split()}


def backward_through(run, node, p, negated):
    operation = run.operation(node)
    if operation in WEIGHTED:
        return weighted(run, node, p, negated)
    if operation not in RULES:
        raise Unsupported(f"{node.name}: excitation backpropagation has no rule for {operation}")
    return RULES[operation](run, node, p)


# --- excitation backpropagation --------------------------------------------------------------------------


def added(a, b):
    return tuple(x + y for x, y in zip(a, b)) if isinstance(a, tuple) else a + b


def amount(p):
    """The sum of p per image: [N]."""
    return sum(x.flatten(1).sum(1) for x in flat(p))


def walk(run, p, until, negated=None):
    """Carries p {node: tensor} back to the node `until`; what by-passes it is kept where it is. What each
    node loses (no positive input to hand on to) is noted in run.lost {node name: [N]}."""
    p = dict(p)
    for node in reversed(run.graph.nodes):
        if node is until:
            return p
        if node not in p or node.op == "placeholder":
            continue
        leaving = p.pop(node)
        shares = backward_through(run, node, leaving, node is negated)
        run.lost[node.name] = amount(leaving) - sum(amount(share) for share in shares.values())
        for source, share in shares.items():
            p[source] = added(p[source], share) if source in p else share
    raise KeyError(f"{until} lies on no way to the scores")


def score_layer(run):
    """The one convolution or linear layer that makes the scores: behind it only pooling, views and
    element-wise operators."""
    node = run.scores
    while run.operation(node) not in WEIGHTED:
        sources = run.sources(node)
        if len(sources) != 1:
            raise Unsupported(f"{node.name}: no one layer makes the scores")
        node = sources[0]
    return node


def excitation_probability(network, images, place, targets=None, contrastive=False, contrast_place=None):
    """p [N, C, h, w] at place (side, module path), signed where contrastive, and what each node lost of the
    first pass. The contrast is taken at `contrast_place` (by default `place`): all rules behind the negated
    layer are linear in p, so that where it is taken changes roundings alone."""
    run = Recorded(network, images)
    node = run.place(*place)
    contrast = node if contrast_place is None else run.place(*contrast_place)
    scores = run.value(run.scores)
    targets = top_classes(scores) if targets is None else targets
    start = {run.scores: F.one_hot(targets, scores.shape[1]).to(scores.dtype)}
    if not contrastive:
        run.lost = {}
        return walk(run, start, node)[node], run.lost
    run.lost = {}
    second = walk(run, start, contrast, negated=score_layer(run))
    run.lost = {}
    p = walk(run, start, contrast)
    for at, share in second.items():
        share = tuple(-x for x in share) if isinstance(share, tuple) else -share
        p[at] = added(p[at], share) if at in p else share
    return walk(run, p, node)[node], run.lost


def ebp(network, images, place, targets=None, contrastive=False, contrast_place=None):
    """relu(sum over channels of p): [N, 1, h, w]."""
    p, _ = excitation_probability(network, images, place, targets, contrastive, contrast_place)
    return F.relu(p.sum(dim=1, keepdim=True))


# --- comparison with stored arrays -------------------------------------------------------------------------

FINAL = {"vgg16": ("output", "features.30"), "resnet18": ("output", "layer4")}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--arrays", required=True, help="folder of saliency.npz, vgg16.npz and resnet18.npz")
    parser.add_argument("--torch-home", required=True, help="folder with hub/checkpoints/*.pth")
    options = parser.parse_args()
    torch.set_num_threads(1)  # sums in one order

    with np.load(os.path.join(options.arrays, "saliency.npz")) as stored:
        stored = {key: stored[key] for key in stored.files}
    failures = 0
    print(f"{'array':18} {'worst':>10} {'mean':>10}  agrees   (share of the largest magnitude; sums per image)")
    for name, place in FINAL.items():
        with np.load(os.path.join(options.arrays, f"{name}.npz")) as arrays:
            images = torch.from_numpy(arrays["input"])
        network = torchvision_network(name, options.torch_home)
        with torch.no_grad():
            targets = top_classes(network(images))
        if not np.array_equal(targets.numpy(), stored.pop(f"target_{name}")):
            sys.exit(f"{name}: other top classes")
        methods = {
            "gradcam": lambda: gradcam(network, images, place),
            "ebp": lambda: ebp(network, images, place),
            "cebp": lambda: ebp(network, images, place, contrastive=True),
        }
        for method, ours in methods.items():
            key = f"{method}_{name}"
            if key not in stored:
                continue
            found = ours().numpy()
            worst, mean, _, agrees = compare_vector(found, stored.pop(key))
            sums = " ".join(f"{total:.6f}" for total in found.sum(axis=(1, 2, 3)))
            print(f"{key:18} {worst:10.2e} {mean:10.2e}  {'yes' if agrees else 'NO ':6}   {sums}")
            failures += not agrees
    if stored:
        sys.exit(f"saliency.npz: arrays that nothing compares with: {sorted(stored)}")
    print(f"{failures} disagree")
    sys.exit(1 if failures else 0)


if __name__ == "__main__":
    main()
