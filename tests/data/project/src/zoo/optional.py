from nowhere_at_all import encoder

from zoo.plain import Net


def build():
    return encoder(Net())
