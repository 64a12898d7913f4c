"""Writes the tiny seeded TorchScript classifiers that the tests hook, and a few files that must be refused.

    python tests/reference/make_networks.py   # -> tests/data/networks/*.pt, tests/data/bad_models/*
    python tests/reference/make_networks.py tiny_gated tiny_dense   # these networks alone

Each network shows one habit of a family of CNNs on a 64x64 input (any size runs): in-place ReLU, ceil-mode
and stride-1 pooling, a projection executed after the main path, padding made for one convolution, a
convolution as classifier, gates, concatenation, shuffled channels, outputs that are no plain tensor. Each
is written scripted and traced with plain `torch.jit.save`, unfrozen. Needs torch 2.13.0.
"""
import io
import os
import sys
from typing import Dict, NamedTuple, Optional

import torch
import torch._sources
import torch.nn.functional as F
from torch import nn

SIZE = 64
CLASSES = 10
HERE = os.path.dirname(os.path.abspath(__file__))
DATA = os.path.join(os.path.dirname(HERE), "data")


class TinyVgg(nn.Module):
    """Convolutions with in-place ReLU and three max-pools, the last of which ends the features."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 8, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(8, 16, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
            nn.Conv2d(16, 24, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.Conv2d(24, 24, 3, padding=1),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(2),
        )
        # reduces at this input size, as VGG's 7x7 does off 224x224: the pooling is not part of the features
        self.avgpool = nn.AdaptiveAvgPool2d((2, 2))
        self.classifier = nn.Sequential(
            nn.Linear(24 * 4, 32), nn.ReLU(inplace=True), nn.Dropout(0.5), nn.Linear(32, CLASSES)
        )

    def forward(self, x):
        x = self.avgpool(self.features(x))
        return self.classifier(torch.flatten(x, 1))


class BasicBlock(nn.Module):
    """Two 3x3 convolutions and a residual sum in place; the projection runs after the main path."""

    def __init__(self, c_in, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_out, 3, stride, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(c_out, c_out, 3, 1, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_out)
        self.downsample: Optional[nn.Sequential] = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.bn2(self.conv2(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class Bottleneck(nn.Module):
    """1x1, 3x3 (which carries the stride), 1x1: another activation of the stream's resolution enters the
    strided convolution, executed before the projection reads the stream."""

    def __init__(self, c_in, c_mid, c_out, stride):
        super().__init__()
        self.conv1 = nn.Conv2d(c_in, c_mid, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(c_mid)
        self.conv2 = nn.Conv2d(c_mid, c_mid, 3, stride, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(c_mid)
        self.conv3 = nn.Conv2d(c_mid, c_out, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(c_out)
        self.relu = nn.ReLU(inplace=True)
        self.downsample: Optional[nn.Sequential] = None
        if stride != 1 or c_in != c_out:
            self.downsample = nn.Sequential(
                nn.Conv2d(c_in, c_out, 1, stride, bias=False), nn.BatchNorm2d(c_out)
            )

    def forward(self, x):
        identity = x
        out = self.relu(self.bn1(self.conv1(x)))
        out = self.relu(self.bn2(self.conv2(out)))
        out = self.bn3(self.conv3(out))
        if self.downsample is not None:
            identity = self.downsample(x)
        out += identity
        return self.relu(out)


class TinyResnet(nn.Module):
    """Stem, max-pool, two residual stages, the second of half the resolution."""

    def __init__(self, layer1, layer2, c_out):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 12, 7, 2, 3, bias=False)
        self.bn1 = nn.BatchNorm2d(12)
        self.relu = nn.ReLU(inplace=True)
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.layer1 = layer1
        self.layer2 = layer2
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.fc = nn.Linear(c_out, CLASSES)

    def forward(self, x):
        x = self.maxpool(self.relu(self.bn1(self.conv1(x))))
        x = self.layer2(self.layer1(x))
        return self.fc(torch.flatten(self.avgpool(x), 1))


def tiny_resnet():
    layer1 = nn.Sequential(BasicBlock(12, 12, 1), BasicBlock(12, 12, 1))
    layer2 = nn.Sequential(BasicBlock(12, 24, 2), BasicBlock(24, 24, 1))
    return TinyResnet(layer1, layer2, 24)


def tiny_bottleneck():
    layer1 = nn.Sequential(Bottleneck(12, 8, 24, 1), Bottleneck(24, 8, 24, 1))
    layer2 = nn.Sequential(Bottleneck(24, 12, 32, 2), Bottleneck(32, 12, 32, 1))
    return TinyResnet(layer1, layer2, 32)


class BasicConv2d(nn.Module):
    """Convolution, batch-norm and a functional in-place ReLU."""

    def __init__(self, c_in, c_out, kernel_size: int, stride: int = 1, padding: int = 0):
        super().__init__()
        self.conv = nn.Conv2d(c_in, c_out, kernel_size, stride, padding, bias=False)
        self.bn = nn.BatchNorm2d(c_out, eps=0.001)

    def forward(self, x):
        return F.relu(self.bn(self.conv(x)), inplace=True)


class Inception(nn.Module):
    """Three branches side by side, one behind a max-pool of stride 1."""

    def __init__(self, c_in, c_branch):
        super().__init__()
        self.branch1 = BasicConv2d(c_in, c_branch, 1)
        self.branch2 = nn.Sequential(
            BasicConv2d(c_in, c_branch, 1), BasicConv2d(c_branch, c_branch, 3, padding=1)
        )
        self.branch3 = nn.Sequential(
            nn.MaxPool2d(3, stride=1, padding=1, ceil_mode=True), BasicConv2d(c_in, c_branch, 1)
        )

    def forward(self, x):
        return torch.cat([self.branch1(x), self.branch2(x), self.branch3(x)], 1)


class InceptionOutput(NamedTuple):
    logits: torch.Tensor
    aux: Optional[torch.Tensor]


class TinyInception(nn.Module):
    """As GoogLeNet: scripted it returns a named tuple whose second field is None in eval mode. Traced, it
    returns a plain tuple of two [N, K] tensors, of which the auxiliary one is computed first."""

    def __init__(self):
        super().__init__()
        self.conv1 = BasicConv2d(3, 8, 7, stride=2, padding=3)
        self.maxpool1 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.conv2 = BasicConv2d(8, 16, 3, padding=1)
        self.maxpool2 = nn.MaxPool2d(3, stride=2, ceil_mode=True)
        self.inception3a = Inception(16, 8)
        self.inception3b = Inception(24, 10)
        self.dropout = nn.Dropout(0.2)
        self.fc = nn.Linear(30, CLASSES)
        self.aux = nn.Linear(24, CLASSES)

    def forward(self, x) -> InceptionOutput:
        x = self.maxpool1(self.conv1(x))
        x = self.inception3a(self.maxpool2(self.conv2(x)))
        aux: Optional[torch.Tensor] = None
        if self.training or torch.jit.is_tracing():
            aux = self.aux(x.mean([2, 3]))
        x = self.inception3b(x)
        logits = self.fc(self.dropout(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1)))
        return InceptionOutput(logits, aux)


class PlainTuple(nn.Module):
    """The tuple that tracing an Inception leaves: no names."""

    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x):
        output = self.network(x)
        return output.logits, output.aux


class InvertedResidual(nn.Module):
    """Expand, depthwise, project (linear); with `same` the depthwise convolution is fed as TensorFlow pads."""

    def __init__(self, c_in, c_out, stride, expand, same):
        super().__init__()
        c_mid = c_in * expand
        self.residual = stride == 1 and c_in == c_out
        self.expand = nn.Sequential(
            nn.Conv2d(c_in, c_mid, 1, bias=False), nn.BatchNorm2d(c_mid), nn.ReLU6(inplace=True)
        )
        self.pad = nn.ZeroPad2d((0, 1, 0, 1)) if same else nn.Identity()
        self.depthwise = nn.Sequential(
            nn.Conv2d(c_mid, c_mid, 3, stride, 0 if same else 1, groups=c_mid, bias=False),
            nn.BatchNorm2d(c_mid),
            nn.ReLU6(inplace=True),
        )
        self.project = nn.Sequential(nn.Conv2d(c_mid, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        out = self.project(self.depthwise(self.pad(self.expand(x))))
        if self.residual:
            return x + out
        return out


class TinyMobilenet(nn.Module):
    """Inverted residuals, a head convolution to more channels, and a mean over space as global pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), nn.ReLU6(inplace=True)
        )
        self.blocks = nn.Sequential(
            InvertedResidual(8, 12, 2, 3, same=False),
            InvertedResidual(12, 12, 1, 3, same=False),
            InvertedResidual(12, 16, 2, 3, same=True),
            InvertedResidual(16, 16, 1, 3, same=False),
        )
        self.head = nn.Sequential(
            nn.Conv2d(16, 40, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU6(inplace=True)
        )
        self.dropout = nn.Dropout(0.2)
        self.classifier = nn.Linear(40, CLASSES)

    def forward(self, x):
        x = self.head(self.blocks(self.stem(x))).mean([2, 3])
        return self.classifier(self.dropout(x))


class Fire(nn.Module):
    """Squeeze, then two expansions side by side."""

    def __init__(self, c_in, c_squeeze, c_expand):
        super().__init__()
        self.squeeze = nn.Conv2d(c_in, c_squeeze, 1)
        self.squeeze_activation = nn.ReLU(inplace=True)
        self.expand1x1 = nn.Conv2d(c_squeeze, c_expand, 1)
        self.expand1x1_activation = nn.ReLU(inplace=True)
        self.expand3x3 = nn.Conv2d(c_squeeze, c_expand, 3, padding=1)
        self.expand3x3_activation = nn.ReLU(inplace=True)

    def forward(self, x):
        x = self.squeeze_activation(self.squeeze(x))
        return torch.cat(
            [self.expand1x1_activation(self.expand1x1(x)), self.expand3x3_activation(self.expand3x3(x))], 1
        )


class TinySqueezenet(nn.Module):
    """Fire modules; the classifier is a convolution to K channels, a ReLU and the global pooling. The
    strided stem goes straight into an in-place ReLU."""

    def __init__(self):
        super().__init__()
        self.features = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2),
            nn.ReLU(inplace=True),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(12, 6, 10),
            Fire(20, 6, 12),
            nn.MaxPool2d(3, 2, ceil_mode=True),
            Fire(24, 8, 16),
        )
        self.classifier = nn.Sequential(
            nn.Dropout(0.5), nn.Conv2d(32, CLASSES, 1), nn.ReLU(inplace=True), nn.AdaptiveAvgPool2d((1, 1))
        )

    def forward(self, x):
        return torch.flatten(self.classifier(self.features(x)), 1)


