"""Run a network under weights that are given to it: one network, or as many at once as there are draws."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.utils import _pytree as pytree

from posterior_inpainting.models.shapes import InputError

__all__ = ["CallOf", "Weights", "run_with_weights"]

#: Parameter path in the network -> value; with leading dims, that many draws.
Weights = dict[str, Tensor]


def run_with_weights(
    network: nn.Module,
    weights: Weights,
    *args: Any,
    method: str = "forward",
    paired: bool = False,
    chunk: int | None = None,
) -> Any:
    """Run a network, or another method of it, under given weights; the network stays as it is.

    Parameters
    ----------
    network
        Any ``nn.Module``.
    weights
        Path -> ``(*draws, *shape)``. A parameter that is missing has its present value.
    args
        Arguments of the method; every network gets all of them.
    method
        Name of the method.
    paired
        Whether the tensors among ``args`` have the draws' dims too, so that each network gets its own.
    chunk
        Networks that run at a time, where memory is short; all by default.

    Returns
    -------
    Any
        What the method returns, its tensors with ``draws`` as first dims. Trailing ``draws`` dims of size 1 (but
        the first) are left to the network's own batch, which is where the plates of a Pyro model put it.

    Raises
    ------
    ValueError
        For an unknown path, a wrong shape, or different numbers of draws.

    Examples
    --------
    >>> layer = nn.Linear(4, 2)
    >>> tuple(run_with_weights(layer, {"weight": torch.randn(7, 2, 4)}, torch.randn(5, 4)).shape)
    (7, 5, 2)
    """
    shapes = {path: parameter.shape for path, parameter in network.named_parameters(remove_duplicate=False)}
    draws = _leading(weights, shapes)
    call = CallOf(network, method)
    if not draws:
        return _run(call, weights, args)
    count = math.prod(draws)
    flat = {path: value.reshape(count, *shapes[path]) for path, value in weights.items()}
    if paired:
        args = tuple(a.reshape(count, *a.shape[len(draws) :]) if torch.is_tensor(a) else a for a in args)
    dims = tuple(0 if paired and torch.is_tensor(a) else None for a in args)
    run = torch.func.vmap(
        lambda one, *inputs: _run(call, one, inputs),
        in_dims=(0, *dims),
        randomness="different",
        chunk_size=chunk,
    )
    return pytree.tree_map(lambda out: out.reshape(*draws, *out.shape[1:]), run(flat, *args))


class CallOf(nn.Module):
    """A method of a module as a module of its own, whose forward is the only one that `functional_call` calls.

    >>> CallOf(nn.Linear(2, 1), "extra_repr")()
    'in_features=2, out_features=1, bias=True'
    """

    def __init__(self, module: nn.Module, method: str = "forward"):
        super().__init__()
        self.module, self.method = module, method

    def forward(self, *args: Any) -> Any:
        """Call the method; the module itself and not its `forward`, which would pass over its hooks."""
        return (self.module if self.method == "forward" else getattr(self.module, self.method))(*args)


def _run(call: CallOf, weights: Weights, args: tuple) -> Any:
    return functional_call(call, {f"module.{path}": value for path, value in weights.items()}, args)


def _leading(weights: Weights, shapes: dict[str, torch.Size]) -> torch.Size:
    """Dims of the draws, without trailing ones of size 1; the same for every parameter."""
    found = set()
    for path, value in weights.items():
        if path not in shapes:
            raise InputError(f"{path!r} is not a parameter; there are {', '.join(shapes)}")
        dims = value.dim() - len(shapes[path])
        if dims < 0 or value.shape[dims:] != shapes[path]:
            raise InputError(
                f"{path!r} has shape {tuple(value.shape)}; expected (..., {', '.join(map(str, shapes[path]))})"
            )
        found.add(value.shape[:dims])
    if len(found) != 1:
        raise InputError(f"weights have different numbers of draws: {sorted(map(tuple, found))}")
    leading = found.pop()
    while len(leading) > 1 and leading[-1] == 1:
        leading = leading[:-1]
    return leading
