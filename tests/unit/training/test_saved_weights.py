"""Backward with weights that were taken away after forward and lie elsewhere by then."""

import gc

import torch
from torch import Tensor, nn
from torch.multiprocessing.reductions import StorageWeakRef

from ifvit.model.projections import QueryKeyValue, SkipMerge
from ifvit.training.saved_weights import without_saved_weights


class Layers(nn.Module):
    """Whole weights, views of them, and operations that keep their own results."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.skip, self.to_qkv = nn.LayerNorm(6), SkipMerge(6), QueryKeyValue(6, bias=True)
        self.mlp = nn.Sequential(nn.Linear(6, 9), nn.GELU(), nn.Linear(9, 6))

    def forward(self, tokens: Tensor, context: Tensor) -> Tensor:
        query, key, value = self.to_qkv(self.norm(self.skip(tokens, tokens.tanh())), self.norm(context))
        return self.mlp((query @ key.transpose(1, 2)).softmax(dim=-1) @ value)


def layers_and_inputs() -> tuple[Layers, list[Tensor]]:
    torch.manual_seed(0)
    return Layers(), [torch.randn(2, length, 6, requires_grad=True) for length in (4, 3)]


def gradients(model: nn.Module, inputs: list[Tensor]) -> list[Tensor]:
    found = [tensor.grad for tensor in (*inputs, *model.parameters())]
    assert all(gradient is not None for gradient in found)
    return [gradient for gradient in found if gradient is not None]


def test_nothing_of_the_weights_is_kept_and_the_gradients_are_the_same() -> None:
    plain, inputs = layers_and_inputs()
    plain(*inputs).square().sum().backward()
    expected = gradients(plain, inputs)

    model, inputs = layers_and_inputs()
    model.forward = without_saved_weights(model.forward)  # type: ignore[method-assign]
    loss = model(*inputs).square().sum()
    elsewhere, storages = [], []
    for parameter in model.parameters():
        elsewhere.append(torch.cat((torch.zeros(5), parameter.detach().flatten())))
        storages.append(StorageWeakRef(parameter.untyped_storage()))
        parameter.data = torch.empty(0)
    assert [storage.expired() for storage in storages] == [True] * len(storages)
    for parameter, values, like in zip(model.parameters(), elsewhere, plain.parameters(), strict=True):
        parameter.data = values[5:].view(like.shape)
    loss.backward()
    assert all(map(torch.equal, gradients(model, inputs), expected))


def test_a_forward_pass_without_backward_leaves_nothing_behind() -> None:
    """An operation's result that is kept with its history would keep itself until the garbage collector comes."""
    forward = without_saved_weights(lambda values: values.tanh().exp())
    gc.disable()
    try:
        result = forward(torch.ones(3, requires_grad=True))
        storage = StorageWeakRef(result.untyped_storage())
        del result
        assert storage.expired()
    finally:
        gc.enable()
