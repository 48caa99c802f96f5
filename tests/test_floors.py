"""The rules of the rooms: imports run down, heavy libraries stay in their rooms, files stay small."""

import argparse
import ast
import importlib
import inspect
import subprocess
import sys
import time
from dataclasses import fields
from pathlib import Path

import pytest

from comp.cli import command_help
from comp.cli import main as cli

PACKAGE = Path(__file__).parents[1] / "comp"
MODULES = sorted(path for path in PACKAGE.rglob("*.py") if path.name not in ("__init__.py", "__main__.py"))
FLOORS = (  # from the ground up
    {"safe_text"},
    {"errors"},
    {"console", "user_code"},
    {"config", "deadline", "child_processes"},
    {"artifacts"},
    {"data", "decisions", "compute", "tracking", "pages"},
    {"batches"},
    {"models"},
    {"training", "evaluation"},
    {"kaggle", "tuning", "benchmarks", "watch"},
    {"plots"},
    {"decision"},
    {"commands"},
    {"cli"},
    {"api"},
)
FLOOR = {room: number for number, rooms in enumerate(FLOORS) for room in rooms}
TORCH = {"compute", "batches", "models", "training", "benchmarks"}  # rooms that import torch at once
KEPT = {"data", "runs", "folds", "submissions"}
MOST_LINES, MOST_LINES_OF_CLASS, MOST_PARAMETERS = 350, 200, 8


def room_of(path: Path) -> str:
    return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


def imports(path: Path, *, at_once: bool = False) -> set[str]:
    """Return what a module imports; with `at_once`, only at its top level."""
    names = set()
    tree = ast.parse(path.read_text())
    for node in tree.body if at_once else ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            deeper = {f"{node.module}.{alias.name}" for alias in node.names}
            names |= deeper if node.module == "comp" else {node.module}
    return names


def by_name(path: Path) -> str:
    return str(path.relative_to(PACKAGE))


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_a_module_imports_its_own_room_and_lower_floors_only(path: Path):
    room = room_of(path)
    for name in imports(path):
        package, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if package == "comp" and other not in (room, "__version__"):
            assert FLOOR[other] < FLOOR[room], f"{name} is not below {room}"


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_heavy_libraries_are_imported_where_they_belong(path: Path):
    tops = {name.split(".")[0] for name in imports(path, at_once=True)}
    anywhere = {name.split(".")[0] for name in imports(path)}
    if room_of(path) not in TORCH:
        assert not tops & {"torch", "timm", "albumentations"}
    if by_name(path) not in ("kaggle/session.py",):
        assert "kaggle" not in anywhere
    if by_name(path) not in ("compute/ray_jobs.py", "compute/ray_worker.py"):
        assert "ray" not in anywhere
    if room_of(path) != "plots":
        assert "matplotlib" not in anywhere


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_files_classes_and_signatures_stay_small(path: Path):
    text = path.read_text()
    assert len(text.splitlines()) <= MOST_LINES
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.ClassDef):
            assert node.end_lineno - node.lineno < MOST_LINES_OF_CLASS, node.name
        if isinstance(node, ast.FunctionDef):
            given = node.args
            names = [a.arg for a in (*given.posonlyargs, *given.args, *given.kwonlyargs)]
            assert len([name for name in names if name not in ("self", "cls")]) <= MOST_PARAMETERS, node.name


@pytest.mark.parametrize("path", MODULES, ids=by_name)
def test_only_paths_spells_the_folders_that_commands_share(path: Path):
    if by_name(path) == "artifacts/paths.py":
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


@pytest.mark.parametrize("command", [name for name in command_help.DETAILS if name != "run"])
def test_help_shows_the_options_that_a_command_reads_and_no_others(command: str):
    module = importlib.import_module(f"comp.commands.{command.replace('-', '_')}")
    read = set(inspect.signature(module.run).parameters)
    if command == "decide":
        read |= {"beta", "average", "zero_division", *(f.name for f in fields(module.TableRequest))}
    (commands,) = (a for a in cli.parser()._actions if isinstance(a, argparse._SubParsersAction))
    shown = {a.dest: a.help for a in commands.choices[command]._actions if a.help != argparse.SUPPRESS}
    assert shown.keys() - {"help", "overrides", "as_run"} == read
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


def test_train_and_predict_look_for_finished_files_before_torch_is_imported():
    heavy = "import sys, comp.commands.train, comp.commands.predict; print('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", heavy], capture_output=True, text=True).stdout == "False\n"
