#!/usr/bin/env bash
# Monte-Carlo dropout with skorch changes the network that it asks
#
# Guess: net.forward(X, training=True), which skorch's documentation gives for dropout at prediction time, is a
# prediction: the fitted network is afterwards what it was.
# Seen (skorch 1.4.0, torch 2.13.0): the whole module goes to training mode, its batch norms with it. They normalise by the
# batch that is asked about and write its statistics, dropout's noise included, into the fitted network: twenty passes over
# data that lie elsewhere make the next predict_proba another one.
#
#   running mean of the first feature before 0.00, after 20 passes 8.84
#   predict_proba on the training data changed by up to 0.8
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
  skorch==1.4.0 tabulate==0.10.0 scikit-learn==1.9.1 scipy==1.17.1 numpy==2.4.6 joblib==1.6.0 threadpoolctl==3.6.0 cloudpickle==3.1.2 \
  tqdm==4.70.1 narwhals==2.28.0
PYTHONPATH=$temporary/packages "$python" -P -W ignore - <<'EOF'
import numpy as np
import torch
from skorch import NeuralNetClassifier
from torch import nn

torch.manual_seed(0)
module = nn.Sequential(nn.BatchNorm1d(4), nn.Dropout(0.5), nn.Linear(4, 2), nn.Softmax(1))
net = NeuralNetClassifier(module, max_epochs=20, train_split=None, verbose=0, iterator_train__shuffle=False)
x = np.random.default_rng(0).standard_normal((256, 4)).astype("float32")
x -= x.mean(0)
net.fit(x, (x[:, 0] > 0).astype("int64"))
before, mean = net.predict_proba(x), float(net.module_[0].running_mean[0])
for _ in range(20):
    net.forward(x[:64] + 10, training=True)
after = float(net.module_[0].running_mean[0])
change = float(abs(net.predict_proba(x) - before).max())
print(f"running mean of the first feature before {abs(mean):.2f}, after 20 passes {after:.2f}")
print(f"predict_proba on the training data changed by up to {change:.1f}")
assert abs(mean) < 0.1
assert after > 5
assert change > 0.1
EOF
