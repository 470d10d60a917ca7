# left: a milder rule than before speaks of it at its new place, and its module has no better one
# note: `nn.Identity()` stays where a dropout was, so that checkpoints find the layers behind it
import torch
from torch import nn

example_inputs = (torch.randn(4, 3, 16, 16),)


class Net(nn.Module):
    """An autoencoder: the place after its last norm is the decoder's."""

    def __init__(self, latent_dim=8, hidden_dims=(8, 16), dropout=0.2):
        super().__init__()
        modules, in_channels = [], 3
        for h_dim in hidden_dims:
            modules.append(
                nn.Sequential(
                    nn.Conv2d(in_channels, h_dim, kernel_size=3, stride=2, padding=1),
                    nn.Identity(),
                    nn.BatchNorm2d(h_dim),
                    nn.LeakyReLU(),
                    nn.Dropout(dropout),
                )
            )
            in_channels = h_dim
        self.encoder = nn.Sequential(*modules)
        self.fc_mu = nn.Linear(hidden_dims[-1] * 16, latent_dim)
        self.fc_var = nn.Linear(hidden_dims[-1] * 16, latent_dim)
        self.decoder_input = nn.Linear(latent_dim, hidden_dims[-1] * 16)
        self.decoder = nn.Sequential(
            nn.ConvTranspose2d(hidden_dims[-1], 8, kernel_size=4, stride=2, padding=1),
            nn.BatchNorm2d(8),
            nn.LeakyReLU(),
            nn.ConvTranspose2d(8, 3, kernel_size=4, stride=2, padding=1),
            nn.Tanh(),
        )

    def forward(self, x):
        z = torch.flatten(self.encoder(x), start_dim=1)
        mu, log_var = self.fc_mu(z), self.fc_var(z)
        z = self.decoder_input(mu).view(-1, 16, 4, 4)
        return self.decoder(z), mu, log_var
