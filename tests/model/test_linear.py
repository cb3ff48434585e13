"""Linear layers by the faster library against `F.linear`, and every case that must stay with `F.linear`."""

from collections.abc import Callable
from copy import deepcopy
from pathlib import Path

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from openflorence.model import linear
from openflorence.model.linear import Linear, PackedLinear, add_into, gelu_into


def drawn(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def drawn_layer(inputs: int, outputs: int, bias: bool = True) -> Linear:
    layer = Linear(inputs, outputs, bias=bias)
    with torch.no_grad():
        layer.weight.copy_(drawn(outputs, inputs))
    return layer


@pytest.fixture
def products(monkeypatch: pytest.MonkeyPatch) -> list[Tensor]:
    """The weights that went through the private operator, which is taken whatever the processor."""
    monkeypatch.setattr(linear, "_FASTER", linear._OPERATORS)
    seen: list[Tensor] = []
    product = linear._product

    def spy(x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        seen.append(weight)
        return product(x, weight, bias)

    monkeypatch.setattr(linear, "_product", spy)
    return seen


@torch.no_grad()
@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize("shape", [(48,), (1, 48), (577, 48), (2, 5, 7, 48)], ids=str)
def test_a_layer_gives_what_a_plain_one_gives(shape: tuple[int, ...], bias: bool, products: list[Tensor]):
    layer, x = drawn_layer(48, 64, bias), drawn(*shape, seed=2)
    # float32 sums of up to 96 products of size one, in another order; the same below
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=2e-5, rtol=0)
    assert len(products) == linear._OPERATORS


@torch.no_grad()
def test_a_layer_reads_input_in_any_order():
    layer, x = drawn_layer(48, 64), drawn(48, 6, 3).permute(2, 1, 0)
    torch.testing.assert_close(layer(x), F.linear(x, layer.weight, layer.bias), atol=2e-5, rtol=0)


def gradients(product: Callable, shape: tuple[int, ...], outputs: int, frozen: str) -> list[Tensor | None]:
    """Gradients of input, weight and bias under a drawn gradient that lies transposed in memory."""
    x, weight, bias = drawn(*shape), drawn(outputs, shape[-1], seed=1), drawn(outputs, seed=2)
    for name, tensor in (("x", x), ("weight", weight), ("bias", bias)):
        tensor.requires_grad_(name != frozen)
    pull = drawn(outputs, *shape[:-1], seed=3).movedim(0, -1)
    (product(x, weight, bias) * pull).sum().backward()
    return [x.grad, weight.grad, bias.grad]


@pytest.mark.parametrize("frozen", ["nothing", "x", "weight", "bias"])
@pytest.mark.parametrize(("shape", "outputs"), [((3, 48), 64), ((2, 5, 64), 48), ((1, 48), 48), ((48,), 64)], ids=str)
def test_training_has_the_gradients_of_a_plain_layer(shape, outputs, frozen, products: list[Tensor]):
    ours, plain = (gradients(product, shape, outputs, frozen) for product in (linear.linear, F.linear))
    for one, other in zip(ours, plain, strict=True):
        assert (one is None) == (other is None)
        if one is not None:
            torch.testing.assert_close(one, other, atol=3e-5, rtol=0)
    if linear._OPERATORS and len(shape) > 1:
        assert len(products) == 3 - (frozen in ("x", "weight"))  # forward, and one for each of the two that learns


def test_a_second_gradient_is_refused_not_wrong(products: list[Tensor]):
    x, weight = drawn(3, 48).requires_grad_(), drawn(64, 48, seed=1).requires_grad_()
    (first,) = torch.autograd.grad(linear.linear(x, weight, None).square().sum(), x, create_graph=True)
    if linear._OPERATORS:
        with pytest.raises(RuntimeError, match="once_differentiable"):
            first.sum().backward()
    else:
        first.sum().backward()
        assert weight.grad is not None


@torch.no_grad()
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float64], ids=str)
def test_other_number_types_take_the_plain_path(dtype: torch.dtype, products: list[Tensor]):
    layer, x = drawn_layer(48, 64).to(dtype), drawn(3, 48).to(dtype)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert not PackedLinear(layer.weight).is_packed
    assert torch.equal(PackedLinear(layer.weight)(x), F.linear(x, layer.weight))
    assert not products


