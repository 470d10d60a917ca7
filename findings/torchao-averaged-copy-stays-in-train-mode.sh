#!/usr/bin/env bash
# A weight average of an exported model drops, and moves its running statistics, in test mode
#
# Guess: torchao's allow_exported_model_train_eval gives an exported model, which refuses .train() and .eval(), both back, and
# whatever keeps a copy of it, as torch's AveragedModel does, keeps that.
# Seen (torch 2.13.0, torchao 0.18.0): both the refusal and the switch are functions on the instance, which a deep copy of a
# GraphModule leaves out. The copy has the plain train(), which sets a flag that no operation in the graph reads: .eval() of the
# average says training=False and raises nothing, while dropout draws and the norm normalises by the batch and updates its
# statistics. A copy of an exported model that nobody made switchable no longer refuses either.
#
#   model.eval(): repeatable True, statistics stay
#   average.eval(): repeatable False, statistics move
#   exported.eval() raises NotImplementedError; copy.eval() raises nothing, repeatable False
set -euo pipefail
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m venv "$temporary/venv"
  python=$temporary/venv/bin/python
  "$python" -m pip install --quiet torch==2.13.0 numpy==2.4.6
fi
"$python" -m pip install --quiet --no-deps --target "$temporary/packages" torchao==0.18.0
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import copy
import logging

import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel

logging.disable(logging.WARNING)  # of kernels that are not for this machine
from torchao.quantization.pt2e import allow_exported_model_train_eval

torch.manual_seed(0)
x = torch.randn(64, 8)
net = nn.Sequential(nn.Linear(8, 8), nn.Dropout(0.5), nn.BatchNorm1d(8))


def exported() -> nn.Module:
    return torch.export.export(net.train(), (x,)).module()


def told(name: str, model: nn.Module) -> tuple[bool, bool]:
    (mean,) = (buffer for key, buffer in model.named_buffers() if key.endswith("running_mean"))
    before = mean.clone()
    repeatable, stay = torch.equal(model(x), model(x)), torch.equal(mean, before)
    print(f"{name}.eval(): repeatable {repeatable}, statistics {'stay' if stay else 'move'}")
    return repeatable, stay


model = allow_exported_model_train_eval(exported())
average = AveragedModel(model)
model.eval()
average.eval()
assert told("model", model) == (True, True)
assert not average.module.training
assert told("average", average) == (False, False)
plain = exported()
try:
    plain.eval()
    refused = False
except NotImplementedError:
    refused = True
twin = copy.deepcopy(plain).eval()
repeatable = torch.equal(twin(x), twin(x))
print(f"exported.eval() raises {'NotImplementedError' if refused else 'nothing'}; copy.eval() raises nothing, "
      f"repeatable {repeatable}")
assert refused and not repeatable
EOF
