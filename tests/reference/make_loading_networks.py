"""Small networks whose files have something built in that must be undone -> tests/data/loading/*.pt and expected.npz.

    python tests/reference/make_loading_networks.py

Training mode, statistics of the batch, a batch size, random numbers, a device, another number format, weights of
8 bits. Each is a network of two or three stages. What it must give is computed by PyTorch without hooks, from the
network in evaluation mode, image by image, and with the weights and statistics that the file holds. Needs torch
2.13.0, torchvision and numpy.
"""
import io
import os
import warnings
import zipfile

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn
from torchvision.ops import stochastic_depth

from make_networks import save_traced as save  # leaves out the paths of this machine

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "loading")
warnings.simplefilter("ignore")  # about quantisation


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 6, 3, 2, 1)
        self.second = nn.Conv2d(6, 8, 3, 2, 1)
        self.scores = nn.Linear(8, 5)

    def stages(self, x):
        return F.relu(self.second(F.relu(self.first(x))))

    def head(self, x):
        return self.scores(x.mean([2, 3]))

    def forward(self, x):
        return self.head(self.stages(x))


class Clamps(Plain):
    """Bounds of clamps as integers: of floating-point numbers, and of places in a row."""

    def stages(self, x):
        x = torch.clamp(self.first(x), 0, 6)
        return torch.clamp(self.second(x), min=0)

    def head(self, x):
        row = x.mean([2, 3])
        return self.scores(row[:, torch.arange(row.size(1)).clamp(0, 6)])


