#!/usr/bin/env bash
# Baal's consistent dropout does not draw new masks at model.eval()
#
# Guess: its layers override .eval() to forget their masks, so that each .eval() of the model starts a new sample of the
# posterior.
# Seen (baal 2.1.0, torch 2.13.0): torch's .eval() of a module calls .train(False) on its children, never their .eval().
# Inside a model the masks stay over .train() and .eval(); another batch size or the layer's own .eval() renews them.
#
#   masks after model.train() and model.eval(): same True; after the layer's own .eval(): same False
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
  baal==2.1.0 structlog==26.1.0 numpy==2.4.6 scipy==1.17.1 scikit-learn==1.9.1 joblib==1.6.0 threadpoolctl==3.6.0 cloudpickle==3.1.2 tqdm==4.70.1 \
  torchmetrics==1.9.0 lightning-utilities==0.15.3 packaging==26.3 h5py==3.15.1 pillow==13.0.0 matplotlib==3.11.2
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from baal.bayesian.consistent_dropout import patch_module
from torch import nn

torch.manual_seed(0)
model = patch_module(nn.Sequential(nn.Linear(8, 64), nn.Dropout(0.5)))
x = torch.randn(4, 8)
model.eval()
first = model(x)
model.train()
model(x)
model.eval()
whole = torch.equal(first, model(x))
model[1].eval()
layer = torch.equal(first, model(x))
print(f"masks after model.train() and model.eval(): same {whole}; after the layer's own .eval(): same {layer}")
assert (whole, layer) == (True, False)
EOF
