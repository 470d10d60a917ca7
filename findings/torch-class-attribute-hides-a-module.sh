#!/usr/bin/env bash
# A module that is a class attribute hides the submodule of the same name
#
# Guess: after `self.drop = nn.Dropout(0.3)` in __init__, `self.drop` is that module, whatever default the class has for
# it (`drop: nn.Module = nn.Dropout(0.3)`, as dataclasses and configurable classes have them).
# Seen (torch 2.13.0): torch keeps submodules apart from attributes, in `_modules`, where Python looks only if there is no
# attribute. `self.drop` is the class's module, which no model holds: named_modules lists the other one, `eval()` and
# `to()` reach the other one, and the one that is called drops in test mode. A norm behind it learns nothing of eval
# either: a class's BatchNorm1d goes on changing its statistics, and the one in state_dict never sees a batch.
#
#   called and listed are one module: False; listed in training mode: False, called in training mode: True
#   two passes in eval mode are the same: False; batches seen by the listed norm 0, by the called one 2
set -euo pipefail
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
if ! "$python" -c 'import torch; assert torch.__version__.startswith("2.13.0")' 2>/dev/null; then
  "$python" -m venv "$temporary/venv"
  python=$temporary/venv/bin/python
  "$python" -m pip install --quiet torch==2.13.0
fi
cd "$temporary"
"$python" -P -W ignore - <<'EOF'
import torch
from torch import nn


class Net(nn.Module):
    drop: nn.Module = nn.Dropout(0.3)
    norm: nn.Module = nn.BatchNorm1d(8)

    def __init__(self) -> None:
        super().__init__()
        self.drop, self.norm = nn.Dropout(0.3), nn.BatchNorm1d(8)

    def forward(self, x):
        return self.norm(self.drop(x))


torch.manual_seed(0)
net, x = Net().eval(), torch.randn(32, 8)
listed = dict(net.named_modules())
one = net.drop is listed["drop"]
with torch.no_grad():
    same = torch.equal(net(x), net(x))
seen, counted = int(listed["norm"].num_batches_tracked), int(Net.norm.num_batches_tracked)
print(f"called and listed are one module: {one}; listed in training mode: {listed['drop'].training}, "
      f"called in training mode: {net.drop.training}")
print(f"two passes in eval mode are the same: {same}; batches seen by the listed norm {seen}, by the called one {counted}")
assert not one
assert not listed["drop"].training
assert net.drop.training
assert not same
assert (seen, counted) == (0, 2)
EOF
