#!/usr/bin/env bash
# torch's conversion to SyncBatchNorm takes the activations out of timm's networks
#
# Guess: convert_sync_batchnorm makes every batch norm a synchronised one that computes the same.
# Seen (timm 1.0.31, torch 2.13.0): timm's BatchNormAct2d is a BatchNorm2d that calls an activation (and perhaps a dropout)
# behind the norm. torch replaces it, as any subclass, by a plain SyncBatchNorm, and hangs the activation below that, where
# it is printed and counted as before but never called. The network loses its rectifiers in both modes; parameters and
# state_dict stay the same. timm's own conversion keeps them.
#
#   efficientnet_b0: activations called 50, after torch's conversion 16, after timm's 50; listed 49, 49, 49
#   smallest output of the stem's norm (SiLU ends at -0.28): -0.28, -2.1, -0.28
set -euo pipefail
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m venv "$temporary/venv"
  python=$temporary/venv/bin/python
  "$python" -m pip install --quiet torch==2.13.0
fi
"$python" -m pip install --quiet --no-deps --target "$temporary/packages" \
  timm==1.0.31 torchvision==0.28.0 numpy==2.4.6 PyYAML==6.0.3 safetensors==0.8.0 huggingface_hub==2.4.0 pillow==13.0.0 \
  tqdm==4.70.1 packaging==26.3
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import copy

import torch
from torch import nn

try:
    import torchvision  # noqa: F401
except RuntimeError:  # built for another torch: its operators, which timm only declares, are not needed here
    operators = torch.library.Library("torchvision", "DEF")
    for name in ("nms", "qnms"):
        operators.define(name + "(Tensor dets, Tensor scores, float iou_threshold) -> Tensor")
import timm
from timm.layers import convert_sync_batchnorm

torch.manual_seed(0)
model = timm.create_model("efficientnet_b0").eval()
x = torch.randn(2, 3, 64, 64)
called, listed, smallest = [], [], []
for convert in (lambda m: m, nn.SyncBatchNorm.convert_sync_batchnorm, convert_sync_batchnorm):
    network = convert(copy.deepcopy(model)).eval()
    assert network.state_dict().keys() == model.state_dict().keys()
    count = []
    activations = [module for module in network.modules() if isinstance(module, nn.SiLU)]
    for module in activations:
        module.register_forward_hook(lambda *_: count.append(1))
    with torch.no_grad():
        network(x)
        smallest.append(float(network.bn1(network.conv_stem(x)).min()))
    called.append(len(count))
    listed.append(len(activations))
print("efficientnet_b0: activations called {}, after torch's conversion {}, after timm's {}; listed ".format(*called)
      + ", ".join(map(str, listed)))
print("smallest output of the stem's norm (SiLU ends at -0.28): {:.2f}, {:.1f}, {:.2f}".format(*smallest))
assert called[0] == called[2] > called[1]
assert len(set(listed)) == 1
assert abs(smallest[0] + 0.28) < 0.01
assert smallest[1] < -1
EOF
