#!/usr/bin/env bash
# The first linear layer on the meta device loads torch's compiler and sympy
#
# Guess: meta tensors are the cheap way to ask for shapes: an operation on them imports nothing that `import torch` has not.
# Seen (torch 2.13.0, sympy 1.14.0): the kernels for meta tensors are Python. At the first one whose types are promoted they ask
# dynamo not to follow them, which imports torch._dynamo, and import sympy to see whether a number is one of its expressions.
# That is more than eight hundred modules more, and takes about as long as importing torch; a convolution brings sympy alone.
#
#   conv1d: dynamo False, sympy True; linear: dynamo True, sympy True, more than 500 modules more
set -euo pipefail
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m venv "$temporary/venv"
  python=$temporary/venv/bin/python
  "$python" -m pip install --quiet torch==2.13.0
fi
"$python" -P -W ignore - <<'EOF'
import sys

import torch
from torch.nn import functional as F


def loaded() -> str:
    return f"dynamo {'torch._dynamo' in sys.modules}, sympy {'sympy' in sys.modules}"


start, nothing = len(sys.modules), loaded()
meta = torch.device("meta")
F.conv1d(torch.empty(4, 3, 9, device=meta), torch.empty(5, 3, 1, device=meta))
conv = loaded()
F.linear(torch.empty(4, 8, device=meta), torch.empty(3, 8, device=meta), torch.empty(3, device=meta))
linear, more = loaded(), len(sys.modules) - start
print(f"conv1d: {conv}; linear: {linear}, {'more than' if more > 500 else 'only'} 500 modules more")
assert nothing == "dynamo False, sympy False"
assert conv == "dynamo False, sympy True"
assert linear == "dynamo True, sympy True"
assert more > 500
EOF