class TinyDict(nn.Module):
    """Returns a dictionary, features before logits. Its first reduction is an average pooling, which the
    TorchPRISM rule does not see."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 8, 3, padding=1)
        self.pool = nn.AvgPool2d(2)
        self.conv2 = nn.Conv2d(8, 16, 3, 2, 1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.conv3 = nn.Conv2d(16, 24, 3, padding=1, bias=False)
        self.bn3 = nn.BatchNorm2d(24)
        self.relu3 = nn.ReLU()
        self.fc = nn.Linear(24, CLASSES)

    def forward(self, x) -> Dict[str, torch.Tensor]:
        x = self.pool(torch.relu(self.conv1(x)))
        x = torch.relu(self.bn2(self.conv2(x)))
        x = self.relu3(self.bn3(self.conv3(x)))
        return {"features": x, "logits": self.fc(torch.flatten(F.adaptive_avg_pool2d(x, (1, 1)), 1))}


class Gate(nn.Module):
    """Squeeze and excitation: a number per channel and image, between 0 and 1, times the features."""

    def __init__(self, channels, c_squeeze):
        super().__init__()
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.fc1 = nn.Conv2d(channels, c_squeeze, 1)
        self.activation = nn.SiLU()
        self.fc2 = nn.Conv2d(c_squeeze, channels, 1)
        self.scale_activation = nn.Sigmoid()

    def forward(self, x):
        scale = self.scale_activation(self.fc2(self.activation(self.fc1(self.avgpool(x)))))
        return scale * x


class Swish(nn.Module):
    """SiLU written out: a product of two tensors of one size."""

    def forward(self, x):
        return x * torch.sigmoid(x)


class MBConv(nn.Module):
    """Expand, depthwise, gate, project (linear), residual sum where the shapes allow it."""

    def __init__(self, c_in, c_out, stride, expand):
        super().__init__()
        c_mid = c_in * expand
        self.residual = stride == 1 and c_in == c_out
        self.expand = nn.Sequential(nn.Conv2d(c_in, c_mid, 1, bias=False), nn.BatchNorm2d(c_mid), Swish())
        self.depthwise = nn.Sequential(
            nn.Conv2d(c_mid, c_mid, 3, stride, 1, groups=c_mid, bias=False),
            nn.BatchNorm2d(c_mid),
            nn.SiLU(inplace=True),
        )
        self.gate = Gate(c_mid, 4)
        self.project = nn.Sequential(nn.Conv2d(c_mid, c_out, 1, bias=False), nn.BatchNorm2d(c_out))

    def forward(self, x):
        out = self.project(self.gate(self.depthwise(self.expand(x))))
        if self.residual:
            out += x
        return out


class TinyGated(nn.Module):
    """As EfficientNet: gated inverted residuals; the first non-linearity of each is written out."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 8, 3, 2, 1, bias=False), nn.BatchNorm2d(8), Swish())
        self.blocks = nn.Sequential(
            MBConv(8, 12, 2, 3), MBConv(12, 12, 1, 3), MBConv(12, 16, 2, 3), MBConv(16, 16, 1, 3)
        )
        self.head = nn.Sequential(nn.Conv2d(16, 40, 1, bias=False), nn.BatchNorm2d(40), nn.SiLU(inplace=True))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(40, CLASSES))

    def forward(self, x):
        x = self.avgpool(self.head(self.blocks(self.stem(x))))
        return self.classifier(torch.flatten(x, 1))


