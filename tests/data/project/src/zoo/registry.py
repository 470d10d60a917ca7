from functools import partial

from zoo.configured import Config, Net

MODELS = {}


def register(function):
    MODELS[function.__name__] = function
    return function


@register
def small(drop=0.2):
    return Net(Config(drop))


@register
def deep(drop=0.3):
    return Net(Config(drop), hidden=(16, 16, 16))


def build(name="small", **options):
    return MODELS[name](**options)


ready = partial(Net, Config.few(0.4))
