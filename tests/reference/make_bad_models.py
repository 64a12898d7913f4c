"""Networks that load, and then cannot be explained or only barely -> tests/data/bad_models/*.pt.

    python tests/reference/make_bad_models.py

They are named by what is odd about them; make_networks.py makes those of another shape. Needs torch 2.13.0.
"""
import os
from typing import Dict, List, Tuple

import torch
import torch.nn.functional as F
from torch import nn

from make_networks import save_scripted

FOLDER = os.path.join(os.path.dirname(__file__), "..", "data", "bad_models")
CLASSES = 5


class Plain(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 4, 3, 2, 1)
        self.second = nn.Conv2d(4, 6, 3, 2, 1)
        self.scores = nn.Linear(6, CLASSES)

    def stages(self, x):
        return F.relu(self.second(F.relu(self.first(x))))

    def forward(self, x):
        return self.scores(self.stages(x).mean([2, 3]))


class NanWeights(Plain):
    """Training that diverged."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.second.weight[0, 0, 0, 0] = float("nan")


class InfiniteScores(Plain):
    """Only the last layer is broken: the activations are finite."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.scores.bias[2] = float("inf")


class Dead(Plain):
    """No ReLU of the last stage ever lets anything through."""

    def __init__(self):
        super().__init__()
        with torch.no_grad():
            self.second.bias.fill_(-1e6)


class Recurrent(nn.Module):
    """Reads the rows of the image one after the other, without a convolution."""

    def __init__(self):
        super().__init__()
        self.lstm = nn.LSTM(3 * 64, 8, batch_first=True)
        self.scores = nn.Linear(8, CLASSES)

    def forward(self, x):
        rows = x[:, :, :64, :64].permute(0, 2, 1, 3).flatten(2)
        return self.scores(self.lstm(rows)[0][:, -1])


class FixedSize(Plain):
    """Flattens its last activation, so that only images of 32x32 pixels fit."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(6 * 8 * 8, CLASSES)

    def forward(self, x):
        return self.scores(self.stages(x).flatten(1))


class OneClass(Plain):
    """Says one number per image: a yes or no."""

    def __init__(self):
        super().__init__()
        self.scores = nn.Linear(6, 1)


class NoBatch(Plain):
    """Loses the axis of the images: [K] in place of [N,K]."""

    def forward(self, x):
        return self.scores(self.stages(x).mean([0, 2, 3]))


class WholeNumbers(Plain):
    """Gives ranks, int64, in place of scores."""

    def forward(self, x):
        return self.scores(self.stages(x).mean([2, 3])).argsort(dim=1)


class Decisions(Plain):
    """Says which probabilities are above a half."""

    def forward(self, x):
        return torch.sigmoid(self.scores(self.stages(x).mean([2, 3]))) > 0.5


class Rounded(Plain):
    """Gives whole numbers, int64, in place of scores."""

    def forward(self, x):
        return (10 * self.scores(self.stages(x).mean([2, 3]))).to(torch.int64)


class ImageByImage(Plain):
    """Computes the scores of each image in a loop that fills a list."""

    def forward(self, x):
        scores: List[torch.Tensor] = []
        for i in range(x.size(0)):
            scores.append(self.scores(self.stages(x[i : i + 1]).mean([2, 3])))
        return torch.cat(scores)


class Text(Plain):
    """Answers in words."""

    def forward(self, x) -> str:
        return "a cat" if bool(self.stages(x).mean() > 0.5) else "a dog"


class Saves(Plain):
    """Writes a file when it runs."""

    def forward(self, x):
        torch.ops.aten.save(x, "written")
        return self.scores(self.stages(x).mean([2, 3]))


class MapsAFile(Plain):
    """Makes a file, and could change one, when it runs."""

    def forward(self, x):
        written = torch.from_file("written", shared=True, size=4, dtype=torch.float32)
        return self.scores(self.stages(x).mean([2, 3])) + written.sum()


class Scale(nn.Module):
    """Makes a file as soon as it is unpickled."""

    def __init__(self):
        super().__init__()
        self.scale = torch.ones(CLASSES)

    @torch.jit.export
    def __getstate__(self):
        return self.scale, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[torch.Tensor, bool]) -> None:
        written = torch.from_file("written", shared=True, size=4, dtype=torch.float32)
        self.scale = state[0] + written.sum()  # or it would be left out as of no use
        self.training = state[1]

    def forward(self, x):
        return x * self.scale


class MapsAFileWhenLoaded(Plain):
    """Has a part that makes a file before anything runs."""

    def __init__(self):
        super().__init__()
        self.scale = Scale()

    def forward(self, x):
        return self.scale(self.scores(self.stages(x).mean([2, 3])))


class Talks(Plain):
    """Prints when it runs."""

    def forward(self, x):
        print("what a nice image")
        return self.scores(self.stages(x).mean([2, 3]))


class Detector(Plain):
    """Takes images of any sizes as a list, and finds any number of boxes, as torchvision's detectors do."""

    def forward(self, images: List[torch.Tensor]) -> List[Dict[str, torch.Tensor]]:
        found: List[Dict[str, torch.Tensor]] = []
        for image in images:
            scores = self.scores(self.stages(image.unsqueeze(0)).mean([2, 3])).flatten()
            found.append({"boxes": image.new_zeros([5, 4]), "scores": scores})
        return found


class Boxes(Plain):
    """Takes a batch, and finds boxes: [N,boxes,4] and [N,boxes,K]."""

    def forward(self, x):
        cells = self.stages(x).flatten(2).transpose(1, 2)
        return cells[:, :, :4], self.scores(cells)


class Greedy(Plain):
    """Asks for more memory than there is anywhere, but only when it runs."""

    def forward(self, x):
        many = int(x.size(2)) * 1_000_000_000_000
        return self.scores(self.stages(x).mean([2, 3])) + torch.zeros([many]).sum()


class Grows(Plain):
    """Keeps more and more, without an end."""

    def forward(self, x):
        kept: List[torch.Tensor] = []
        while x.size(1) == 3:
            kept.append(x.new_ones([1 << 22]))
        return self.scores(self.stages(x).mean([2, 3])) + len(kept)


MODELS = {
    "grows": Grows,
    "saves": Saves,
    "maps_a_file": MapsAFile,
    "maps_a_file_when_loaded": MapsAFileWhenLoaded,
    "talks": Talks,
    "detector": Detector,
    "boxes": Boxes,
    "greedy": Greedy,
    "nan_weights": NanWeights,
    "infinite_scores": InfiniteScores,
    "dead": Dead,
    "recurrent": Recurrent,
    "fixed_size": FixedSize,
    "one_class": OneClass,
    "no_batch": NoBatch,
    "whole_numbers": WholeNumbers,
    "decisions": Decisions,
    "rounded": Rounded,
    "image_by_image": ImageByImage,
    "text": Text,
}

for name, kind in MODELS.items():
    torch.manual_seed(501)
    save_scripted(torch.jit.script(kind().eval()), os.path.join(FOLDER, f"{name}.pt"))