@torch.no_grad()
def test_mixed_precision_takes_the_plain_path(products: list[Tensor]):
    with torch.autocast("cpu", torch.bfloat16):
        assert drawn_layer(48, 64)(drawn(3, 48)).dtype == torch.bfloat16
    assert not products


@torch.no_grad()
@pytest.mark.filterwarnings("ignore")  # tracing is on its way out, and complains of the shape checks
@pytest.mark.parametrize("trace", [torch.jit.trace, lambda layer, x: torch.export.export(layer, x).module()])
def test_an_exported_layer_holds_no_private_operator(trace: Callable, products: list[Tensor]):
    layer, x = drawn_layer(48, 64), drawn(3, 48)
    exported = trace(deepcopy(layer), (x,))
    assert "mkldnn" not in str(exported.graph)
    torch.testing.assert_close(exported(x), layer(x), atol=2e-5, rtol=0)


@torch.no_grad()
def test_a_torch_without_the_operators_takes_the_plain_path(monkeypatch: pytest.MonkeyPatch, products: list[Tensor]):
    monkeypatch.setattr(linear, "_OPERATORS", False)
    layer, x = drawn_layer(48, 64), drawn(3, 48)
    assert torch.equal(layer(x), F.linear(x, layer.weight, layer.bias))
    assert torch.equal(PackedLinear(layer.weight)(x), F.linear(x, layer.weight))
    assert not products


def test_where_blas_is_faster_layers_take_it_and_packed_weights_do_not(
    monkeypatch: pytest.MonkeyPatch, products: list[Tensor]
):
    monkeypatch.setattr(linear, "_FASTER", False)
    ours, plain = (gradients(product, (3, 48), 64, "nothing") for product in (linear.linear, F.linear))
    assert all(torch.equal(one, other) for one, other in zip(ours, plain, strict=True))
    assert not products
    PackedLinear(drawn(64, 48))(drawn(1, 48))
    assert len(products) == linear._OPERATORS


@pytest.mark.parametrize("rows", [1, 2, 3, 8, 16, 33])
@pytest.mark.parametrize("shape", [(64, 48), (7, 3), (501, 96)], ids=str)
def test_a_packed_layer_gives_what_a_plain_one_gives(shape: tuple[int, int], rows: int):
    weight, bias, x = drawn(*shape), drawn(shape[0], seed=1), drawn(rows, shape[1], seed=2)
    assert PackedLinear(weight).is_packed == linear._OPERATORS
    torch.testing.assert_close(PackedLinear(weight, bias)(x), F.linear(x, weight, bias), atol=2e-5, rtol=0)
    torch.testing.assert_close(PackedLinear(weight)(x), F.linear(x, weight), atol=2e-5, rtol=0)


def test_memory_is_used_again_only_when_nothing_is_trained():
    x, branch = drawn(4), drawn(4, seed=1)
    assert add_into(branch, x) is not branch
    assert gelu_into(branch) is not branch
    wanted, curved = x + branch, F.gelu(branch)
    with torch.no_grad():
        assert add_into(branch.bfloat16(), x).dtype == torch.float32
        assert torch.equal(gelu_into(branch.clone()), curved)
        assert add_into(branch, x) is branch
    assert torch.equal(branch, wanted)


def test_private_operators_are_named_in_one_file_only():
    files = [path.name for path in Path(linear.__file__).parents[1].rglob("*.py") if "ops.mkldnn" in path.read_text()]
    assert files == ["linear.py"]