class DenseLayer(nn.Module):
    """Normalisation before each convolution; the input is handed on beside the new channels."""

    def __init__(self, c_in, growth):
        super().__init__()
        self.norm1 = nn.BatchNorm2d(c_in)
        self.relu1 = nn.ReLU(inplace=True)
        self.conv1 = nn.Conv2d(c_in, 2 * growth, 1, bias=False)
        self.norm2 = nn.BatchNorm2d(2 * growth)
        self.relu2 = nn.ReLU(inplace=True)
        self.conv2 = nn.Conv2d(2 * growth, growth, 3, padding=1, bias=False)

    def forward(self, x):
        new = self.conv1(self.relu1(self.norm1(x)))
        new = self.conv2(self.relu2(self.norm2(new)))
        return torch.cat([x, new], 1)


class TinyDense(nn.Module):
    """As DenseNet: two dense blocks, between them a transition whose convolution goes straight into an
    average pooling; a last normalisation and a functional ReLU."""

    def __init__(self):
        super().__init__()
        self.conv0 = nn.Conv2d(3, 12, 7, 2, 3, bias=False)
        self.norm0 = nn.BatchNorm2d(12)
        self.relu0 = nn.ReLU(inplace=True)
        self.pool0 = nn.MaxPool2d(3, 2, 1)
        self.block1 = nn.Sequential(DenseLayer(12, 6), DenseLayer(18, 6), DenseLayer(24, 6))
        self.transition = nn.Sequential(
            nn.BatchNorm2d(30), nn.ReLU(inplace=True), nn.Conv2d(30, 16, 1, bias=False), nn.AvgPool2d(2, 2)
        )
        self.block2 = nn.Sequential(DenseLayer(16, 8), DenseLayer(24, 8))
        self.norm5 = nn.BatchNorm2d(32)
        self.avgpool = nn.AdaptiveAvgPool2d((1, 1))
        self.classifier = nn.Linear(32, CLASSES)

    def forward(self, x):
        x = self.pool0(self.relu0(self.norm0(self.conv0(x))))
        x = self.norm5(self.block2(self.transition(self.block1(x))))
        x = F.relu(x, inplace=True)
        return self.classifier(torch.flatten(self.avgpool(x), 1))


