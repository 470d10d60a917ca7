"""From the text that names a target to the built `nn.Module`."""
