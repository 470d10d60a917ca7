#!/usr/bin/env bash
# Bayesian-Torch's Dropout returns the first row of a batch
#
# Guess: bayesian_torch.layers.Dropout takes a tensor and gives the tensor, with dropout in training.
# Seen (bayesian-torch 0.5.0, torch 2.13.0): it takes the pair (output, KL) that the package's layers hand on, and reads
# its first item. A plain tensor has a first item as well: the first sample. A batch of 32 x 8 comes out as 8 numbers, in
# test mode too, which the next linear layer takes for one sample without a batch.
#
#   Dropout in test mode: (32, 8) becomes (8,), the first row True; a linear layer behind it gives (4,)
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
  bayesian-torch==0.5.0 numpy==2.4.6 scipy==1.17.1
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from bayesian_torch.layers.dropout import Dropout
from torch import nn

torch.manual_seed(0)
x = torch.randn(32, 8)
out, _ = Dropout(0.5).eval()(x)
first, shape = torch.equal(out, x[0]), tuple(nn.Linear(8, 4)(out).shape)
print(f"Dropout in test mode: {tuple(x.shape)} becomes {tuple(out.shape)}, the first row {first}; "
      f"a linear layer behind it gives {shape}")
assert first
assert shape == (4,)
EOF
