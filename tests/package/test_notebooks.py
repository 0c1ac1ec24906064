"""Every notebook runs from any folder, and is committed with its pictures, executed in order."""

import json
import sys
from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat")
nbclient = pytest.importorskip("nbclient")
pytest.importorskip("ipykernel")

NOTEBOOKS = sorted((Path(__file__).parents[2] / "notebooks").glob("*.ipynb"))
each_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


def read(path):
    return nbformat.read(path, as_version=4)


def code_cells(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code" and cell.source.strip()]


def pictures(notebook):
    outputs = [output for cell in code_cells(notebook) for output in cell.outputs]
    return [output for output in outputs if "image/png" in output.get("data", {})]


@pytest.fixture
def kernel(tmp_path, monkeypatch):
    """Name of a kernel that is this very interpreter, with settings and runtime files of its own."""
    name = "this-interpreter"
    folder = tmp_path / "jupyter" / "kernels" / name
    folder.mkdir(parents=True)
    command = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (folder / "kernel.json").write_text(
        json.dumps({"argv": command, "display_name": name, "language": "python"})
    )
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "jupyter"))
    monkeypatch.setenv("JUPYTER_RUNTIME_DIR", str(tmp_path / "runtime"))
    monkeypatch.setenv("IPYTHONDIR", str(tmp_path / "ipython"))
    monkeypatch.setenv(
        "MPLBACKEND", "module://matplotlib_inline.backend_inline"
    )  # conftest's Agg shows nothing
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    monkeypatch.setenv("NOTEBOOK_DRAWS", "20")
    return name


def test_there_are_notebooks():
    assert len(NOTEBOOKS) >= 2


#: Run by `make test` too: seconds each.
QUICK = ("06_bayes_by_backprop",)


@pytest.mark.parametrize(
    "path",
    [
        pytest.param(path, id=path.stem, marks=[] if path.stem in QUICK else [pytest.mark.long])
        for path in NOTEBOOKS
    ],
)
def test_runs(path, kernel, tmp_path):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    notebook = read(path)
    before = len(pictures(notebook))
    for cell in code_cells(notebook):
        cell.outputs, cell.execution_count = [], None
    client = nbclient.NotebookClient(
        notebook, kernel_name=kernel, timeout=600, resources={"metadata": {"path": str(elsewhere)}}
    )
    client.execute()
    assert len(pictures(notebook)) == before
    assert not list(elsewhere.iterdir()), "a notebook leaves files behind"


@each_notebook
def test_is_committed_as_it_ran(path):
    notebook = read(path)
    cells = code_cells(notebook)
    assert [cell.execution_count for cell in cells] == list(range(1, len(cells) + 1))
    outputs = [output for cell in cells for output in cell.outputs]
    assert not [output for output in outputs if output.output_type == "error"]
    assert not [output.text for output in outputs if output.output_type == "stream"], "warnings or prints"
    assert len(pictures(notebook)) >= 5
    assert path.stat().st_size < 1.5e6


CELL = """
import time
from posterior_inpainting.inference.bars import progress_bar
for _ in progress_bar(range(4), desc="counting <slowly>"):
    time.sleep(0.6)
"""


def test_a_bar_is_gone_when_it_is_done(kernel, tmp_path):
    """Each state is an update of one output, which is empty in the end; nothing asks for widgets."""
    said = []

    class Client(nbclient.NotebookClient):
        def process_message(self, msg, cell, cell_index):
            if msg["msg_type"] in ("display_data", "update_display_data"):
                said.append(msg["content"]["data"]["text/html"])
            return super().process_message(msg, cell, cell_index)

    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(CELL)])
    Client(notebook, kernel_name=kernel, resources={"metadata": {"path": str(tmp_path)}}).execute()
    assert "counting &lt;slowly&gt;:   0%" in said[0]
    assert "50%" in "".join(said)
    assert said[-1] == ""
    (output,) = notebook.cells[0].outputs
    assert output.output_type == "display_data"
    assert output.data["text/html"] == ""
