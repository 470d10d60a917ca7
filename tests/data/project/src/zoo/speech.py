from torch import nn
from torch.nn.utils.rnn import pack_padded_sequence


class Net(nn.Module):
    """(batch, time, 40 filters) and how many frames of each are sound."""

    def __init__(self):
        super().__init__()
        self.drop = nn.Dropout(0.3)
        self.rnn = nn.LSTM(40, 16, batch_first=True)
        self.bn = nn.BatchNorm1d(16)

    def forward(self, features, lengths):
        packed = pack_padded_sequence(self.drop(features), lengths, batch_first=True, enforce_sorted=False)
        return self.bn(self.rnn(packed)[1][0][-1])
