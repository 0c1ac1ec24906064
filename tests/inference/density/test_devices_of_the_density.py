"""No tensor or generator of `inference/density` is made without saying on which device."""

import ast
from pathlib import Path

import pytest

import posterior_inpainting.inference.density as density

FACTORIES = {
    *("arange", "as_tensor", "empty", "eye", "from_numpy", "full", "linspace", "logspace", "ones", "rand"),
    *("randint", "randn", "randperm", "scalar_tensor", "tensor", "zeros", "Generator"),
}
FILES = sorted(Path(density.__file__).parent.glob("*.py"))


def bare_factories(source: str) -> list[str]:
    """Calls ``torch.FACTORY(...)`` without ``device=``."""
    calls = [node for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Call)]
    return [
        f"line {call.lineno}: {ast.unparse(call)}"
        for call in calls
        if isinstance(call.func, ast.Attribute)
        and isinstance(call.func.value, ast.Name)
        and call.func.value.id == "torch"
        and call.func.attr in FACTORIES
        and not any(keyword.arg == "device" for keyword in call.keywords)
    ]


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.name)
def test_every_factory_names_its_device(path):
    assert bare_factories(path.read_text()) == []


def test_a_bare_one_is_found():
    source = "torch.zeros(3)\ntorch.zeros(3, device=x.device)\nx.new_zeros(3)\ntorch.Generator()"
    assert bare_factories(source) == ["line 1: torch.zeros(3)", "line 4: torch.Generator()"]
