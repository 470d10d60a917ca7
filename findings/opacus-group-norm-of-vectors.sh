#!/usr/bin/env bash
# Opacus' replacement for batch norm makes a multilayer perceptron constant
#
# Guess: ModuleValidator.fix turns BatchNorm1d(C) into a GroupNorm that still passes the features on, with the
# trained scale and offset.
# Seen (opacus 1.6.0, torch 2.13.0): the number of groups is gcd(32, C), so that on (N, C) a width of 16 or 32 has
# one value in each group. Every value is normalised by itself to 0: what comes out does not depend on the input. At
# 64 a group holds two values, which become almost -1 and +1. The scale and offset start anew. The validator finds
# nothing to object to.
#
#   width 16: 16 groups, outputs vary by 0.0000 over the rows, scale 1.0
#   width 32: 32 groups, outputs vary by 0.0000 over the rows, scale 1.0
#   width 64: 32 groups, 100% of the normalised values are within .01 of 1 in size, scale 1.0
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
  opacus==1.6.0 opt_einsum==3.4.0 numpy==2.4.6 scipy==1.17.1
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from opacus.validators import ModuleValidator
from torch import nn

torch.manual_seed(0)
x = torch.randn(512, 10)
for width in (16, 32, 64):
    network = nn.Sequential(nn.Linear(10, width), nn.BatchNorm1d(width), nn.Linear(width, 3))
    nn.init.constant_(network[1].weight, 3.0)
    fixed = ModuleValidator.fix(network)
    assert ModuleValidator.is_valid(fixed)
    norm = fixed[1]
    with torch.no_grad():
        values = norm(fixed[0](10 * x))
        spread = float(fixed(10 * x).std(0).max())
    text = f"width {width}: {norm.num_groups} groups, "
    if width <= 32:
        text += f"outputs vary by {spread:.4f} over the rows"
        assert norm.num_groups == width
        assert spread < 1e-4
    else:
        share = float(((values.abs() - 1).abs() < 0.01).float().mean())
        text += f"{share:.0%} of the normalised values are within .01 of 1 in size"
        assert share > 0.95
    print(text + f", scale {float(norm.weight.mean())}")
    assert torch.equal(norm.weight, torch.ones(width))
EOF
