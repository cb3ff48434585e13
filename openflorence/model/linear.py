"""Linear layers by the faster of torch's two libraries, and with weights packed once.

For float32 on a CPU `F.linear` always calls the BLAS library, oneDNN only for other number types. Measured on two cores
of an AMD EPYC with AVX-512: oneDNN is 2.3 times as fast at the tower's sizes, because the BLAS there leaves the wide
registers alone. On those of an older one with AVX2 they are close forward, and BLAS is up to twice as fast for the
gradient of a weight (142 against 76 GFLOP/s for 73,728 rows of 512 and 128). So oneDNN takes whole layers only where
there is AVX-512; packed weights are faster on both. The operators are private, the ones torch's compiler emits: they
are named in this file only, and where they are missing everything falls back to `F.linear`.
"""

from typing import Any

import torch
import torch.nn.functional as F
from jaxtyping import Float
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

_OPERATORS = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")
_FASTER = _OPERATORS and "AVX512" in torch.backends.cpu.get_cpu_capability()


def _fits(weight: Tensor) -> bool:
    return _OPERATORS and weight.device.type == "cpu" and weight.dtype == torch.float32


def _pack(weight: Float[Tensor, "O I"]) -> Tensor | None:
    """Lay a weight out for oneDNN's kernels; None where they do not fit the device, number type or platform."""
    if not _fits(weight):
        return None
    try:
        # Without a row count: measured as fast as any other from 1 to 48 rows, so one copy serves them all.
        return torch.ops.mkldnn._reorder_linear_weight(weight.contiguous(), None)
    except (AttributeError, RuntimeError):  # an older or differently built torch
        return None


def _product(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")


class _Trained(torch.autograd.Function):
    """The product with both of its gradients by oneDNN: they are two thirds of the work of a training step."""

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return _product(x, weight, bias)

    @staticmethod
    @once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, Tensor | None, Tensor | None]:
        x, weight = ctx.saved_tensors
        wants_x, wants_weight, wants_bias = ctx.needs_input_grad
        rows, inputs = gradient.flatten(0, -2), x.flatten(0, -2)
        to_x = _product(gradient.contiguous(), weight.t(), None) if wants_x else None
        to_weight = None
        if wants_weight:
            # The wider side last: measured up to twice as fast as the other way round. Views, because oneDNN reads
            # them as they lie, while copying a transpose costs as much as the product.
            wide = weight.shape[0] >= weight.shape[1]
            to_weight = _product(inputs.t(), rows.t(), None).t() if wide else _product(rows.t(), inputs.t(), None)
        return to_x, to_weight, rows.sum(0) if wants_bias else None


def linear(x: Float[Tensor, "*rows I"], weight: Float[Tensor, "O I"], bias: Tensor | None) -> Float[Tensor, "*rows O"]:
    """`F.linear` by the faster library, trained or not; by `F.linear` when traced or in another number type."""
    other = torch.is_autocast_enabled("cpu") or torch.compiler.is_compiling() or torch.jit.is_tracing()
    if other or not _FASTER or x.dtype != torch.float32 or not x.numel() or not _fits(weight):
        return F.linear(x, weight, bias)
    trained = (bias is not None and bias.requires_grad) or x.requires_grad or weight.requires_grad
    if not torch.is_grad_enabled() or not trained:
        return _product(x, weight, bias)
    return _Trained.apply(x, weight, bias) if x.dim() > 1 else F.linear(x, weight, bias)


class Linear(nn.Linear):
    """`nn.Linear` that takes the faster library."""

    def forward(self, x: Float[Tensor, "*rows I"]) -> Float[Tensor, "*rows O"]:
        return linear(x, self.weight, self.bias)


class PackedLinear:
    """A linear layer for a few rows at a time, its weight packed once instead of at every call.

    Measured for the output head, 51289 x 768, on two AVX2 cores: 8 ms from 1 to 8 rows, where `F.linear` takes 13 ms
    for one row and 35 ms for three. The packed copy does not follow the weight: pack again after it changes.
    """

    def __init__(self, weight: Float[Tensor, "O I"], bias: Float[Tensor, "O"] | None = None) -> None:
        self.bias = None if bias is None else bias.detach()
        packed = _pack(weight.detach())
        self.is_packed = packed is not None
        self.weight = weight.detach() if packed is None else packed  # never both: joined weights would be held twice

    def __call__(self, x: Float[Tensor, "rows I"]) -> Float[Tensor, "rows O"]:
        return _product(x, self.weight, self.bias) if self.is_packed else F.linear(x, self.weight, self.bias)


def add_into(branch: Tensor, x: Tensor) -> Tensor:
    """`x + branch`, in the memory of `branch` when nothing is trained; the caller does not use `branch` again."""
    if torch.is_grad_enabled() or branch.dtype != x.dtype:
        return x + branch
    return branch.add_(x)


def gelu_into(x: Tensor) -> Tensor:
    """Exact GELU, in the memory of `x` when nothing is trained; the caller does not use `x` again."""
    return F.gelu(x) if torch.is_grad_enabled() else torch.ops.aten.gelu_(x)