def channel_shuffle(x, groups: int):
    batch, channels, height, width = x.size()
    x = x.view(batch, groups, channels // groups, height, width)
    x = torch.transpose(x, 1, 2).contiguous()
    return x.view(batch, channels, height, width)


class ShuffleUnit(nn.Module):
    """Half of the channels pass by, or, with stride 2, both branches see all of them; then the channels of
    the two are interleaved."""

    def __init__(self, c_in, c_out, stride: int):
        super().__init__()
        self.stride = stride
        half = c_out // 2
        self.branch1 = nn.Sequential()
        if stride > 1:
            self.branch1 = nn.Sequential(
                nn.Conv2d(c_in, c_in, 3, stride, 1, groups=c_in, bias=False),
                nn.BatchNorm2d(c_in),
                nn.Conv2d(c_in, half, 1, bias=False),
                nn.BatchNorm2d(half),
                nn.ReLU(inplace=True),
            )
        self.branch2 = nn.Sequential(
            nn.Conv2d(c_in if stride > 1 else half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
            nn.Conv2d(half, half, 3, stride, 1, groups=half, bias=False),
            nn.BatchNorm2d(half),
            nn.Conv2d(half, half, 1, bias=False),
            nn.BatchNorm2d(half),
            nn.ReLU(inplace=True),
        )

    def forward(self, x):
        if self.stride == 1:
            x1, x2 = x.chunk(2, dim=1)
            out = torch.cat((x1, self.branch2(x2)), dim=1)
        else:
            out = torch.cat((self.branch1(x), self.branch2(x)), dim=1)
        return channel_shuffle(out, 2)


class TinyShuffle(nn.Module):
    """As ShuffleNetV2."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Sequential(
            nn.Conv2d(3, 12, 3, 2, 1, bias=False), nn.BatchNorm2d(12), nn.ReLU(inplace=True)
        )
        self.maxpool = nn.MaxPool2d(3, 2, 1)
        self.stage2 = nn.Sequential(ShuffleUnit(12, 24, 2), ShuffleUnit(24, 24, 1))
        self.stage3 = nn.Sequential(ShuffleUnit(24, 32, 2), ShuffleUnit(32, 32, 1))
        self.conv5 = nn.Sequential(nn.Conv2d(32, 40, 1, bias=False), nn.BatchNorm2d(40), nn.ReLU(inplace=True))
        self.fc = nn.Linear(40, CLASSES)

    def forward(self, x):
        x = self.stage3(self.stage2(self.maxpool(self.conv1(x))))
        return self.fc(self.conv5(x).mean([2, 3]))


class ChannelNorm(nn.LayerNorm):
    """Layer normalisation over the channels of [N, C, h, w]."""

    def forward(self, x):
        x = x.permute(0, 2, 3, 1)
        x = F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps)
        return x.permute(0, 3, 1, 2)


class ConvNextBlock(nn.Module):
    """Depthwise 7x7, then per pixel, channels last: normalise, expand, GELU, project; a scale per channel."""

    def __init__(self, channels):
        super().__init__()
        self.depthwise = nn.Conv2d(channels, channels, 7, padding=3, groups=channels)
        self.norm = nn.LayerNorm(channels, eps=1e-6)
        self.expand = nn.Linear(channels, 3 * channels)
        self.activation = nn.GELU()
        self.project = nn.Linear(3 * channels, channels)
        # both signs, as training leaves them
        self.layer_scale = nn.Parameter(torch.empty(channels, 1, 1).uniform_(-1, 1))

    def forward(self, x):
        out = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        out = self.project(self.activation(self.expand(out)))
        return x + self.layer_scale * out.permute(0, 3, 1, 2)


class TinyConvnext(nn.Module):
    """As ConvNeXt: patches as stem, no batch-norm, the features normalised again after the pooling."""

    def __init__(self):
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 18, 4, 4), ChannelNorm(18, eps=1e-6))
        self.stage1 = nn.Sequential(ConvNextBlock(18), ConvNextBlock(18))
        self.downsample = nn.Sequential(ChannelNorm(18, eps=1e-6), nn.Conv2d(18, 24, 2, 2))
        self.stage2 = nn.Sequential(ConvNextBlock(24), ConvNextBlock(24))
        self.avgpool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(ChannelNorm(24, eps=1e-6), nn.Flatten(1), nn.Linear(24, CLASSES))

    def forward(self, x):
        x = self.stage2(self.downsample(self.stage1(self.stem(x))))
        return self.classifier(self.avgpool(x))


NETWORKS = {
    "tiny_vgg": TinyVgg,
    "tiny_resnet": tiny_resnet,
    "tiny_bottleneck": tiny_bottleneck,
    "tiny_inception": TinyInception,
    "tiny_mobilenet": TinyMobilenet,
    "tiny_squeezenet": TinySqueezenet,
    "tiny_dict": TinyDict,
    "tiny_gated": TinyGated,
    "tiny_dense": TinyDense,
    "tiny_shuffle": TinyShuffle,
    "tiny_convnext": TinyConvnext,
}

# Normalisations that have been trained: every third scale is negative, shifts are not zero.
TRAINED_NORMS = {"tiny_gated", "tiny_dense", "tiny_shuffle", "tiny_convnext"}

# Tracing refuses a dictionary output unless told strict=False.
SCRIPTED_ONLY = {"tiny_dict"}


def build(name):
    """A seeded network in eval mode whose batch-norm statistics come from noise, so that every activation
    is alive."""
    torch.manual_seed(400 + list(NETWORKS).index(name))
    network = NETWORKS[name]()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if name in TRAINED_NORMS and isinstance(module, (nn.BatchNorm2d, nn.LayerNorm)):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.3)
            with torch.no_grad():
                module.weight[::3] *= -1
    network.train()
    with torch.no_grad():
        for _ in range(20):
            network(torch.randn(8, 3, SIZE, SIZE))
    return network.eval()


def script(network):
    return torch.jit.script(network)


def trace(name, network):
    if name == "tiny_inception":
        network = PlainTuple(network).eval()
    return torch.jit.trace(network, torch.zeros(1, 3, SIZE, SIZE))


# --- files that must be refused -----------------------------------------------------------------------


class NotNk(nn.Module):
    """A segmentation network: [N, K, H, W] and no class scores."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.conv2 = nn.Conv2d(6, CLASSES, 1)

    def forward(self, x):
        return self.conv2(torch.relu(self.conv1(x)))


class NoLayers(nn.Module):
    """Fully connected on the first pixels, whatever the image size: nothing to hook."""

    def __init__(self):
        super().__init__()
        self.fc1 = nn.Linear(192, 32)
        self.fc2 = nn.Linear(32, CLASSES)

    def forward(self, x):
        return self.fc2(torch.relu(self.fc1(torch.flatten(x, 1)[:, :192])))


class OneChannel(nn.Module):
    """A network of grey images."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(1, 6, 3, 2, 1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        return self.fc(torch.relu(self.conv1(x)).mean([2, 3]))


class Raises(nn.Module):
    """A network that loads and has layers to hook, and refuses every input."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x):
        x = torch.relu(self.conv1(x))
        if x.size(2) > 0:
            raise ValueError("this network refuses its input")
        return self.fc(x.mean([2, 3]))


class TwoInputs(nn.Module):
    """A network that wants a second tensor."""

    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 6, 3, 2, 1)
        self.fc = nn.Linear(6, CLASSES)

    def forward(self, x, y):
        return self.fc(torch.relu(self.conv1(x) + self.conv1(y)).mean([2, 3]))


class Transformer(nn.Module):
    """Patches, then attention as libtorch's own operator."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList([nn.MultiheadAttention(8, 2, batch_first=True) for _ in range(2)])
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x).flatten(2).transpose(1, 2)
        for block in self.blocks:
            x = x + block(x, x, x, need_weights=False)[0]
        return self.fc(x.mean(1))


class WrittenOut(nn.Module):
    """The same idea with attention written out, as in windowed transformers; its tokens end as an image."""

    def __init__(self):
        super().__init__()
        self.patches = nn.Conv2d(3, 8, 8, 8)
        self.blocks = nn.ModuleList([nn.Linear(8, 24) for _ in range(2)])
        self.fc = nn.Linear(8, CLASSES)

    def forward(self, x):
        x = self.patches(x)
        height, width = x.shape[2], x.shape[3]
        x = x.flatten(2).transpose(1, 2)
        for block in self.blocks:
            q, k, v = block(x).chunk(3, dim=-1)
            weights = F.dropout(torch.softmax(q @ k.transpose(1, 2), dim=-1), 0.1, False)
            x = x + weights @ v
        x = x.transpose(1, 2).reshape(-1, 8, height, width)
        return self.fc(F.adaptive_avg_pool2d(x, 1).flatten(1))


BAD_MODELS = {
    "not_nk": NotNk,
    "no_layers": NoLayers,
    "one_channel": OneChannel,
    "raises": Raises,
    "two_inputs": TwoInputs,
    "transformer": Transformer,
    "written_out": WrittenOut,
}


def bare_source_name(obj, error_msg=None):
    """Source of a scripted object under its file's bare name, so that no path of this machine is stored."""
    lines, line_number, path = SOURCE_OF(obj, error_msg)
    return lines, line_number, path and os.path.basename(path)


SOURCE_OF = torch._sources.get_source_lines_and_file
torch._sources.get_source_lines_and_file = bare_source_name


def save_scripted(module, path):
    torch.jit.save(module, path)
    report(path)


def save_traced(module, path):
    """As `torch.jit.save`, but without the debug records: a trace notes the full path of every Python file
    it passed through, and has no switch for that. (The code records are then stored, not deflated.)"""
    plain = io.BytesIO()
    torch.jit.save(module, plain)
    plain.seek(0)
    reader = torch._C.PyTorchFileReader(plain)
    writer = torch._C.PyTorchFileWriter(path)
    # the container's own records, which the writer adds by itself
    own = {"version", "byteorder", ".data/serialization_id"}
    for record in reader.get_all_records():
        if record not in own and not record.endswith(".debug_pkl"):
            content = reader.get_record(record)
            writer.write_record(record, content, len(content))
    writer.write_end_of_file()
    report(path)


def report(path):
    print(f"{os.path.getsize(path) / 1024:7.1f} KiB  {os.path.relpath(path)}")


def main():
    networks = os.path.join(DATA, "networks")
    bad_models = os.path.join(DATA, "bad_models")
    os.makedirs(networks, exist_ok=True)
    os.makedirs(bad_models, exist_ok=True)
    for name in sys.argv[1:] or NETWORKS:
        save_scripted(script(build(name)), os.path.join(networks, f"{name}_scripted.pt"))
        if name not in SCRIPTED_ONLY:
            save_traced(trace(name, build(name)), os.path.join(networks, f"{name}_traced.pt"))
    if sys.argv[1:]:
        return
    for name, network in BAD_MODELS.items():
        torch.manual_seed(500)
        save_scripted(script(network().eval()), os.path.join(bad_models, f"{name}.pt"))
    torch.manual_seed(500)
    plain = nn.Sequential(
        nn.Conv2d(3, 6, 3, 2, 1), nn.ReLU(), nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(6, CLASSES)
    )
    torch.save(plain.state_dict(), os.path.join(bad_models, "state_dict.pth"))
    torch.save(plain, os.path.join(bad_models, "pickled_module.pth"))


if __name__ == "__main__":
    main()
