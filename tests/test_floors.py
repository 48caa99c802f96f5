"""The rules of the architecture, read from the imports."""

import argparse
import ast
import importlib
import inspect
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comp.cli import main as cli

PACKAGE = Path(__file__).parents[1] / "comp"
MODULES = sorted(PACKAGE.rglob("*.py"))
GPU_WORK = {
    "images",
    "augment",
    "batches",
    "losses",
    "model",
    "heatmaps",
    "parallel",
    "inference",
    "train",
    "predict",
    "ranks",
    "training",
    *("bench_speed", "bench_fastai"),
}
KEPT = {"data", "runs", "folds", "submissions"}


def imports(path: Path, *, at_once: bool = False) -> set[str]:
    """What a module imports; `at_once`: when it is imported itself, and not in a function."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            names |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return names


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_nothing_imports_a_stage_and_only_gpu_work_imports_torch(path: Path):
    found = imports(path, at_once=path.stem == "tracking")  # whose clients bring torch, when they are asked
    assert not [name for name in found if name.startswith("comp.stages")]
    if path.stem not in GPU_WORK:
        assert not [name for name in found if name.split(".")[0] in ("torch", "timm", "albumentations")]
    if path.stem != "kaggle_api":
        assert not [name for name in found if name.split(".")[0] == "kaggle"]
    ray = imports(path, at_once=path.stem == "cluster")  # an extra, and slow to import
    assert not [name for name in ray if name.split(".")[0] == "ray"]


@pytest.mark.parametrize("path", MODULES, ids=lambda path: str(path.relative_to(PACKAGE)))
def test_only_artifacts_spells_the_folders_that_stages_share(path: Path):
    if path.stem == "artifacts":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        parts: list[ast.expr] = []
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "Path":
            parts = node.args
        elif isinstance(node, ast.BinOp) and isinstance(node.op, ast.Div):
            parts = [node.right]
        for part in parts:
            assert not (isinstance(part, ast.Constant) and str(part.value).split("/")[0] in KEPT), (
                ast.unparse(node)
            )


def test_help_is_instant_and_teaches():
    started = time.perf_counter()
    answer = subprocess.run(
        [sys.executable, "-m", "comp", "--help"], capture_output=True, text=True, check=True
    )
    assert time.perf_counter() - started < 2  # 0.04 s on an idle core
    for stage in ("download", "folds", "train", "predict", "blend", "decide", "submit"):
        assert stage in answer.stdout
    heavy = "import sys, comp.cli.main; comp.cli.main.parser(); print([m for m in sys.modules if m in "
    heavy += "('numpy', 'pandas', 'torch', 'pydantic', 'rich')])"
    assert (
        subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout.strip() == "[]"
    )


@pytest.mark.parametrize("command", cli.DETAILS)
def test_help_shows_the_options_that_a_command_reads_and_no_others(command: str):
    module = importlib.import_module(f"comp.stages.{command.replace('-', '_')}")
    functions = [module.run, *([module.run_on_files] if command == "decide" else [])]
    read = {name for function in functions for name in inspect.signature(function).parameters}
    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    shown = {a.dest: a.help for a in commands.choices[command]._actions if a.help != argparse.SUPPRESS}
    assert shown.keys() - {"help", "overrides"} == read
    assert ("picture" in shown.get("to", "")) == (command == "explain")
    assert ("kernel" in shown.get("budget", "")) == (command == "kernel")


def test_wrong_usage_exits_with_2():
    answer = subprocess.run([sys.executable, "-m", "comp", "train"], capture_output=True, text=True)
    assert answer.returncode == 2
    assert "RECIPE" in answer.stderr


@pytest.mark.parametrize(
    "tool", [["ruff", "check", "."], ["ruff", "format", "--check", "."], ["mypy"]], ids=" ".join
)
def test_the_code_is_clean(tool: list[str]):
    answer = subprocess.run([sys.executable, "-m", *tool], cwd=PACKAGE.parent, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stdout + answer.stderr
