#!/usr/bin/env bash
# TensorLy-Torch's tensor dropout scales modes from which it drops nothing
#
# Guess: dropping components of a factorised weight keeps the weight's mean, as inverted dropout does.
# Seen (tensorly-torch 0.5.0, tensorly 0.10.0, torch 2.13.0): a Tucker weight is divided by (1-p) once for each of its
# modes, a tensor-train weight once for each inner rank; but modes of rank 3 and less (min_dim=3, the default: the 3 x 3 of
# a kernel) are left whole. In the mean over masks, p = .5, a 16 x 16 x 3 x 3 kernel is four times its weight in training and
# its weight in test mode. The CP form is right.
#
#   mean of the trained weight over the weight: Tucker (8, 8, 3, 3) 4.0, TT (1, 8, 3, 3, 1) 4.0, CP 1.0
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
  tensorly-torch==0.5.0 tensorly==0.10.0 numpy==2.4.6 scipy==1.17.1 packaging==26.3
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from tltorch import FactorizedTensor
from tltorch.tensor_hooks import tensor_dropout

torch.manual_seed(0)
found = {}
for form, rank in (("Tucker", (8, 8, 3, 3)), ("TT", (1, 8, 3, 3, 1)), ("CP", 30)):
    weight = FactorizedTensor.new((16, 16, 3, 3), rank=rank, factorization=form).normal_()
    with torch.no_grad():
        whole = weight.to_tensor()
        tensor_dropout(weight, 0.5)
        mean = sum(weight().to_tensor() for _ in range(4000)) / 4000
        found[form] = float((mean * whole).sum() / (whole * whole).sum())
        assert torch.equal(weight.eval()().to_tensor(), whole)
print("mean of the trained weight over the weight: Tucker (8, 8, 3, 3) {Tucker:.1f}, "
      "TT (1, 8, 3, 3, 1) {TT:.1f}, CP {CP:.1f}".format(**found))
assert abs(found["Tucker"] - 4) < 0.3
assert abs(found["TT"] - 4) < 0.3
assert abs(found["CP"] - 1) < 0.1
EOF
