#!/usr/bin/env bash
# Dropped edges raise or lower a norm's test variance, by the aggregation behind them
#
# Guess: dropout_edge (DropEdge) rescales like dropout, or does next to nothing to a batch norm behind the convolution.
# Seen (torch-geometric 2.8.1, torch 2.13.0; random graph of mean degree 10, features in [0, 1), p = .5): nothing is
# rescaled. A sum (GINConv) is twice as large in test mode: the mean is off by 2 and test variance is 1.9 times the running
# variance. GCNConv divides by the degree that is left, so that the mean stays, but few neighbours vary more: test variance
# is half the running variance. SAGEConv's mean with its own weight for the node: .9.
#
#   test variance over running variance: GINConv 1.9, GCNConv 0.5, SAGEConv 0.9
#   test mean over running mean: GINConv 1.8
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
from torch_geometric.nn import GCNConv, GINConv, SAGEConv
from torch_geometric.utils import dropout_edge

torch.manual_seed(0)
edges, x = torch.randint(0, 2000, (2, 20_000)), torch.rand(2000, 16)
found = {}
for convolution in (GINConv(nn.Linear(16, 64, bias=False)), GCNConv(16, 64), SAGEConv(16, 64)):
    norm = nn.BatchNorm1d(64, momentum=None)
    with torch.no_grad():
        for _ in range(30):
            norm(convolution(x, dropout_edge(edges, 0.5)[0]))
        test = convolution(x, edges)
    means = float((test.mean(0) / norm.running_mean).median())
    found[type(convolution).__name__] = float((test.var(0) / norm.running_var).mean()), means
print("test variance over running variance: "
      + ", ".join(f"{name} {variance:.1f}" for name, (variance, _) in found.items()))
print(f"test mean over running mean: GINConv {found['GINConv'][1]:.1f}")
assert abs(found["GINConv"][0] - 1.9) < 0.2
assert abs(found["GINConv"][1] - 1.8) < 0.2
assert abs(found["GCNConv"][0] - 0.5) < 0.1
assert abs(found["SAGEConv"][0] - 0.9) < 0.1
EOF
