"""The layers of inference: a file imports its own layer and those below it, and no circle is hidden in a function."""

import pytest
from imports import ROOT, cycles, imported_files

FOLDER = ROOT / "inference"
PACKAGE = "posterior_inpainting.inference"
#: From the lowest to the highest; what stands in one line does not import each other, but for the first.
ORDER = (
    ("streams", "contract", "bars", "problems"),
    ("density",),
    ("results",),
    ("methods",),
    ("settled",),
    ("execution",),
    ("verbs", "going_on"),
    ("windows",),
    ("drawing_in_windows",),
    ("evaluation",),
    ("training",),
    ("catalogue",),
    ("comparison", "learning", "recipes"),
    ("cli",),
)
LEVELS = {name: level for level, names in enumerate(ORDER) for name in names}
EVERYTHING = FOLDER / "__init__.pyi"
FILES = sorted(path for path in FOLDER.rglob("*.py") if path != FOLDER / "__init__.py")
NAMES = [path.relative_to(FOLDER).as_posix() for path in FILES]


def layer(path):
    """The folder or the file directly in ``inference`` that a path belongs to."""
    return path.relative_to(FOLDER).parts[0].removesuffix(".py")


@pytest.mark.parametrize("name", NAMES)
def test_every_file_is_in_a_layer(name):
    assert layer(FOLDER / name) in LEVELS, f"name {name}'s layer in ORDER, above what it imports"


@pytest.mark.parametrize("name", NAMES)
def test_imports_go_down(name):
    path = FOLDER / name
    mine = layer(path)
    wrong = []
    for other in imported_files(path, PACKAGE, FOLDER):
        if other == FOLDER / "__init__.py":
            wrong += [] if mine == ORDER[-1][0] else ["inference/__init__.py, which imports everything"]
        elif layer(other) != mine:
            level = LEVELS[layer(other)]
            siblings = mine in ORDER[0] and level == 0
            if level > LEVELS[mine] or (level == LEVELS[mine] and not siblings):
                wrong.append(other.relative_to(FOLDER).as_posix())
    assert not wrong, f"inference/{name} imports {', '.join(wrong)}: not of a layer below"


def test_the_package_imports_no_command_line():
    """The command line alone may import the whole package."""
    assert ORDER[-1][0] not in {layer(path) for path in imported_files(EVERYTHING, PACKAGE, FOLDER)}


@pytest.mark.parametrize("names", ORDER, ids=" ".join)
def test_no_circle_inside_a_layer(names):
    mine = {path: imported_files(path, PACKAGE, FOLDER) for path in FILES if layer(path) in names}
    graph = {path: [other for other in found if other in mine] for path, found in mine.items()}
    found = [[path.relative_to(FOLDER).as_posix() for path in one] for one in cycles(graph)]
    assert not found, f"these import each other: {found}"


def test_every_layer_is_there():
    """A renamed folder would leave its layer empty, and nothing would be held."""
    there = {layer(path) for path in FILES}
    assert set(LEVELS) - there <= {"catalogue"}


class TestTheReader:
    """The tests above stand on it: it sees what it should."""

    @pytest.fixture
    def tree(self, tmp_path):
        files = {
            "__init__.py": "",
            "one.py": "from p.low import two\n",
            "low/__init__.py": "from p.low.three import name\n",
            "low/two.py": "def f():\n    from p.low.three import name, other\n",
            "low/three.py": "import torch\nimport p.low.four\n",
            "low/four.py": "from typing import TYPE_CHECKING\nif TYPE_CHECKING:\n    from p.low.two import f\n",
            "low/five.py": "from p import one, version\nfrom p.low import name\n",
        }
        for name, text in files.items():
            (tmp_path / name).parent.mkdir(exist_ok=True)
            (tmp_path / name).write_text(text)
        return tmp_path

    @pytest.mark.parametrize(
        ("file", "expected"),
        [
            ("one.py", ["low/two.py"]),
            ("low/two.py", ["low/three.py"]),
            ("low/three.py", ["low/four.py"]),
            ("low/four.py", ["low/two.py"]),
            ("low/five.py", ["one.py", "__init__.py", "low/__init__.py"]),
        ],
    )
    def test_files(self, tree, file, expected):
        found = imported_files(tree / file, "p", tree)
        assert [path.relative_to(tree).as_posix() for path in found] == expected

    def test_what_is_no_file(self, tree):
        (tree / "six.py").write_text("from p.nothing import x\n")
        with pytest.raises(ValueError, match=r"p\.nothing, which is no file"):
            imported_files(tree / "six.py", "p", tree)

    def test_cycles(self, tree):
        graph = {path: imported_files(path, "p", tree) for path in tree.rglob("*.py")}
        assert [[path.name for path in one] for one in cycles(graph)] == [["four.py", "three.py", "two.py"]]
        assert cycles({tree: [tree]}) == [[tree]]
        assert cycles({tree: [tree / "a"], tree / "a": []}) == []
