"""CONTRIBUTING.md speaks of files, tests and names that there are."""

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
WORDS = sorted(set(re.findall(r"`([^`\n]+)`", (ROOT / "CONTRIBUTING.md").read_text())))
#: What is made by whoever follows it is not there yet.
MADE = "table.md", "models/NAME.py", "inference/methods/NAME.py"
PATHS = [word for word in WORDS if re.fullmatch(r"\w+(/\w+)*(/\w+|\.md|\.py)", word) and word not in MADE]
TESTS = [word for word in WORDS if re.fullmatch(r"test_\w+", word)]


@pytest.fixture(scope="module")
def code():
    return "\n".join(path.read_text() for path in (ROOT / "tests").rglob("test_*.py"))


def test_paths():
    assert len(PATHS) > 10
    missing = [path for path in PATHS if not (ROOT / path).exists()]
    assert not missing, f"CONTRIBUTING.md names {', '.join(missing)}, which is not there"


def test_tests(code):
    assert len(TESTS) > 10
    missing = [name for name in TESTS if f"def {name}(" not in code]
    assert not missing, f"CONTRIBUTING.md names {', '.join(missing)}, which no test is called"


def test_constants(code):
    constants = [word for word in WORDS if re.fullmatch(r"[A-Z]{3,}(_[A-Z]+)*", word)]
    code += (ROOT / "tests" / "registry.py").read_text()
    missing = [name for name in constants if not re.search(rf"^{name} = ", code, re.MULTILINE)]
    assert not missing, f"CONTRIBUTING.md names {', '.join(missing)}, which no test defines"
