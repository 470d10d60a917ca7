#!/usr/bin/env bash
# A cached graph convolution keeps the edges that were dropped in the first training step, in test mode too
#
# Guess: dropout_edge (DropEdge) draws new edges at every training step, and a test-mode pass sees the whole graph.
# Seen (torch-geometric 2.8.1, torch 2.13.0): GCNConv(cached=True), which is meant for one fixed graph, normalises and
# keeps the first edge_index that it is handed. With dropout_edge before it, that is the first step's remainder: later
# edges are never read, neither in training nor in test mode, and no word is said.
#
#   second training step, other edges: same output True
#   test mode, all edges: same as with the 10% of edges of the first step True, as with all edges False
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
from torch_geometric.nn import GCNConv
from torch_geometric.utils import dropout_edge

torch.manual_seed(0)
x, edges = torch.randn(100, 8), torch.randint(0, 100, (2, 1000))
cached = GCNConv(8, 8, cached=True)
plain = GCNConv(8, 8)
plain.load_state_dict(cached.state_dict())
few, other = dropout_edge(edges, 0.9)[0], dropout_edge(edges, 0.9)[0]
with torch.no_grad():
    first = cached(x, few)
    second = torch.equal(first, cached(x, other))
    cached.eval()
    as_first = torch.equal(cached(x, edges), first)
    as_all = torch.allclose(cached(x, edges), plain(x, edges), atol=1e-3)
    assert torch.allclose(first, plain(x, few), atol=1e-5)
print(f"second training step, other edges: same output {second}")
print(f"test mode, all edges: same as with the {few.shape[1] / edges.shape[1]:.0%} of edges of the first step "
      f"{as_first}, as with all edges {as_all}")
assert (second, as_first, as_all) == (True, True, False)
EOF
