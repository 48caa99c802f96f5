"""Both notebooks run from top to bottom, and show pictures."""

import shutil
from pathlib import Path

import nbformat
import pytest
from nbclient import NotebookClient

from tests.kaggle.test_kernel import LAYOUTS, mount

NOTEBOOKS = Path(__file__).parents[2] / "notebooks"


def run(name: str, here: Path) -> list[str]:
    """Execute a notebook in `here`; give what its cells printed, and '<png>' for each picture."""
    notebook = nbformat.read(NOTEBOOKS / name, as_version=4)
    assert not any(cell.get("outputs") for cell in notebook.cells), "commit it without outputs"
    NotebookClient(notebook, timeout=300, resources={"metadata": {"path": str(here)}}).execute()
    outputs = [output for cell in notebook.cells for output in cell.get("outputs", [])]
    return ["<png>" if "image/png" in o.get("data", {}) else o.get("text", "") for o in outputs]


def test_explore(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("RECIPE", "tiny.toml")
    monkeypatch.setenv("PYTHONPATH", str(NOTEBOOKS.parent))
    shown = run("explore.ipynb", here)
    assert shown.count("<png>") == 4
    assert any("90 training images" in text for text in shown)


def test_kaggle(here: Path, built: Path, monkeypatch: pytest.MonkeyPatch):
    kernel, inputs = built / "runs/tiny/kernel-train", here / "input"
    mount(kernel, built / "files", inputs, LAYOUTS["as in URLs"])
    (inputs / "script").mkdir()
    shutil.copy(kernel / "kernel/comp-tiny-train.py", inputs / "script")
    monkeypatch.setenv("COMP_KAGGLE_INPUT", str(inputs))
    monkeypatch.setenv("COMP_KAGGLE_WORKING", str(here))
    shown = run("kaggle.ipynb", here)
    assert shown.count("<png>") == 5
    printed = "".join(shown)
    assert "train: tiny" in printed and not {"\x1b", "\r"} & set(printed)  # lines and no bars
    assert (here / "submission.csv").read_bytes() == next(
        (built / "submissions").glob("tiny-*.csv")
    ).read_bytes()
