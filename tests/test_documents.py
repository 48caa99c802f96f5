"""What the documents name exists: paths, keys, imports. comp/README.md names every file of the package."""

import importlib
import re
import tomllib
from pathlib import Path

import pytest

from comp.config.competition import Images, LabelTable, Metric, SubmissionTable
from comp.config.recipe import Phase, Recipe

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "comp"
DOCUMENTS = ("README.md", "CONTRIBUTING.md", "BENCHMARKS.md", "CHANGELOG.md", "comp/README.md")
PATH = re.compile(r"(?<![\w/.])(?:comp|tests|notebooks|folds|submissions|\.ci)/[\w./-]*")
MADE = re.compile(r"(?:folds|submissions)/(?!README)")  # by commands
INIT = "__init__.py"


def text_of(document: str) -> str:
    return (ROOT / document).read_text(encoding="utf-8")


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_path_that_a_document_names_exists(document: str):
    text, folder = text_of(document), (ROOT / document).parent
    named = [path for path in PATH.findall(text) if not MADE.match(path)]
    assert named
    assert [path for path in named if not (ROOT / path.rstrip(".")).exists()] == []
    links = [link for link in re.findall(r"\]\(([^)]+)\)", text) if "://" not in link]
    assert [link for link in links if not (folder / link).exists()] == []


@pytest.mark.parametrize("document", DOCUMENTS)
def test_every_import_that_a_document_shows_works(document: str):
    for module, names in re.findall(r"from ((?:comp|tests)[\w.]*) import ([\w*]+)", text_of(document)):
        assert names == "*" or hasattr(importlib.import_module(module), names)


def test_the_map_names_every_file_of_the_package_once():
    rows = re.findall(r"^\| (`.+?`) \| .+ \|$", text_of("comp/README.md"), re.M)
    named = [
        path for row in rows for pattern in re.findall(r"`(.+?)`", row) for path in PACKAGE.glob(pattern)
    ]
    for row in rows:
        assert all(any(PACKAGE.glob(pattern)) for pattern in re.findall(r"`(.+?)`", row)), row
    there = {path for path in PACKAGE.rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    rooms = {path for path in there if path.name == INIT and path.parent != PACKAGE}
    assert sorted(set(named) - rooms) == sorted(there - rooms - {PACKAGE / "README.md"})
    assert len(named) == len(set(named))


def test_the_map_names_every_room():
    text = text_of("comp/README.md").partition("## The flow")[0]
    rooms = {path.parent.name for path in PACKAGE.glob(f"*/{INIT}")} - {"competitions", "recipes"}
    assert rooms - set(text.split()) == set()


def test_keys_that_the_readme_names_for_a_change_are_keys():
    table = text_of("README.md").partition("## To change X, edit Y")[2]
    keys = {
        name
        for part in (Recipe, Phase, LabelTable, Images, SubmissionTable, Metric)
        for name in part.model_fields
    }
    first = [
        row.split("|")[2] for row in table.splitlines() if row.startswith("| ") and "| edit |" not in row
    ]
    named = {name for cell in first for name in re.findall(r"`([a-z_]+)`", cell)}
    values = {"constant", "none", "dihedral", "satellite", "microscopy", "d4", "flips", "crops"}
    values |= {"bce", "focal", "asymmetric", "fbeta", "lovasz", "groups"}
    assert named - values - keys == set()


def test_the_changelog_knows_the_version():
    version = tomllib.loads(text_of("pyproject.toml"))["project"]["version"]
    assert version == importlib.import_module("comp").__version__
    assert re.search(r"^## \[Unreleased\]$", text_of("CHANGELOG.md"), re.M)
