#!/usr/bin/env bash
# complexPyTorch's dropout divides by the keep probability twice
#
# Guess: inverted dropout: what is kept is scaled by 1/(1-p), so that the mean stays.
# Seen (complexPyTorch 0.4, torch 2.13.0): the mask is torch's dropout of ones, which is scaled already, and is scaled
# once more: the kept values of p = .5 are 4 times the input, the mean is twice the input's, and in test mode it falls
# back to the input's. A norm behind it stores a mean that is off by 1/(1-p) as well as a variance.
#
#   kept values are scaled by 4.0; train-mode mean 2.00, test-mode mean 1.00
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
  complexPyTorch==0.4
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from complexPyTorch.complexLayers import ComplexDropout

torch.manual_seed(0)
layer = ComplexDropout(0.5)
x = torch.ones(200_000, dtype=torch.complex64)
train, test = layer.train()(x).real, layer.eval()(x).real
print(f"kept values are scaled by {float(train.max())}; "
      f"train-mode mean {float(train.mean()):.2f}, test-mode mean {float(test.mean()):.2f}")
assert set(train.unique().tolist()) == {0.0, 4.0}
assert abs(train.mean() - 2) < 0.03
assert torch.equal(test, x.real)
EOF
