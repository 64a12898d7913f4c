"""Small files of weights in every container and with every wrapping that tests/it/weights.rs reads.

    python make_state_dicts.py        # writes ../data/state_dicts/

Needs torch 2.13.0 only.
"""
import json
import os
import struct
import torch

from make_networks import save_traced

folder = os.path.join(os.path.dirname(os.path.abspath(__file__)), "..", "data", "state_dicts")
os.makedirs(folder, exist_ok=True)


def path(name):
    return os.path.join(folder, name)


# Exact in bfloat16 too; the weight is a transposed view, as a state dict may hold one.
weight = (torch.arange(6.0).reshape(3, 2) / 4 - 1).t()
state = {
    "fc.weight": weight,
    "fc.bias": torch.tensor([0.5, -2.0]),
    "bn.num_batches_tracked": torch.tensor(7),
}
torch.save(state, path("new.pth"))
torch.save(state, path("old.pth"), _use_new_zipfile_serialization=False)
torch.save({
    "fc.weight": weight.half(),
    "fc.bias": state["fc.bias"].double(),
    "bn.num_batches_tracked": state["bn.num_batches_tracked"],
}, path("half_double.pth"))
torch.save({k: v.bfloat16() if v.is_floating_point() else v for k, v in state.items()}, path("bfloat16.pth"))
torch.save({
    "epoch": 3,
    "state_dict": {"module." + k: v for k, v in state.items()},
    "optimizer": {"state": {0: {"momentum_buffer": torch.zeros(3)}}},
}, path("checkpoint.pth"))
torch.save({"model": state, "loss": torch.tensor(0.1)}, path("checkpoint_model.pth"))
torch.save([1, 2, "three"], path("list.pth"))
torch.save({"epoch": 3}, path("no_tensors.pth"))


class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.fc = torch.nn.Linear(3, 2)

    def forward(self, x):
        return self.fc(x)


net = Net()
with torch.no_grad():
    net.fc.weight.copy_(state["fc.weight"])
    net.fc.bias.copy_(state["fc.bias"])
torch.save(net, path("module.pth"))
save_traced(torch.jit.script(net), path("torchscript.pth"))  # no paths of this machine in it

header, data = {"__metadata__": {"format": "pt"}}, b""
for name, tensor, dtype in (
    ("fc.weight", weight.half(), "F16"),
    ("fc.bias", state["fc.bias"], "F32"),
    ("bn.num_batches_tracked", state["bn.num_batches_tracked"], "I64"),
):
    stored = tensor.contiguous().numpy().tobytes()
    header[name] = {"dtype": dtype, "shape": list(tensor.shape), "data_offsets": [len(data), len(data) + len(stored)]}
    data += stored
text = json.dumps(header).encode()
with open(path("weights.safetensors"), "wb") as file:
    file.write(struct.pack("<Q", len(text)) + text + data)
