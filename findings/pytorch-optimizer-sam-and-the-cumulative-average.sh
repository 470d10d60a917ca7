#!/usr/bin/env bash
# SAM's switch for running statistics spoils a cumulative average
#
# Guess: disable_running_stats for SAM's second pass and enable_running_stats for the first leave a norm of momentum=None
# with the plain average of the first passes' batches.
# Seen (pytorch_optimizer 4.1.0, torch 2.13.0): the switch sets the momentum to 0, but torch counts the batch all the same;
# the average divides by the count of both passes, 1/(2t - 1) in place of 1/t. The first batches weigh far too much: of a
# hundred steps the first has a share of .089, where .010 is its due.
#
#   share of the first batch of 100: 0.089; batches counted: 200
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
  pytorch-optimizer==4.1.0 numpy==2.4.6
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from pytorch_optimizer.optimizer.utils import disable_running_stats, enable_running_stats
from torch import nn

norm = nn.BatchNorm1d(1, momentum=None)
for step in range(100):
    batch = torch.full((4, 1), float(step == 0))
    enable_running_stats(norm)
    norm(batch)
    disable_running_stats(norm)
    norm(batch)
share, counted = float(norm.running_mean), int(norm.num_batches_tracked)
print(f"share of the first batch of 100: {share:.3f}; batches counted: {counted}")
assert abs(share - 0.0887) < 0.001
assert counted == 200
EOF
