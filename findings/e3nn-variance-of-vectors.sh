#!/usr/bin/env bash
# e3nn's batch norm stores the second moment of vectors, so that dropout shifts them by k whatever their mean
#
# Guess: the variance shift of dropout straight before a batch norm follows Li et al. (2019), Eq. 6, v/((c² + v)/k - c²):
# with mean c = 2, variance v = 1 and k = .5 it is .17.
# Seen (e3nn 0.6.0, torch 2.13.0): features of degree 1 are not centred (that would not be equivariant): running_var is
# E[x²], the mean included, so that the shift of E[x²] is k = .5 at any mean. Scalars are centred, and follow Eq. 6, but
# their variance is divided by n, not by n - 1 as torch's is.
#
#   vectors, mean 0: .50; vectors, mean 2: .50; scalars, mean 2: .17
#   four rows: running_var is .75 of the unbiased variance
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
  e3nn==0.6.0 opt_einsum_fx==0.1.4 opt_einsum==3.4.0 scipy==1.17.1 numpy==2.4.6 packaging==26.3
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from e3nn.nn import BatchNorm, Dropout

torch.manual_seed(0)
shifts = []
for irreps, mean in (("8x1o", 0.0), ("8x1o", 2.0), ("24x0e", 2.0)):
    x = torch.randn(50_000, 24) + mean
    norm, dropout = BatchNorm(irreps, momentum=1.0), Dropout(irreps, 0.5)
    norm(dropout(x))
    train = norm.running_var.clone()
    norm(x)
    shifts.append(float((norm.running_var / train).mean()))
print("vectors, mean 0: {:.2f}; vectors, mean 2: {:.2f}; scalars, mean 2: {:.2f}".format(*shifts))
assert all(abs(a - b) < 0.01 for a, b in zip(shifts, (0.5, 0.5, 1 / 6)))
norm, x = BatchNorm("24x0e", momentum=1.0), torch.randn(4, 24)
norm(x)
ratio = norm.running_var / x.var(0)
print(f"four rows: running_var is {float(ratio.mean()):.2f} of the unbiased variance")
assert torch.allclose(ratio, torch.tensor(0.75))
EOF
