import configparser
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path
from zipfile import ZipFile

import pytest

ROOT = Path(__file__).parents[2]
HALVES = ("models", "inference")
LEFT_OUT = (".*", "build", "dist", "out", "*.egg-info", "__pycache__", "notebooks", "tests")


@pytest.fixture(scope="module")
def setup():
    parser = configparser.ConfigParser()
    parser.read(ROOT / "setup.cfg")
    return parser


def folders():
    """Every folder of the package, as its dotted name."""
    found = [path.parent.relative_to(ROOT) for half in HALVES for path in (ROOT / half).rglob("__init__.py")]
    return {f"posterior_inpainting.{'.'.join(path.parts)}": ROOT / path for path in sorted(found)}


def test_every_folder_is_listed(setup):
    listed = setup["options"]["packages"].split()
    assert sorted(listed) == sorted(folders())


def test_every_folder_with_code_is_a_package():
    with_code = {path.parent for half in HALVES for path in (ROOT / half).rglob("*.py")}
    assert with_code == set(folders().values())


def test_every_folder_says_that_it_is_typed(setup):
    for name, folder in folders().items():
        assert (folder / "py.typed").is_file(), name
        assert "py.typed" in setup["options.package_data"][name], name


def test_no_folder_of_the_name_of_the_package():
    assert not (ROOT / "posterior_inpainting").exists()


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """The wheel of a copy of the checkout, so that nothing is left behind in it."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    shutil.copytree(ROOT, source, ignore=shutil.ignore_patterns(*LEFT_OUT))
    command = [sys.executable, "-m", "build", "--wheel", "--no-isolation", "--outdir", folder, source]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    (path,) = folder.glob("*.whl")
    return path


class TestWheel:
    def test_holds_the_package_and_nothing_else(self, wheel):
        with ZipFile(wheel) as archive:
            names = {name for name in archive.namelist() if not name.endswith("/")}
        top = {name.split("/")[0] for name in names}
        version = metadata.version("posterior-inpainting")
        assert top == {"posterior_inpainting", f"posterior_inpainting-{version}.dist-info"}
        expected = {
            f"posterior_inpainting/{path.relative_to(ROOT).as_posix()}"
            for half in HALVES
            for path in (ROOT / half).rglob("*")
            if path.is_file() and not {"__pycache__"} & set(path.parts) and not path.name.startswith(".")
        }
        assert {name for name in names if name.startswith("posterior_inpainting/")} == expected

    def test_holds_weights_cards_and_samples(self, wheel):
        with ZipFile(wheel) as archive:
            names = set(archive.namelist())
            samples = archive.read("posterior_inpainting/models/samples/fashion-mnist.npz")
        weights = "posterior_inpainting/models/networks/weights"
        assert f"{weights}/SHA256SUMS" in names
        for prior in ("digits-vae-2d", "fashion-mnist-vae"):
            assert f"{weights}/{prior}.md" in names
            assert {f"{weights}/{prior}.{part}.safetensors" for part in ("decoder", "encoder")} <= names
        assert samples == (ROOT / "models/samples/fashion-mnist.npz").read_bytes()

    def test_it_is_small(self, wheel):
        assert wheel.stat().st_size <= 40_000_000

    def test_has_its_command_and_its_licence(self, wheel):
        with ZipFile(wheel) as archive:
            (points,) = (name for name in archive.namelist() if name.endswith("entry_points.txt"))
            commands = archive.read(points).decode()
            assert any(name.endswith("licenses/LICENSE") for name in archive.namelist())
        assert "posterior-inpainting = posterior_inpainting.inference.cli:main" in commands

    def test_works_from_elsewhere(self, wheel, tmp_path):
        """Imported from the wheel's files alone, without this checkout, a bundled prior decodes."""
        with ZipFile(wheel) as archive:
            archive.extractall(tmp_path)
        code = (
            f"import sys; sys.meta_path = [f for f in sys.meta_path if 'editable' not in str(f).lower()]\n"
            f"sys.path.insert(0, {str(tmp_path)!r})\n"
            "import torch\n"
            "from posterior_inpainting import models\n"
            "decoder = models.pretrained.load('digits-vae-2d')\n"
            "print(models.__file__)\n"
            "print(tuple(decoder(torch.zeros(2)).shape), len(models.datasets.load('fashion-mnist-samples')))\n"
        )
        command = [sys.executable, "-c", code]
        done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120, cwd=tmp_path)
        assert done.returncode == 0, done.stderr[-2000:]
        assert done.stdout == f"{tmp_path}/posterior_inpainting/models/__init__.py\n(1, 8, 8) 64\n"


def test_one_version(setup):
    version = setup["metadata"]["version"]
    assert metadata.version("posterior-inpainting") == version
    (cited,) = re.findall(r"^version: *[\"']?([\w.]+)", (ROOT / "CITATION.cff").read_text(), re.MULTILINE)
    assert cited == version


def test_what_is_imported_is_declared(setup):
    """Each third-party package that a module imports is a dependency, under its name on PyPI."""
    names = {
        "PIL": "pillow",
        "png": "pypng",
        "lazy_loader": "lazy-loader",
        "pyro": "pyro-ppl",
        "skimage": "scikit-image",
        "sklearn": "scikit-learn",
    }
    declared = {re.split("[<>=~!]", line)[0] for line in setup["options"]["install_requires"].split()}
    pattern = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
    imported = {
        module
        for half in HALVES
        for path in (ROOT / half).rglob("*.py")
        for module in pattern.findall(re.sub(r'"""(?:.|\n)*?"""', "", path.read_text()))
    }
    third = imported - set(sys.stdlib_module_names) - {"posterior_inpainting"}
    # For type checkers; what ArviZ 1 is made of; what a notebook runs in, and asked for in none but one; an extra.
    optional = {"jaxtyping", "arviz_stats", "IPython", "huggingface_hub"}
    assert {names.get(module, module) for module in third - optional} <= declared
