"""The one direction of imports: models end at a joint density, inference starts from one."""

import inspect
import subprocess
import sys

import pytest
from imports import ROOT, imports, inside

from posterior_inpainting import models
from posterior_inpainting.models import ImageModel

FILES = {
    half: [path.relative_to(ROOT).as_posix() for path in sorted((ROOT / half).rglob("*.py"))]
    for half in ("models", "inference")
}
EVERY = FILES["models"] + FILES["inference"]
PICTURES = ("arviz", "arviz_base", "arviz_stats", "arviz_plots", "matplotlib", "xarray")


def test_the_reader_of_imports(tmp_path):
    """The tests below stand on it: it sees what it should."""
    file = tmp_path / "a.py"
    file.write_text(
        "import a.b as c\nfrom d import e\nfrom typing import TYPE_CHECKING\n"
        "if TYPE_CHECKING:\n    import f\nelse:\n    import g\n"
        "class H:\n    import i\n    def j(self):\n        import k\n"
        "try:\n    import m\nexcept ImportError:\n    import n\n"
    )
    everything, running = ({name.split(".")[0] for name in imports(file, whole)} for whole in (True, False))
    assert everything == set("adfgikmn") | {"typing"}
    assert running == everything - {"f", "k"}


def test_there_are_files():
    assert "models/base.py" in FILES["models"]
    assert "models/networks/multilayer.py" in FILES["models"]
    assert "inference/verbs.py" in FILES["inference"]


@pytest.mark.parametrize("file", FILES["models"])
class TestModels:
    def test_never_import_inference_or_pictures(self, file):
        assert not [
            name for name in imports(file) if inside(name, "posterior_inpainting.inference", *PICTURES)
        ]

    def test_import_little_at_once(self, file):
        ours = ("posterior_inpainting.models", "pyro", "torch", "numpy", "safetensors")
        found = imports(file, everywhere=False)
        assert not [name for name in found if not inside(name, *ours, *sys.stdlib_module_names)]


@pytest.mark.parametrize("file", [file for file in FILES["models"] if file.startswith("models/networks/")])
def test_networks_never_import_pyro(file):
    assert not [name for name in imports(file) if inside(name, "pyro")]


@pytest.mark.parametrize("file", EVERY)
def test_no_bare_or_relative_imports(file):
    assert not [name for name in imports(file) if name.startswith(".") or inside(name, "models", "inference")]


def test_what_importing_the_models_loads():
    heavy = {"skimage", "sklearn", "scipy", "pandas", "PIL", "typer", "jaxtyping", *PICTURES}
    code = "import sys, posterior_inpainting.models; print(*{name.split('.')[0] for name in sys.modules})"
    command = [sys.executable, "-c", code]
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=120)
    loaded = set(done.stdout.split())
    assert {"torch", "pyro", "posterior_inpainting"} <= loaded
    assert not heavy & loaded
    assert done.stderr == ""


CLASSES = [value for value in vars(models).values() if inspect.isclass(value)]
MODELS = [value.__name__ for value in CLASSES if issubclass(value, ImageModel) and value is not ImageModel]


@pytest.mark.parametrize("name", MODELS)
def test_every_public_model_has_its_line_in_the_readme(name):
    lines = (ROOT / "README.md").read_text().splitlines()
    rows = [line for line in lines if line.startswith("|") and f"`{name}" in line]
    assert rows, f"{name} has no row in the table of models of README.md"
