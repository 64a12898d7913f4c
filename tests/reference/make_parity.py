"""Arrays of the torchvision networks of which TorchPRISM's own are not stored.

    python tests/reference/make_parity.py ARRAYS TORCH_HOME FOLDER

writes FOLDER/NETWORK.npz by the independent implementation beside this file, which meets every stored
array of the other five networks, on the images of ARRAYS/vgg16.npz and the weights in TORCH_HOME.
"""
import os
import sys

import numpy as np
import torch

from prism_reference import MODES, features_of, prism_map, torchprism_excitations, torchvision_network

NAMES = ["vgg11", "vgg19", "resnet50", "resnet101", "mobilenet_v2"]

arrays, torch_home, folder = sys.argv[1:]
os.makedirs(folder, exist_ok=True)
images = np.load(os.path.join(arrays, "vgg16.npz"))["input"]
for name in NAMES:
    excitations = torchprism_excitations(torchvision_network(name, torch_home), torch.from_numpy(images))
    np.savez(
        os.path.join(folder, name + ".npz"),
        input=images,
        logits=excitations.logits.numpy(),
        variance_ratio=features_of(excitations.final.tensor)[1].astype(np.float32),
        **{mode: prism_map(excitations, **options).numpy() for mode, options in MODES.items()},
    )
    print(name)
