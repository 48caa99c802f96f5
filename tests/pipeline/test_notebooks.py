"""Both notebooks run from top to bottom with the library alone, and are committed with what they show."""

import ast
import re
import shutil
import sys
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.kaggle.test_kernel import LAYOUTS, mount

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"
MAX_BYTES = 1_500_000  # of both


def shown(notebook: nbformat.NotebookNode) -> list[str]:
    """Return what the cells printed, and '<png>' for each picture."""
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return ["<png>" if "image/png" in o.get("data", {}) else o.get("text", "") for o in outputs]


def run(name: str, here: Path, recipe: str = "demo") -> list[str]:
    """Execute a notebook in `here`, and return what it shows: as many pictures as it is committed with."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    n_pictures = shown(notebook).count("<png>")
    for cell in notebook.cells:
        cell.source = cell.source.replace('RECIPE = "demo"', f'RECIPE = "{recipe}"')
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(here)}}).execute()
    found = shown(notebook)
    assert found.count("<png>") == n_pictures > 3
    return found


@pytest.mark.parametrize("name", ["explore.ipynb", "kaggle.ipynb"])
def test_a_notebook_uses_the_library_alone_and_shows_no_path_of_this_machine(name: str):
    text = (NOTEBOOKS / name).read_text(encoding="utf-8")
    cells = nbformat.reads(text, as_version=4).cells
    for cell in (cell for cell in cells if cell.cell_type == "code"):
        assert cell.execution_count, "commit it with outputs"
        for node in ast.walk(ast.parse(cell.source)):
            if isinstance(node, ast.ImportFrom):
                assert node.module in sys.stdlib_module_names
            elif isinstance(node, ast.Import):
                assert {alias.name for alias in node.names} <= {"comp", *sys.stdlib_module_names}
    assert str(NOTEBOOKS.parent) not in text and not re.search(r"/(home|root|tmp|Users)/", text)
    assert sum(path.stat().st_size for path in NOTEBOOKS.glob("*.ipynb")) < MAX_BYTES


def test_explore(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    found = run("explore.ipynb", here, "tiny.toml")
    assert any("90 images, 11 labels" in text for text in found)


def test_kaggle(here: Path, built: Path, monkeypatch: pytest.MonkeyPatch):
    kernel, inputs = built / "runs/tiny/kernel-train", here / "input"
    mount(kernel, built / "files", inputs, LAYOUTS["as in URLs"])
    (inputs / "script").mkdir()
    shutil.copy(kernel / "kernel/comp-tiny-train.py", inputs / "script")
    scratch = here / "tmp"  # the session's own, as on Kaggle: its files count for the session's disk
    scratch.mkdir()
    monkeypatch.setenv("TMPDIR", str(scratch))
    monkeypatch.setenv("COMP_KAGGLE_INPUT", str(inputs))
    monkeypatch.setenv("COMP_KAGGLE_WORKING", str(here))
    printed = "".join(run("kaggle.ipynb", here))
    assert "train: tiny" in printed and not {"\x1b", "\r"} & set(printed)  # lines and no bars
    assert (here / "submission.csv").read_bytes() == next(
        (built / "submissions").glob("tiny-*.csv")
    ).read_bytes()