class Trained(Plain):
    """Batch-norm, channels, branches and values that are dropped: all of it only in training."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6)
        self.branch = nn.Conv2d(8, 8, 3, 1, 1)
        self.drop_channels = nn.Dropout2d(0.3)
        self.drop = nn.Dropout(0.5)
        self.alpha = nn.AlphaDropout(0.2)
        self.leaky = nn.RReLU(0.1, 0.4)

    def stages(self, x):
        x = self.leaky(self.norm(self.first(x)))
        x = F.relu(self.drop_channels(self.second(x)))
        return F.relu(x + stochastic_depth(self.branch(x), 0.4, "row", self.training))

    def head(self, x):
        return self.scores(self.alpha(self.drop(x.mean([2, 3]))))


class AlwaysDrops(Plain):
    """The function without `training=self.training`: a common mistake, and evaluation mode does not reach it."""

    def head(self, x):
        return self.scores(F.dropout(x.mean([2, 3]), 0.5))


class InstanceNorm(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.InstanceNorm2d(6, track_running_stats=True)
        self.norm.running_mean.uniform_(-0.2, 0.2)
        self.norm.running_var.uniform_(0.2, 0.6)

    def stages(self, x):
        return F.relu(self.second(F.relu(self.norm(self.first(x)))))


class Attends(Plain):
    """Attention between the pixels of the last stage, whose weights are dropped in training."""

    def attended(self, x):
        """The pixels in rows, [N,L,C]."""
        x = x.flatten(2).transpose(1, 2)
        return x + F.scaled_dot_product_attention(x, x, x, dropout_p=0.5 if self.training else 0.0)

    def head(self, x):
        return self.scores(self.attended(x).mean(1))

    def read(self, images):
        """What the head reads, as [N,C,h,w]."""
        x = self.stages(images)
        return self.attended(x).transpose(1, 2).reshape(x.shape)


class BatchStatistics(Plain):
    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm2d(6, track_running_stats=False)

    def stages(self, x):
        return F.relu(self.second(F.relu(self.norm(self.first(x)))))


class OneValue(Plain):
    """A batch-norm after the pooling, without statistics: of one image it makes zeros."""

    def __init__(self):
        super().__init__()
        self.norm = nn.BatchNorm1d(8, track_running_stats=False)

    def head(self, x):
        return self.scores(self.norm(x.mean([2, 3])))


class Standardises(Plain):
    """By the mean and deviation of all images at once."""

    def forward(self, x):
        return super().forward((x - x.mean()) / x.std())


class ByTheLargest(Plain):
    """Divides by the largest value of all images."""

    def forward(self, x):
        return super().forward(x / x.max())


class Counts(Plain):
    """Counts its passes, and lets the count change what it says."""

    def __init__(self):
        super().__init__()
        self.register_buffer("count", torch.zeros(1))

    def forward(self, x):
        self.count.add_(0.5)
        return super().forward(x + self.count)


class TableOfThree(Plain):
    """Adds a table with a row for each of three images, all of them alike."""

    def head(self, x):
        return self.scores(x.mean([2, 3]) + torch.full([3, 8], 0.5))


class BatchOfFour(Plain):
    def head(self, x):
        return self.scores(x.mean([2, 3]).view(4, 8))


class BatchOfOne(Plain):
    def head(self, x):
        return self.scores(x.mean([2, 3]).view(1, -1))


class AddsUp(Plain):
    """A batch of four, in which each image changes those after it."""

    def head(self, x):
        return self.scores(x.mean([2, 3]).view(4, 8).cumsum(0))


class Random(Plain):
    def forward(self, x):
        return super().forward(x + 0.3 * torch.randn_like(x))


class OnDevice(Plain):
    """Constants on a device, as in a file that was traced on a GPU."""

    def forward(self, x):
        shift = torch.full([1, 3, 1, 1], 0.25, device="cpu")
        return super().forward(x.to("cpu") - shift) + torch.arange(5, device="cpu")


class HalfInside(Plain):
    def forward(self, x):
        shift = torch.full([1, 8, 1, 1], 0.25, dtype=torch.half)
        return self.head((self.stages(x).half() + shift).float())


class DoubleInside(Plain):
    def __init__(self):
        super().__init__()
        self.shift = torch.full([1, 3, 1, 1], 0.25, dtype=torch.double)

    def forward(self, x):
        return super().forward((x - self.shift).float())


class Quantised(nn.Module):
    def __init__(self):
        super().__init__()
        self.quantise = torch.ao.quantization.QuantStub()
        self.stages = nn.Sequential(nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.Conv2d(6, 8, 3, 2, 1), nn.ReLU())
        self.scores = nn.Linear(8, 5)
        self.dequantise = torch.ao.quantization.DeQuantStub()

    def forward(self, x):
        return self.dequantise(self.scores(self.stages(self.quantise(x)).mean([2, 3])))


def seeded(kind):
    torch.manual_seed(11)
    network = kind().eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d) and module.running_mean is not None:
            module.running_mean.uniform_(-0.3, 0.3)
            module.running_var.uniform_(0.2, 0.8)
    return network


def path(name):
    return os.path.join(FOLDER, f"{name}.pt")


def trace(name, network, images):
    save(torch.jit.trace(network, images, check_trace=False), path(name))


def replace_in_code(name, old, new):
    """Rewrites the code of a file, in place."""
    with zipfile.ZipFile(path(name)) as archive:
        entries = [(entry.filename, archive.read(entry)) for entry in archive.infolist()]
    count = 0
    made = io.BytesIO()
    with zipfile.ZipFile(made, "w", zipfile.ZIP_STORED) as archive:
        for entry, content in entries:
            if entry.endswith(".py"):
                count += content.count(old)
                content = content.replace(old, new)
            info = zipfile.ZipInfo(entry, (1980, 1, 1, 0, 0, 0))
            archive.writestr(info, content)
    assert count, name
    with open(path(name), "wb") as file:
        file.write(made.getvalue())


os.makedirs(FOLDER, exist_ok=True)
torch.manual_seed(12)
images = torch.rand(5, 3, 32, 32) + torch.linspace(0, 0.5, 5).view(5, 1, 1, 1)
arrays = {"input": images.numpy()}


def expect(name, network, stages=None):
    """The scores and the last activation of each image by itself."""
    with torch.no_grad():
        each = images.split(1)
        arrays[f"{name}_logits"] = torch.cat([network(image) for image in each]).numpy()
        arrays[f"{name}_excitation"] = torch.cat([(stages or network.stages)(image) for image in each]).numpy()


def standard(image):
    return (image - image.mean()) / image.std()


with torch.no_grad():
    for kind in (Trained, InstanceNorm, Attends):
        network = seeded(kind).train()
        trace(kind.__name__, network, images[:2])
        # Tracing was a pass in training mode, which has moved the statistics: those of the file count.
        network.load_state_dict(torch.jit.load(path(kind.__name__)).state_dict())
        expect(kind.__name__, network.eval(), network.read if kind is Attends else None)
    trace("AlwaysDrops", seeded(AlwaysDrops), images[:1])
    save(torch.jit.script(seeded(AlwaysDrops)), path("AlwaysDropsScripted"))
    expect("AlwaysDrops", seeded(Plain))
    for kind in (BatchStatistics, BatchOfOne, OnDevice, DoubleInside):
        trace(kind.__name__, seeded(kind), images[:1])
        expect(kind.__name__, seeded(kind))
    for kind in (OnDevice, DoubleInside):
        arrays[f"{kind.__name__}_excitation"] = seeded(kind).stages(images - 0.25).numpy()
    replace_in_code("OnDevice", b'torch.device("cpu")', b'torch.device("cuda:0")')
    trace("Standardises", seeded(Standardises), images[:1])
    expect("Standardises", seeded(Standardises), lambda image: seeded(Plain).stages(standard(image)))
    trace("ByTheLargest", seeded(ByTheLargest), images[:1])
    expect("ByTheLargest", seeded(ByTheLargest), lambda image: seeded(Plain).stages(image / image.max()))
    save(torch.jit.script(seeded(Clamps)), path("Clamps"))
    expect("Clamps", seeded(Clamps))
    # Every image is the first one that the stored network sees.
    trace("Counts", seeded(Counts), images[:1])
    counted = torch.jit.load(path("Counts")).count + 0.5
    expect("Counts", lambda image: seeded(Plain)(image + counted), lambda image: seeded(Plain).stages(image + counted))
    trace("TableOfThree", seeded(TableOfThree), images[:3])
    plain = seeded(Plain)
    expect("TableOfThree", lambda image: plain.scores(plain.stages(image).mean([2, 3]) + 0.5), plain.stages)
    trace("BatchOfFour", seeded(BatchOfFour), images[:4])
    expect("BatchOfFour", seeded(Plain))
    trace("AddsUp", seeded(AddsUp), images[:4])
    trace("OneValue", seeded(OneValue), images[:2])
    trace("Random", seeded(Random), images[:1])
    # In float32, which the file is brought to.
    trace("HalfInside", seeded(HalfInside), images[:1])
    plain = seeded(Plain)
    arrays["HalfInside_excitation"] = (plain.stages(images) + 0.25).numpy()
    arrays["HalfInside_logits"] = plain.head(plain.stages(images) + 0.25).numpy()

    torch.backends.quantized.engine = "fbgemm"
    network = torch.ao.quantization.quantize_dynamic(seeded(Plain), {nn.Linear}, dtype=torch.qint8)
    trace("DynamicInt8", network, images[:1])
    expect("DynamicInt8", network)
    network = seeded(Quantised)
    network.qconfig = torch.ao.quantization.get_default_qconfig("fbgemm")
    torch.ao.quantization.prepare(network, inplace=True)
    network(images)
    torch.ao.quantization.convert(network, inplace=True)
    trace("Quantised", network, images[:1])
    save(torch.jit.script(network), path("QuantisedScripted"))

# Grad-CAM of the layer that the 8-bit weights stand for: the gradient of a mean over pixels is the weight / pixels.
dynamic = torch.ao.quantization.quantize_dynamic(seeded(Plain), {nn.Linear}, dtype=torch.qint8)
weights = dynamic.scores.weight().dequantize()
excitation, logits = (torch.from_numpy(arrays[f"DynamicInt8_{part}"]) for part in ("excitation", "logits"))
pixels = excitation.shape[2] * excitation.shape[3]
of_top = weights[logits.argmax(1)] / pixels
arrays["DynamicInt8_gradcam"] = F.relu((excitation * of_top[:, :, None, None]).sum(1, keepdim=True)).numpy()
np.savez_compressed(os.path.join(FOLDER, "expected.npz"), **arrays)
