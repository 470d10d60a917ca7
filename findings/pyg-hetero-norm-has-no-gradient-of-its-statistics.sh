#!/usr/bin/env bash
# PyTorch Geometric's HeteroBatchNorm does not differentiate its statistics
#
# Guess: with one node type it is BatchNorm1d: the same output, gradient and running variance.
# Seen (torch-geometric 2.8.1, torch 2.13.0): the output is the same, the gradient is not. Mean and variance are taken
# without gradient, so that the gradient through the norm is not orthogonal to a constant (its sum over the batch is not
# 0) nor to x: the input's scale and offset, which the norm takes out, get a gradient all the same. The stored variance is
# divided by n, not by n - 1.
#
#   same output True
#   sum of the gradient over the batch: BatchNorm1d 0.0, HeteroBatchNorm 99.5
#   gradient along the scale of x: BatchNorm1d 0.0, HeteroBatchNorm 166.6
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
  torch-geometric==2.8.1 requests==2.34.2 urllib3==2.8.0 idna==3.20 certifi==2026.10.19.post1 charset-normalizer==3.5.3 \
  numpy==2.4.6 psutil==7.2.2 tqdm==4.70.1 xxhash==4.1.0
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from torch import nn
from torch_geometric.nn import HeteroBatchNorm

torch.manual_seed(0)
x, target = torch.randn(64, 8), torch.randn(64, 8) + 0.5
ours, theirs = nn.BatchNorm1d(8), HeteroBatchNorm(8, num_types=1)
types = torch.zeros(64, dtype=torch.long)
sums, scales, outputs = [], [], []
for norm in (ours, lambda rows: theirs(rows, types)):
    rows = x.clone().requires_grad_()
    out = norm(rows)
    (gradient,) = torch.autograd.grad(((out - target) ** 2).sum(), rows)
    outputs.append(out.detach())
    sums.append(float(gradient.sum(0).abs().max()))
    scales.append(float((gradient * (x - x.mean(0))).sum(0).abs().max()))
same = torch.allclose(*outputs, atol=1e-5)
print(f"same output {same}")
print("sum of the gradient over the batch: BatchNorm1d {:.1f}, HeteroBatchNorm {:.1f}".format(*sums))
print("gradient along the scale of x: BatchNorm1d {:.1f}, HeteroBatchNorm {:.1f}".format(*scales))
assert same
assert max(sums[0], scales[0]) < 0.01
assert min(sums[1], scales[1]) > 1
assert torch.allclose((theirs.running_var - 0.9) / (ours.running_var - 0.9), torch.tensor(63 / 64), atol=1e-3)
EOF
