"""Read and change activations through hooks that are gone when the context ends; no weight is touched."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

Change = Callable[[Tensor], Tensor]


@contextmanager
def recorded(modules: Mapping[str, nn.Module], keep: int | None = None) -> Iterator[dict[str, Tensor]]:
    """Yields a dictionary that every forward pass fills with the modules' outputs by name.

    Shape (rows, positions, width), cut to the last ``keep`` positions where that is given. Gradients flow
    through what is recorded.
    """
    found: dict[str, Tensor] = {}

    def recorder(name: str) -> Callable[..., None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            hidden = hidden_of(output)
            found[name] = hidden if keep is None else hidden[:, -keep:]

        return hook

    with _hooks(module.register_forward_hook(recorder(name)) for name, module in modules.items()):
        yield found


@contextmanager
def changed(modules: Iterable[tuple[nn.Module, Change]]) -> Iterator[None]:
    """Every module's output h becomes change(h) inside; what a module returns beside h stays."""

    def hook(change: Change) -> Callable[..., Any]:
        def changed_output(module: nn.Module, inputs: Any, output: Any) -> Any:
            if isinstance(output, tuple):
                return (change(output[0]), *output[1:])
            return change(output)

        return changed_output

    with _hooks(module.register_forward_hook(hook(change)) for module, change in modules):
        yield


def ablation(direction: Tensor) -> Change:
    """h ↦ h − r̂ r̂ᵀ h for a direction r of shape (width,), of any length but 0."""
    unit = direction / direction.norm()

    def change(hidden: Tensor) -> Tensor:
        r = unit.to(hidden.dtype)
        return hidden - (hidden @ r)[..., None] * r

    return change


@contextmanager
def virtual_tokens(embedding: nn.Module, vectors: Tensor) -> Iterator[None]:
    """Gives the ids just past the vocabulary these embeddings, shape (tokens, width).

    Id vocabulary + k is embedded as ``vectors[k]``, and gradients reach it; every other id is embedded as before.
    """
    weight = embedding.weight
    assert isinstance(weight, Tensor)
    size = len(weight)
    asked: list[Tensor] = []

    def clamp(module: nn.Module, inputs: tuple[Tensor, ...]) -> tuple[Tensor, ...]:
        asked.append(inputs[0] - size)
        return (inputs[0].clamp(max=size - 1), *inputs[1:])

    def replace(module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> Tensor:
        index = asked.pop()
        virtual = index >= 0
        if not virtual.any():
            return output
        return torch.where(virtual[..., None], vectors[index.clamp(min=0)].to(output.dtype), output)

    with _hooks([embedding.register_forward_pre_hook(clamp), embedding.register_forward_hook(replace)]):
        yield


def hidden_of(output: Any) -> Tensor:
    """The hidden states among what a module returns: itself, or the first of a tuple."""
    hidden: Tensor = output[0] if isinstance(output, tuple) else output
    return hidden


@contextmanager
def _hooks(handles: Iterable[Any]) -> Iterator[None]:
    placed = list(handles)
    try:
        yield
    finally:
        for handle in placed:
            handle.remove()
