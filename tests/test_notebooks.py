"""Every notebook runs from top to bottom, and is stored with its pictures."""

from pathlib import Path

import pytest

nbformat = pytest.importorskip("nbformat", reason="nbformat is not installed")
nbclient = pytest.importorskip("nbclient", reason="nbclient is not installed")
pytest.importorskip("ipykernel", reason="ipykernel is not installed")
pytest.importorskip("matplotlib", reason="the plot extra is missing")

FOLDER = Path(__file__).parents[1] / "notebooks"
NOTEBOOKS = sorted(FOLDER.glob("*.ipynb"))


def texts(notebook):
    """What the code cells print, and the pictures they show, cell by cell."""
    cells = [c for c in notebook.cells if c.cell_type == "code"]
    printed = ["".join(o.text for o in c.outputs if o.output_type == "stream") for c in cells]
    pictures = [sum("image/png" in o.get("data", {}) for o in c.outputs) for c in cells]
    return printed, pictures


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda p: p.name)
def test_notebook_runs(path, monkeypatch):
    notebook = nbformat.read(path, as_version=4)
    nbformat.validate(notebook)
    stored = texts(notebook)
    monkeypatch.chdir(FOLDER)
    again = nbformat.read(path, as_version=4)
    nbclient.NotebookClient(again, timeout=600, kernel_name="python3").execute()
    fresh = texts(again)
    assert stored[1] == fresh[1], "the pictures stored are not those that the notebook makes"
    assert [bool(t) for t in stored[0]] == [bool(t) for t in fresh[0]]
    assert path.stat().st_size < 2_000_000


def test_there_are_notebooks():
    assert NOTEBOOKS
