from torch import nn


class Transfer(nn.Module):
    def __init__(self):
        super().__init__()
        import timm

        self.body = timm.create_model("resnet10t", pretrained=True, num_classes=0)
        self.drop = nn.Dropout(0.5)
        self.bn = nn.BatchNorm1d(self.body.num_features)
        self.head = nn.Linear(self.body.num_features, 10)

    def forward(self, images):
        return self.head(self.bn(self.drop(self.body(images))))
