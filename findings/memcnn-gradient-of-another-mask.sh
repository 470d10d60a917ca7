#!/usr/bin/env bash
# MemCNN's reversible blocks differentiate another dropout mask than the one of the forward pass
#
# Guess: InvertibleModuleWrapper(preserve_rng_state=True) replays dropout in the backward pass, as torch's checkpointing
# does.
# Seen (memcnn 1.5.2, torch 2.13.0): the state of the generator is restored while the input is recomputed, but not for the
# pass that is differentiated, which draws new masks. With y1 = x1 + dropout(x2) the gradient reaches about half of the
# elements that were dropped, and misses about half of those that were kept, with and without keep_input.
#
#   keep_input=True: gradient where the forward pass kept .49 of elements, where it dropped .49
#   keep_input=False: gradient where the forward pass kept .50 of elements, where it dropped .49
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
  memcnn==1.5.2 numpy==2.4.6
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from memcnn import AdditiveCoupling, InvertibleModuleWrapper
from torch import nn


class Nothing(nn.Module):
    def forward(self, x):
        return 0 * x


torch.manual_seed(0)
for keep in (True, False):
    coupling = AdditiveCoupling(Fm=nn.Dropout(0.5), Gm=Nothing())
    block = InvertibleModuleWrapper(coupling, keep_input=keep, keep_input_inverse=keep, preserve_rng_state=True)
    x = torch.ones(1, 20_000, requires_grad=True)
    y = block(1.0 * x)
    kept = y[0, :10_000].detach() > 1.5
    y.sum().backward()
    reached = x.grad[0, 10_000:] > 1.5
    shares = float(reached[kept].float().mean()), float(reached[~kept].float().mean())
    print("keep_input={}: gradient where the forward pass kept {:.2f} of elements, where it dropped {:.2f}"
          .format(keep, *shares).replace(" 0.", " ."))
    assert all(abs(share - 0.5) < 0.05 for share in shares)
EOF
