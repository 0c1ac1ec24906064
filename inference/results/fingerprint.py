"""A digest of a model, its settings or its data: stored numbers are taken up again only by what made them."""

from __future__ import annotations

import hashlib
import sys
from typing import Any

from posterior_inpainting.inference.results.parts_of_objects import PLAIN, parts_of

__all__ = ["fingerprint"]


def fingerprint(value: Any) -> str:
    """Return a short digest: equal for what computes the same, different for what does not.

    Tensors count by value, modules by weights, settings and submodules, laws by parameters and everything they keep,
    functions by their code and what it closes over, and other objects by type and all attributes, private ones too.
    Known caches are left out. Of functions and classes that are not installed (a script's, a notebook's) code counts
    too, with the numbers, tensors, modules, laws, functions and classes that it finds by name.

    Parameters
    ----------
    value
        Tensors, arrays, modules, distributions, functions, plain values, other objects, and containers of them.

    Raises
    ------
    ValueError
        For what cannot be told apart by what it holds, saying where it is: iterators, open files, random generators,
        objects of compiled code that show nothing of themselves.

    Examples
    --------
    >>> import torch
    >>> fingerprint(torch.zeros(2)) == fingerprint(torch.zeros(2)), fingerprint(0.1) == fingerprint(0.2)
    (True, False)
    >>> def adding(number):
    ...     return lambda value: value + number
    >>> fingerprint(adding(1)) == fingerprint(adding(1)), fingerprint(adding(1)) == fingerprint(adding(2))
    (True, False)
    """
    return _Digester().digest(value, "").hex()[:16]


class _Digester:
    """Digests of an object and of all that it holds, each made once.

    An object that holds itself, directly or not, is told by how far above it stands.
    """

    def __init__(self):
        self.above: dict[int, int] = {}
        # With the objects, so that no id is given to another one meanwhile.
        self.done: dict[int, tuple[Any, bytes]] = {}
        #: Depth of the highest object that was met again below itself.
        self.highest = sys.maxsize

    def digest(self, value: Any, where: str) -> bytes:
        """Return the digest of a value; ``where`` says in errors what it is."""
        if type(value) in PLAIN:
            return _hash(f"{type(value).__name__}{value!r}", [])
        if id(value) in self.done:
            return self.done[id(value)][1]
        depth = len(self.above)
        if id(value) in self.above:
            self.highest = min(self.highest, self.above[id(value)])
            return _hash("above", [str(depth - self.above[id(value)]).encode()])
        outer, self.highest = self.highest, sys.maxsize
        self.above[id(value)] = depth
        name, parts, is_ordered = parts_of(value, where)
        found = [self.digest(part, f"{where}{step}") for step, part in parts]
        result = _hash(name, found if is_ordered else sorted(found))
        del self.above[id(value)]
        if self.highest >= depth:  # what it is does not depend on where it was met
            self.done[id(value)] = value, result
        self.highest = min(outer, self.highest)
        return result


def _hash(name: str, parts: list[bytes]) -> bytes:
    digest = hashlib.sha256()
    for part in (name.encode(), *parts):
        digest.update(len(part).to_bytes(8, "little") + part)
    return digest.digest()
