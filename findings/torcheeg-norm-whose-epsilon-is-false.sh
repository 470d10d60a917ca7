#!/usr/bin/env bash
# The batch norms of torcheeg's EEGfuseNet and ATCNet have False for their epsilon, and do not train
#
# Guess: BatchNorm2d(16, False), as these networks are written, makes a norm without scale and shift.
# Seen (torcheeg 1.1.3, torch 2.13.0): in second position stands eps, so that it is 0, and scale and shift are there.
# EEGfuseNet runs in test mode, and in training torch raises an error at its first norm; ATCNet runs its norms while it is
# built, which ends with the same error.
#
#   EEGfuseNet: 5 norms, eps False, affine True
#   EEGfuseNet in test mode: (2, 1, 8, 128)
#   EEGfuseNet in training: ValueError: batch_norm eps must be positive during training, but got False
#   ATCNet, built: ValueError: batch_norm eps must be positive during training, but got False
set -euo pipefail
temporary=$(mktemp -d)
trap 'rm -rf "$temporary"' EXIT
python=${PYTHON:-python3}
if ! "$python" -c 'import torch' 2>/dev/null; then
  "$python" -m venv "$temporary/venv"
  python=$temporary/venv/bin/python
  "$python" -m pip install --quiet torch==2.13.0
fi
"$python" -m pip install --quiet --no-deps --target "$temporary/packages" torcheeg==1.1.3
"$python" -P -W ignore - "$temporary/packages/torcheeg/models" <<'EOF'
import runpy
import sys

import torch
from torch import nn

# the files alone: the package imports its readers of recordings as well
fuse = runpy.run_path(f"{sys.argv[1]}/gan/eegfusenet.py")["EEGfuseNet"]
atc = runpy.run_path(f"{sys.argv[1]}/transformer/atcnet.py")["ATCNet"]


def outcome(run):
    try:
        return run()
    except ValueError as error:
        return f"ValueError: {error}"


net, x = fuse(num_electrodes=8, chunk_size=128), torch.randn(2, 1, 8, 128)
norms = [module for module in net.modules() if isinstance(module, nn.BatchNorm2d)]
(kind,) = {(norm.eps, norm.affine) for norm in norms}
print(f"EEGfuseNet: {len(norms)} norms, eps {kind[0]}, affine {kind[1]}")
tested = outcome(lambda: tuple(net.eval()(x)[0].shape))
print("EEGfuseNet in test mode:", tested)
trained = outcome(lambda: tuple(net.train()(x)[0].shape))
print("EEGfuseNet in training:", trained)
built = outcome(lambda: type(atc(num_electrodes=8, chunk_size=128)).__name__)
print("ATCNet, built:", built)
assert kind == (False, True) and tested == (2, 1, 8, 128)
assert all("eps must be positive" in said for said in (trained, built))
EOF
