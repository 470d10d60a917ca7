#!/usr/bin/env bash
# SpikingJelly's dropout keeps its mask over batches, epochs and .eval()
#
# Guess: the mask is drawn anew for each forward pass, or at least for each batch (the same over time steps within it).
# Seen (spikingjelly 2.0.0, torch 2.13.0): one mask until functional.reset_net: the next batch has it, and so has
# training after a pass in test mode. It holds the batch axis too: a last batch of another size is an error, but one of
# a single row is stretched to the size of the mask without a word.
#
#   next batch: same mask True; after .eval() and .train(): same mask True; after reset_net: same mask False
#   a batch of 1 behind a batch of 4 comes out as 4 rows
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
  spikingjelly==2.0.0 loguru==0.7.3 numpy==2.4.6 tqdm==4.70.1 scipy==1.17.1
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from spikingjelly.activation_based import functional, layer

torch.manual_seed(0)
dropout = layer.Dropout(0.5)
x = torch.ones(4, 1000)
first = dropout(x)
batch = torch.equal(first, dropout(x))
dropout.eval()
assert torch.equal(dropout(x), x)
dropout.train()
modes = torch.equal(first, dropout(x))
rows = len(dropout(torch.ones(1, 1000)))
functional.reset_net(dropout)
reset = torch.equal(first, dropout(x))
print(f"next batch: same mask {batch}; after .eval() and .train(): same mask {modes}; "
      f"after reset_net: same mask {reset}")
print(f"a batch of 1 behind a batch of 4 comes out as {rows} rows")
assert (batch, modes, reset, rows) == (True, True, False, 4)
EOF
