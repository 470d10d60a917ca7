"""Uout: multiplicative uniform noise, whose variance is so small that a batch norm hardly notices it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.overrides import handle_torch_function, has_torch_function_unary

from dropout_lint.errors import UsageError
from dropout_lint.layers.dropouts import FUNCTIONS
from dropout_lint.remedies import plain_uout
from dropout_lint.remedies.plain_uout import uniform_noise
from dropout_lint.terms import Noise

# Elements from which drawing bits is faster.
LARGE = 1 << 15


class Uout(plain_uout.Uout):
    """`x · (1 + r)` with `r ~ U(−β, β)` in train mode, the identity in test mode (Li et al. 2019, Sec. 5).

    The mask has mean 1 and variance β²/3, where dropout's has p/(1 − p). A norm right after it is shifted
    by Δ = v / (v + β²(c² + v)/3): 0.891 after a ReLU with β = 0.5, where dropout with p = 0.5 gives 0.405.
    (Li's Eq. 13, 3/(3 + β²), is for inputs of mean c = 0.)

    Args:
        beta: half the width of the noise, 0 ≤ β ≤ 1; 0 does nothing. Li et al. (Table 4) tried 0.2, 0.3 and
            0.5.
        channelwise: one draw for each channel of each sample (as `nn.Dropout2d`), not for each element.
        inplace: overwrite the input.

    Shape:
        any; with `channelwise` (N, C, …), at least two dimensions.

    Raises:
        UsageError: `beta` is no number in [0, 1], or (in `forward`) the input is no floating-point tensor, or
            has no channel dimension though `channelwise` is set.
    """

    def __init__(self, beta: float = 0.3, channelwise: bool = False, inplace: bool = False) -> None:
        _check_beta(beta)
        super().__init__(beta, channelwise, inplace)

    def forward(self, input: Tensor) -> Tensor:
        """The noisy input in train mode, the input itself in test mode; same shape and dtype."""
        # with an `else`: the compiler of scripts passes over a branch, not over what follows one
        # torch does not export it by name; more words behind the ignore are more than TorchScript can read
        # mypy does not know it; the reason stands here, since the scripting compiler reads comments on types
        if torch.jit.is_scripting():  # type: ignore[attr-defined]
            return uniform_noise(input, self.beta, self.training, self.channelwise, self.inplace)
        else:
            return uout(input, self.beta, self.training, self.channelwise, self.inplace)


def uout(
    x: Tensor,
    beta: float = 0.3,
    training: bool = True,
    channelwise: bool = False,
    inplace: bool = False,
) -> Tensor:
    """`Uout` as a function. The gradient is the incoming one times the same 1 + r; nothing else is saved.

    Args:
        x: any floating-point or complex tensor; (N, C, …) with `channelwise`.
        beta: as in `Uout`.
        training: False returns `x` itself. Pass `self.training`.
        channelwise: as in `Uout`.
        inplace: as in `Uout`.

    Raises:
        UsageError: as in `Uout`.
    """
    if has_torch_function_unary(x):  # so that the switches of `modes` and a tracer can see the call
        options: dict[str, Any] = {"channelwise": channelwise, "inplace": inplace}
        noisy: Tensor = handle_torch_function(uout, (x,), x, beta=beta, training=training, **options)
        return noisy
    _check_beta(beta)
    if not training or beta == 0:
        return x
    if not isinstance(x, Tensor):
        raise UsageError(f"Uout needs a tensor, got {type(x).__name__}", "pass the layer's output to it")
    dtype = x.dtype.to_real() if x.is_complex() else x.dtype
    if not dtype.is_floating_point:
        raise UsageError(
            f"Uout needs a floating-point tensor, got {dtype}", "apply it after the embedding or a cast"
        )
    if channelwise and x.dim() < 2:
        raise UsageError(
            f"channelwise Uout needs an input of shape (N, C, …), got {tuple(x.shape)}",
            "use channelwise=False, or add the missing dimension",
        )
    # In half precision a draw has 8 or 11 bits and is rounded down: its mean would not be 1.
    wide = torch.float32 if dtype in (torch.float16, torch.bfloat16) else dtype
    if channelwise and x.dim() > 2:  # (N, C): each element is a channel of a sample
        shape = (*x.shape[:2], *[1] * (x.dim() - 2))
        scale = torch.empty(shape, dtype=wide, device=x.device).uniform_(1 - beta, 1 + beta)
    elif _draws_bits(x, wide):
        scale = _from_bits(x, beta)
    else:
        scale = torch.empty_like(x, dtype=wide, requires_grad=False).uniform_(1 - beta, 1 + beta)
    scale = scale.to(dtype)
    return x.mul_(scale) if inplace else x * scale


FUNCTIONS[uout] = ("uout", Noise.UNIFORM)  # so that a traced call counts as a dropout


def _draws_bits(x: Tensor, wide: torch.dtype) -> bool:
    """Whether `_from_bits` can serve: large tensors on the CPU, outside compilers and `torch.func`."""
    # asked first: a compiler would guard on the size, `torch.jit.trace` cannot view a dtype as another
    if torch.compiler.is_compiling() or torch._C._is_tracing():
        return False
    return (
        x.device.type == "cpu"
        and wide == torch.float32
        and x.numel() >= LARGE
        and x.is_contiguous()
        and not torch._C._are_functorch_transforms_active()
    )


def _from_bits(x: Tensor, beta: float) -> Tensor:
    """1 + r from 16 random bits for each element, in the middle of 65536 equal steps, so of mean 1 exactly.

    The CPU's generator is serial: four values from one of its 64-bit draws take a quarter of the time of four
    `uniform_` draws, and everything after that runs on all threads, as `nn.Dropout` does.
    """
    count = x.numel()
    draws = torch.empty((count + 3) // 4, dtype=torch.int64, device="cpu").random_(-(2**63), None)
    step = beta / 2**15
    return draws.view(torch.int16)[:count].view(x.shape).to(torch.float32).mul_(step).add_(1 + step / 2)


def _check_beta(beta: Any) -> None:
    number = isinstance(beta, (int, float)) and not isinstance(beta, bool)
    if not number or not 0 <= beta <= 1:
        raise UsageError(
            f"Uout's beta must be a number from 0 to 1, got {beta!r}", "Li et al. use 0.2 to 0.5"
        )
