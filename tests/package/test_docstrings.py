"""Every example runs, and everything public is described."""

import doctest
import importlib
import inspect
import pkgutil

import pytest

from posterior_inpainting import inference, models


def modules():
    """True names of all modules, so that their classes are those that everyone else imports."""
    for package in (models, inference):
        yield package.__name__
        yield from (info.name for info in pkgutil.walk_packages(package.__path__, f"{package.__name__}."))


NAMES = list(modules())


def test_the_walk_reaches_every_folder():
    assert "posterior_inpainting.models.networks.multilayer" in NAMES
    assert "posterior_inpainting.inference.verbs" in NAMES
    assert len(NAMES) == len(set(NAMES))


@pytest.mark.parametrize("name", NAMES)
def test_examples(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    module = importlib.import_module(name)
    failures, _ = doctest.testmod(module, optionflags=doctest.ELLIPSIS, report=True)
    assert failures == 0
    assert not list(tmp_path.iterdir())  # examples leave nothing behind


def test_examples_are_found():
    module = importlib.import_module("posterior_inpainting.models.images.regular_masks")
    assert doctest.testmod(module).attempted > 5


@pytest.mark.parametrize("name", NAMES)
def test_everything_public_is_described(name):
    module = importlib.import_module(name)
    assert inspect.getdoc(module)
    for public in getattr(module, "__all__", ()):
        value = getattr(module, public)
        if not getattr(value, "__module__", "").startswith("posterior_inpainting."):
            continue  # a constant, or an alias of something of torch's
        # A dataclass without a docstring gets its signature for one; a class inherits its parent's.
        described = value.__doc__ if inspect.isroutine(value) else vars(value).get("__doc__")
        assert described, public
        assert not described.startswith(f"{public}("), public
