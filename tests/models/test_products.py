"""Products of float32 on CPUs: the same numbers as torch's own, by whichever library."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from cai.models import products
from cai.models.products import add_product, fast_linear_layers, multiplied, multiply_into, onednn_is_faster

CPU = torch.device("cpu")


@pytest.fixture(params=[True, False], ids=["onednn", "torch"])
def by_onednn(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> bool:
    """Both ways on every machine that has the operator, whichever is the faster one there."""
    if request.param and not torch.backends.mkldnn.is_available():
        pytest.skip("this torch has no oneDNN")
    monkeypatch.setattr(products, "onednn_is_faster", lambda: request.param)
    return request.param


def drawn(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("rows", "inputs", "outputs"), [(3, 5, 7), (130, 96, 5000), (4099, 64, 1030)])
@pytest.mark.parametrize("transposed", [(False, False), (True, False), (False, True), (True, True)])
@pytest.mark.usefixtures("by_onednn")
def test_products_of_any_layout_are_those_of_float64(
    rows: int, inputs: int, outputs: int, transposed: tuple[bool, bool]
) -> None:
    left = drawn(inputs, rows).t() if transposed[0] else drawn(rows, inputs)
    right = drawn(outputs, inputs, seed=1).t() if transposed[1] else drawn(inputs, outputs, seed=1)
    wanted = left.double() @ right.double()
    found = torch.full((rows, outputs), torch.nan)
    multiply_into(found, left, right)
    added = torch.ones(rows, outputs)
    add_product(added, left, right)
    for product in (multiplied(left, right), found, added - 1):
        assert (product - wanted).norm() < 2e-6 * wanted.norm()


class Layers(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.frozen = nn.Linear(96, 200), nn.Linear(200, 96, bias=False), nn.Linear(96, 96)
        self.frozen.requires_grad_(requires_grad=False)

    def forward(self, given: torch.Tensor) -> torch.Tensor:
        return self.frozen(given + self.second(functional.silu(self.first(given))))


@pytest.mark.parametrize("checkpointed", [True, False])
@pytest.mark.usefixtures("by_onednn")
def test_gradients_of_linear_layers_are_those_of_float64(*, checkpointed: bool) -> None:
    layers, exact = Layers(), Layers().double()
    given = drawn(2, 300, 96).requires_grad_()
    given_exact = given.detach().double().requires_grad_()
    with fast_linear_layers(CPU):
        output: torch.Tensor = checkpoint(layers, given, use_reentrant=False) if checkpointed else layers(given)
        output.square().sum().backward()
    output_exact = exact(given_exact)
    output_exact.square().sum().backward()
    assert (output - output_exact).norm() < 2e-6 * output_exact.norm()
    pairs = [(given, given_exact), *zip(layers.parameters(), exact.parameters(), strict=True)]
    for weight, weight_exact in pairs:
        if weight_exact.grad is None:
            assert weight.grad is None, "a gradient was made that nobody asked for"
            continue
        assert weight.grad is not None
        assert (weight.grad - weight_exact.grad).norm() < 2e-6 * weight_exact.grad.norm()


def test_frozen_layers_keep_no_inputs(by_onednn: bool) -> None:
    kept: list[torch.Tensor] = []
    layer = nn.Linear(256, 256)
    layer.requires_grad_(requires_grad=False)
    given = drawn(64, 256).requires_grad_()
    with fast_linear_layers(CPU), torch.autograd.graph.saved_tensors_hooks(lambda t: kept.append(t) or t, lambda t: t):
        found = layer(given)
    assert (type(found.grad_fn).__name__ == "_LinearBackward") == by_onednn
    assert [each.shape for each in kept] == [(256, 256)]


@pytest.mark.usefixtures("by_onednn")
def test_other_precisions_and_autocast_are_left_alone_and_arguments_may_be_named() -> None:
    layer, given = nn.Linear(256, 256), drawn(64, 256)
    with fast_linear_layers(CPU):
        torch.testing.assert_close(layer.double()(given.double()), functional.linear(given.double(), layer.weight, layer.bias))
        named = functional.linear(input=given, weight=layer.float().weight, bias=layer.bias)
        torch.testing.assert_close(named, given @ layer.weight.t() + layer.bias)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert layer.float()(given).dtype is torch.bfloat16


@pytest.mark.usefixtures("by_onednn")
def test_nothing_is_replaced_for_models_elsewhere() -> None:
    torchs = functional.linear
    with fast_linear_layers(torch.device("meta")):
        assert functional.linear is torchs


def test_which_library_is_a_matter_of_the_machine_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    def decided(*, capability: str = "AVX512", intels: bool = False, way: Any = products._by_onednn) -> bool:
        with monkeypatch.context() as patched:
            patched.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
            patched.setattr(products, "_is_intels", lambda: intels)
            patched.setattr(products, "_by_onednn", way)
            return onednn_is_faster.__wrapped__()

    def absent(*_: Any) -> torch.Tensor:
        raise AttributeError("no such operator")

    assert decided() == (torch.backends.mkl.is_available() and torch.backends.mkldnn.is_available())
    assert not decided(intels=True)
    assert not decided(capability="AVX2")
    assert not decided(way=absent)
    assert not decided(way=lambda left, right: left @ right.t() + 1e-3), "a wrong operator was believed"
