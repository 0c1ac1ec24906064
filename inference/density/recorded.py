"""Functions whose operations are recorded once and replayed, which leaves Pyro and vmap out of every call.

A gradient of a small Pyro model takes one to three milliseconds, nearly all of them spent on handlers, distributions
and batching rules; its operations, run by themselves, take a tenth of that. The numbers are the same.
"""

from __future__ import annotations

import warnings
from collections import Counter
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from posterior_inpainting.inference.density.numerical_failures import is_numerical, or_else

__all__ = ["Recorded"]

#: Calls with tensors of the same shapes after which they are worth a recording, which takes some tenths of a second,
#: and the first in a process two seconds.
_CALLS = 300
#: How closely a recording has to repeat what it was made from; one that does not, as where a model draws, is not used.
_CLOSE = 1e-4
#: Rows up to which a number of them is rounded up to a power of two, so that there are few recordings.
_FEW = 16

Results = tuple[Tensor, ...]


class Recorded:
    """A function of rows that is recorded when it has been called often with the same shapes.

    Parameters
    ----------
    function
        From rows ``(..., row, dim)`` and other tensors, of which some may be numbers ``(..., row)``, to two such
        numbers and perhaps rows. It does the same operations whatever the values.

    Examples
    --------
    >>> def squares(rows, weight):
    ...     return weight * rows.square().sum(-1), rows.sum(-1)
    >>> replay, rows = Recorded(squares), torch.tensor([[1.0, 2.0], [3.0, 4.0]])
    >>> for _ in range(300):
    ...     replay(rows, torch.tensor(1.0))  # None: call the function yourself
    >>> replay(10 * rows, torch.tensor(2.0))
    (tensor([1000., 5000.]), tensor([30., 70.]))
    """

    def __init__(self, function: Callable[..., Results]):
        self.function = function
        self._calls: Counter[Any] = Counter()
        self._recordings: dict[Any, Callable[..., Results] | None] = {}

    def __call__(self, rows: Tensor, *others: Tensor) -> Results | None:
        """Return the results, or ``None`` where there is no recording, or it fails: the function says what is wrong."""
        count = rows.shape[-2]
        inputs = (
            _padded(rows.detach(), -2),
            *(_padded(one, -1) if _has_rows(one, count) else one for one in others),
        )
        key = tuple((one.shape, one.dtype, one.device) for one in inputs)
        if key not in self._recordings:
            self._calls[key] += 1
            if self._calls[key] <= _CALLS:
                return None
            del self._calls[key]  # where it fails at these inputs, it may be recorded at later ones
            or_else(None, lambda: self._recordings.update({key: _recording(self.function, inputs)}))
        recording = self._recordings.get(key)
        if recording is None:
            return None
        with torch.no_grad():
            *found, failures = recording(*inputs)
        if int(failures):
            return None
        return tuple(one.narrow(axis, 0, count) for one, axis in zip(found, (-1, -1, -2), strict=False))


def _has_rows(tensor: Tensor, count: int) -> bool:
    """Return whether a tensor has a number for each row; indices have not."""
    return tensor.is_floating_point() and tensor.dim() > 0 and tensor.shape[-1] == count


def _padded(rows: Tensor, axis: int) -> Tensor:
    """Repeat the last row up to a power of two, where there are few."""
    count = rows.shape[axis]
    more = (1 << (count - 1).bit_length()) - count if 0 < count < _FEW else 0
    if not more:
        return rows
    last = rows.narrow(axis, count - 1, 1)
    return torch.cat([rows, *[last] * more], axis)


def _recording(function: Callable[..., Results], inputs: Results) -> Callable[..., Results] | None:
    """Return a recording that repeats the function at the inputs, if there is one.

    Raises
    ------
    RuntimeError, ValueError, ArithmeticError
        Where the function fails numerically at the inputs.
    """
    from torch.fx.experimental.proxy_tensor import make_fx  # seconds, the first time it is used

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of tracing, whose results are compared below
            graph = make_fx(lambda *tensors: function(*tensors))(*inputs)
            _count_failures(graph.graph)
            graph.recompile()
            recording = torch.jit.freeze(torch.jit.trace(graph, inputs, check_trace=False).eval())
            expected = function(*inputs)
            for _ in range(2):  # its executor looks at the first runs, and changes for later ones
                with torch.no_grad():
                    *found, _ = recording(*inputs)
    except Exception as error:  # whatever torch cannot record is called as it is
        if is_numerical(error):
            raise
        return None
    close = all(
        torch.allclose(one, other, _CLOSE, _CLOSE, equal_nan=True)
        for one, other in zip(found, expected, strict=True)
    )
    return recording if close else None


def _count_failures(graph: torch.fx.Graph) -> None:
    """Let a graph return, as its last result, how many matrices had no factor: a check of it is not replayed."""
    (output,) = (node for node in graph.nodes if node.op == "output")
    checks = [node for node in graph.nodes if node.target is torch.ops.aten._linalg_check_errors.default]
    with graph.inserting_before(output):
        total = graph.call_function(torch.ops.aten.zeros.default, ([],))
        for check in checks:
            wrong = graph.call_function(torch.ops.aten.count_nonzero.default, (check.args[0],))
            total = graph.call_function(torch.ops.aten.add.Tensor, (total, wrong))
        output.args = ((*output.args[0], total),)
    for check in checks:
        graph.erase_node(check)
