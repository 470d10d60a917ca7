#!/usr/bin/env bash
# A batch norm that Lightning has frozen still normalises by the batch
#
# Guess: BaseFinetuning.freeze(train_bn=False) makes norms constant: in training they use their stored statistics, so that
# dropout before them cannot shift anything.
# Seen (lightning 2.6.6, torch 2.13.0): freezing sets track_running_stats to False and leaves the module in training mode.
# The stored statistics are no longer updated, but training normalises by the batch, dropout's noise included, and test
# mode by what was stored: the shift is there, and no training step can adapt the statistics to the fine-tuned trunk.
# (train_bn=True, the default, leaves the norms as they are.)
#
#   frozen, train mode: output mean 0.00 and variance 1.00 on data that moved by 5; stored statistics moved False
#   frozen, test mode: output mean 5.0 and variance 1.0
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
  lightning==2.6.6 lightning-utilities==0.15.3 torchmetrics==1.9.0 packaging==26.3 tqdm==4.70.1 PyYAML==6.0.3 numpy==2.4.6 \
  pytorch-lightning==2.6.6
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import torch
from lightning.pytorch.callbacks import BaseFinetuning
from torch import nn

torch.manual_seed(0)
norm = nn.BatchNorm1d(8, momentum=None)
norm(torch.randn(4096, 8))
BaseFinetuning.freeze(nn.Sequential(norm), train_bn=False)
assert not any(parameter.requires_grad for parameter in norm.parameters())
stored, moved = norm.running_mean.clone(), torch.randn(4096, 8) + 5
train, test = norm.train()(moved), norm.eval()(moved)
changed = not torch.equal(stored, norm.running_mean)
print(f"frozen, train mode: output mean {abs(float(train.mean())):.2f} and variance {float(train.var()):.2f} "
      f"on data that moved by 5; stored statistics moved {changed}")
print(f"frozen, test mode: output mean {float(test.mean()):.1f} and variance {float(test.var()):.1f}")
assert abs(train.mean()) < 1e-4
assert abs(train.var() - 1) < 0.01
assert not changed
assert abs(test.mean() - 5) < 0.1
EOF
