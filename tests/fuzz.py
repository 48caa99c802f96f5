"""Mutated files of every kind that comp reads, each given to a command that reads it: it has to end with exit
code 0, or with one line. Before a release:

    python -m tests.fuzz --seconds 600 --seed 1

A case is drawn from the seed and its number alone. What fails is printed with both, and its file is kept in
fuzz-failures/; `--case N` with the same seed does it again, and shows the whole traceback.

All is done in this process, in a folder that is gone afterwards, without a network."""

import argparse
import contextlib
import copy
import csv
import io
import json
import os
import random
import shutil
import signal
import socket
import struct
import sys
import tarfile
import tempfile
import time
import tomllib
import traceback
import warnings
import zipfile
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from comp.cli.main import main
from comp.config.loading import _toml
from comp.kaggle import retries
from comp.tuning import study

COMPETITION = """
title = "A small drawn competition"
labels = { csv = "train.csv", id = "image_name", column = "tags" }
images = { train = "train-jpg/{id}.jpg", test = "test-jpg/{id}.jpg" }
submission = { sample = "sample_submission.csv", solution = "solution.csv" }
"""
DRAWN = COMPETITION + "drawn = { n_train = 60, n_test = 50, size = 32 }\n"
RECIPE = """
competition = "{}.toml"
n_folds = 2
backbone = "test_resnet"
pretrained = false
augment = "dihedral"
rule = "expected"
n_trials = 3
ema_decay = 0.9
views = ["identity"]
phases = [{{ size = 16, epochs = 1, lr = 3e-3, batch_size = 16 }}, {{ size = 32, epochs = 1 }}]
tune = {{ "phases.0.lr" = [3e-3, 1e-3] }}
"""
LIMIT = 120  # seconds that a command may take
IMAGE = "files/train-jpg/train_0.jpg"
OF_TABLES = (
    "decide --probs oof.{0} --labels truth.{0} --rule expected --fold-file of.csv --apply test.{0} --force"
)

# file: what reads it; but for the stages without one, the recipe is tiny.toml
TARGETS: dict[str, tuple[str, ...]] = {
    "tiny.toml": (
        "folds",
        "submit",
        "decide",
        "report",
        "train",
        "predict",
        "find-lr --steps 20",
        f"explain {IMAGE}",
    ),
    "shapes.toml": ("download", "folds", "submit", "decide", "predict", "infer", "train", "blend"),
    "files/train.csv": ("download", "folds", "folds --force", "decide --force", "report --force", "train"),
    "files/sample_submission.csv": ("download", "submit", "predict", "infer --force", "duplicates"),
    "files/solution.csv": ("download", "submit --set name=second"),
    "folds/shapes-k2-s42.csv": ("folds", "train", "decide", "blend", "report"),
    "folds/shapes-k2-s42.json": ("folds",),
    "folds/shapes-duplicates.csv": ("folds", "folds --force", "duplicates", "train", "decide"),
    "folds/shapes-duplicates.json": ("folds", "duplicates", "train"),
    "data/shapes/manifest.json": (
        "download",
        "folds",
        "infer --force",
        "train",
        "submit",
        "download --force",
    ),
    "runs/tiny/decision.json": (
        *("submit", "report --force", "infer --force", f"explain {IMAGE} --force", "decide"),
        *("decide --force", "compare tiny second"),
    ),
    "runs/tiny/oof.npz": ("decide", "decide --force", "report --force", "blend", "compare tiny second"),
    "runs/tiny/test.npz": ("submit", "report --force", "blend", "blend second.toml --name mix --how mean"),
    "runs/tiny/fold0/oof.npz": ("predict", "blend", "blend --force", "report --force", "compare tiny second"),
    "runs/tiny/fold0/test.npz": ("predict", "blend", "blend --force", "report --force"),
    "runs/tiny/fold0/infer.npz": ("infer",),
    "runs/tiny/fold0/model.safetensors": (
        *("train", "predict", "predict --force", "infer", "infer --force", f"explain {IMAGE} --force"),
        *("compare tiny second", "report --force"),
    ),
    "runs/tiny/fold0/started.json": ("train", "report --force", "compare tiny second"),
    "runs/tiny/fold0/log.jsonl": ("train", "report --force", "compare tiny second"),
    "runs/half/fold0/last.pt": ("train --set name=half --folds 0",),
    "runs/half/fold0/started.json": ("train --set name=half --folds 0",),
    "runs/tiny/find-lr-0.json": ("find-lr --steps 20",),
    "runs/tiny/report.html": ("report",),
    "runs/second/study.log": ("decide --force --set name=second --rule optuna",),
    "runs/tiny/tune.log": ("tune --trials 1",),
    "runs/tiny/tuned.toml": ("blend runs/tiny/tuned.toml",),
    "runs/tiny/kernel-infer-pushed.json": ("kernel watch --kind infer --owner me",),
    "kaggle.json": ("kernel watch --kind infer",),
    "submissions/ledger.csv": ("ledger", "submit"),
    "submissions/{submission}.json": ("submit",),
    "oof.csv": (OF_TABLES.format("csv"),),
    "truth.csv": (OF_TABLES.format("csv"),),
    "test.csv": (OF_TABLES.format("csv"),),
    "of.csv": (OF_TABLES.format("csv"),),
    "oof.npz": (OF_TABLES.format("npz"),),
    "truth.npz": (OF_TABLES.format("npz"),),
    "test.npz": (OF_TABLES.format("npz"),),
    "packed/train-jpg.zip": ("download --from packed --set competition=packed-shapes.toml",),
    "packed/test-jpg.tar.gz": ("download --from packed --set competition=packed-shapes.toml",),
    "packed/solution.csv.7z": ("download --from packed --set competition=packed-shapes.toml",),
    "packed/sample_submission.csv.tar": ("download --from packed --set competition=packed-shapes.toml",),
}

HOSTILE: tuple[Any, ...] = (
    *(None, True, False, 0, 1, -1, 2, 10**18, 10**400, 0.5, 1.5, -0.5, 1e308, float("nan"), float("inf")),
    *(
        "",
        " ",
        "x",
        "0",
        "nan",
        "1e999",
        "²",
        "a" * 3000,
        "../../x",
        "/nowhere/x",
        "\0",
        "\ud800",
        "é",
        "{0}",
    ),
    *(
        "{id}",
        "{id.__class__}",
        "{id:>9}",
        "fold 0",
        "[red]",
        "\x1b[31m",
        "$\\frac{$",
        "=1+1",
        "a,b",
        '"',
        "\n",
    ),
    *([], {}, [[]], [None], [0] * 40, {"": None}, {"x": {"y": []}}, [1, "x"], ["fold 0"]),
)


# --- a world to read ----------------------------------------------------------------------------------------


def comp(*arguments: str) -> None:
    code = main(arguments)
    assert code == 0, (arguments, code)


def build() -> str:
    """A drawn competition run to its end in the working directory, with all files of TARGETS; give the name
    of its submission."""
    Path("files").mkdir()
    Path("drawn.toml").write_text(RECIPE.format("drawn-shapes"))
    Path("drawn-shapes.toml").write_text(DRAWN)
    comp("download", "drawn.toml")
    for path in Path("data/drawn-shapes/drawn").iterdir():
        shutil.move(path, "files")
    shutil.rmtree("data")
    Path("shapes.toml").write_text(COMPETITION)
    Path("tiny.toml").write_text(RECIPE.format("shapes"))
    Path("second.toml").write_text('extends = "tiny.toml"\n')
    for stage in ("download", "duplicates", "folds"):
        comp(stage, "tiny.toml", *(("--from", "files") if stage == "download" else ()))
    from comp.training import fit as fitting

    kept, fitting.checkpoint_path = fitting.checkpoint_path, lambda *_: Path("none")
    comp("train", "tiny.toml", "--set", "name=half", "--folds", "0")  # its last.pt stays
    fitting.checkpoint_path = kept
    Path("runs/half/fold0/model.safetensors").unlink()
    for stage in ("train", "predict", "blend", "decide", "submit", "report", "infer", "find-lr"):
        comp(stage, "tiny.toml", *(("--steps", "20") if stage == "find-lr" else ()))
    comp("tune", "tiny.toml", "--trials", "1")
    shutil.copytree("runs/tiny", "runs/second")
    comp("decide", "second.toml", "--force", "--rule", "optuna")
    pushed = {"me/data": {"a": "b"}, "kernel": "me/comp-tiny-infer", "version": 1}
    Path("runs/tiny/kernel-infer-pushed.json").write_text(json.dumps(pushed))
    Path("kaggle.json").write_text(json.dumps({"username": "me", "key": "secret"}))
    tables()
    pack()
    return next(Path("submissions").glob("tiny-*.json")).stem


def tables() -> None:
    """Probabilities and labels of another program."""
    rng = np.random.default_rng(0)
    classes, ids = ["a", "b", "c"], [f"i{i}" for i in range(40)]
    targets = (rng.random((40, 3)) < 0.4).astype(int)
    targets[:, 0] |= ~targets.any(1)
    probs = np.clip(targets * 0.5 + rng.random((40, 3)) * 0.5, 0, 1)
    for name, values in (("oof", probs), ("test", probs[::-1]), ("truth", targets)):
        pd.DataFrame(values, columns=classes, index=pd.Index(ids, name="id")).to_csv(f"{name}.csv")
        np.savez(
            f"{name}.npz", ids=ids, classes=classes, **{"targets" if name == "truth" else "probs": values}
        )
    pd.DataFrame({"id": ids, "fold": np.arange(40) % 4}).to_csv("of.csv", index=False)


def pack() -> None:
    """The competition's files as archives."""
    import py7zr

    Path("packed").mkdir()
    Path("packed-shapes.toml").write_text(COMPETITION)
    shutil.copy("files/train.csv", "packed")
    with zipfile.ZipFile("packed/train-jpg.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for path in sorted(Path("files/train-jpg").iterdir()):
            archive.write(path, f"train-jpg/{path.name}")
    with tarfile.open("packed/test-jpg.tar.gz", "w:gz") as tar:
        tar.add("files/test-jpg", "test-jpg")
    with tarfile.open("packed/sample_submission.csv.tar", "w") as tar:
        tar.add("files/sample_submission.csv", "sample_submission.csv")
    with py7zr.SevenZipFile("packed/solution.csv.7z", "w") as seven:
        seven.write("files/solution.csv", "solution.csv")


class World:
    """The files of a folder as they were, which each case finds and may change."""

    def __init__(self) -> None:
        self.files = {path: (path.read_bytes(), path.stat()) for path in self._there()}

    def _there(self) -> list[Path]:
        return [path for path in Path().rglob("*") if path.is_file() and not path.is_symlink()]

    def restore(self) -> None:
        for path in self._there():
            if path not in self.files:
                path.unlink()
        for path in sorted((p for p in Path().rglob("*") if p.is_dir()), reverse=True):
            with contextlib.suppress(OSError):  # not empty
                path.rmdir()
        for path, (content, before) in self.files.items():
            now = path.stat() if path.exists() else None
            if now is None or (now.st_mtime_ns, now.st_size) != (before.st_mtime_ns, before.st_size):
                path.parent.mkdir(parents=True, exist_ok=True)
                path.write_bytes(content)
                os.utime(path, ns=(before.st_atime_ns, before.st_mtime_ns))


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """No network, no other core, and no settings of the user's; in a folder that is gone afterwards."""

    def refuse(*_: Any) -> None:
        raise ConnectionRefusedError("the fuzz has no network")

    before, cwd = dict(os.environ), Path.cwd()
    connect, pauses = socket.socket.connect, retries.PAUSES
    cores = os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else None
    with tempfile.TemporaryDirectory() as folder:
        try:
            for name in [name for name in os.environ if name.startswith(("COMP_", "KAGGLE_"))]:
                del os.environ[name]
            os.environ |= {"HOME": folder, "KAGGLE_CONFIG_DIR": folder, "HF_HUB_OFFLINE": "1"}
            os.chdir(folder)
            if cores:
                os.sched_setaffinity(0, {min(cores)})  # folds one after the other, in this process
            socket.socket.connect = refuse  # type: ignore[method-assign]
            retries.PAUSES = ()
            yield
        finally:
            retries.PAUSES = pauses
            socket.socket.connect = connect  # type: ignore[method-assign]
            if cores:
                os.sched_setaffinity(0, cores)
            os.chdir(cwd)
            os.environ.clear()
            os.environ.update(before)


# --- mutations ----------------------------------------------------------------------------------------------


def of_bytes(rng: random.Random, data: bytes) -> bytes:
    if not data:
        return rng.randbytes(9)
    at, n = rng.randrange(len(data)), rng.choice((1, 1, 2, 8, 64))
    kinds: list[Callable[[], bytes]] = [
        lambda: data[:at],
        lambda: data[at:],
        lambda: b"",
        lambda: data[:at] + data[at + n :],
        lambda: data[:at] + rng.randbytes(n) + data[at + n :],
        lambda: data[:at] + rng.randbytes(n) + data[at:],
        lambda: data[:at] + bytes(n) + data[at + n :],
        lambda: data[:at] + bytes([data[at] ^ 1 << rng.randrange(8)]) + data[at + 1 :],
        lambda: data + data[at:],
    ]
    return rng.choice(kinds)()


def of_tree(rng: random.Random, tree: Any) -> Any:
    """The tree of dicts and lists with something changed."""
    tree = copy.deepcopy(tree)
    places: list[tuple[Any, Any]] = []

    def walk(node: Any) -> None:
        pairs = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
        for key, value in pairs:
            places.append((node, key))
            walk(value)

    walk(tree)
    if not places or rng.random() < 0.02:
        return copy.deepcopy(rng.choice(HOSTILE))
    node, key = rng.choice(places)
    other, other_key = rng.choice(places)
    kind = rng.randrange(12)
    if kind <= 5:
        node[key] = copy.deepcopy(rng.choice(HOSTILE))
    elif kind == 6:
        del node[key]
    elif kind == 7:
        node[key] = copy.deepcopy(other[other_key])
    elif kind == 8:
        node[key] = [node[key]]
    elif kind == 9:
        node[key] = str(node[key])
    elif isinstance(node, dict):
        name = rng.choice([item for item in HOSTILE if isinstance(item, str)] + ["fold", "name", "0"])
        node[name] = node.pop(key) if kind == 10 else copy.deepcopy(rng.choice(HOSTILE))
    else:
        node.append(copy.deepcopy(rng.choice(HOSTILE)) if kind == 10 else node[key])
    return tree


def of_json(rng: random.Random, data: bytes) -> bytes:
    if rng.random() < 0.01:
        return b"[" * 5000 + b"]" * 5000
    text = json.dumps(of_tree(rng, json.loads(data)), indent=1, ensure_ascii=rng.random() < 0.5)
    return text.encode("utf-8", "surrogatepass")


def of_lines(rng: random.Random, data: bytes) -> bytes:
    """JSON, a line each."""
    lines = data.splitlines()
    at = rng.randrange(len(lines))
    lines[at : at + 1] = rng.choice(
        ([of_json(rng, lines[at]).replace(b"\n", b"")],) * 6 + ([], [lines[at]] * 2, [b""], [lines[at][:-5]])
    )
    return b"\n".join(lines) + b"\n" * rng.randrange(2)


def of_toml(rng: random.Random, data: bytes) -> bytes:
    tree = of_tree(rng, tomllib.loads(data.decode()))
    if not isinstance(tree, dict):
        return repr(tree).encode("utf-8", "replace")
    text = "".join(f"{_toml({key: value})[2:-2]}\n" for key, value in tree.items())
    text = text.replace("NaN", "nan").replace("Infinity", "inf").replace("null", "nan")
    return text.encode("utf-8", "surrogatepass")


def of_csv(rng: random.Random, data: bytes) -> bytes:
    rows = list(csv.reader(io.StringIO(data.decode())))
    texts = [str(item) for item in HOSTILE if not isinstance(item, list | dict)]
    y, z = (rng.randrange(len(rows)) for _ in range(2))
    x = rng.randrange(len(rows[y])) if rows[y] else 0
    kind = rng.randrange(11)
    if kind <= 2:
        rows[y][x] = rng.choice(texts)
    elif kind == 3:
        del rows[y]
    elif kind == 4:
        rows.insert(z, rows[y])
    elif kind == 5:
        del rows[y][x]
    elif kind == 6:
        rows[y].insert(x, rng.choice(texts))
    elif kind == 7:
        rows[0][rng.randrange(len(rows[0]))] = rng.choice(texts + rows[0])
    elif kind == 8:
        rows = [row[:x] + row[x + 1 :] for row in rows]
    elif kind == 9:
        rows = [row[x : x + 1] + row for row in rows]
    else:
        rows = rows[: rng.choice((0, 1, 2, z))]
    text = io.StringIO()
    csv.writer(text, lineterminator=rng.choice(("\n", "\r\n"))).writerows(rows)
    return text.getvalue().encode(rng.choice(("utf-8", "utf-8", "utf-8-sig", "utf-16")), "replace")


def of_npz(rng: random.Random, data: bytes) -> bytes:
    with np.load(io.BytesIO(data)) as found:
        arrays: dict[str, Any] = {name: found[name] for name in found.files}
    name = rng.choice(list(arrays))
    array = arrays[name]
    if name == "stamp" and rng.random() < 0.8:
        arrays[name] = of_json(rng, str(array).encode()).decode("utf-8", "replace")
    else:
        number = array.dtype.kind in "fiu"
        kinds: list[Callable[[], Any]] = [
            lambda: array[..., None],
            lambda: array.ravel()[:1].reshape(()),
            lambda: array[:-1] if array.ndim else array,
            lambda: np.concatenate([array, array]) if array.ndim else array,
            lambda: array[:0] if array.ndim else array,
            lambda: array.T,
            lambda: array.astype(object),
            lambda: array.astype(bytes),
            lambda: array.astype(str),
            lambda: array.astype([("x", array.dtype)]),
            lambda: np.array(rng.choice([float("nan"), 7, "x", b"x", None, 1j]), None),
            lambda: np.full(array.shape, "2020-01-01", "datetime64[D]"),
            *([lambda: array.astype(rng.choice(("f2", "f4", "f8", "c8", "i8", "?")))] if number else []),
            *([lambda: _set(rng, array)] * (4 if number else 1)),
        ]
        arrays[name] = rng.choice(kinds)()
    if rng.random() < 0.1:
        del arrays[rng.choice(list(arrays))]
    target = io.BytesIO()
    np.savez(target, **arrays)
    return target.getvalue()


def _set(rng: random.Random, array: np.ndarray) -> np.ndarray:
    changed = array.astype("f8") if array.dtype.kind in "fiu" else array.copy()
    if changed.size:
        values = (
            (np.nan, np.inf, -1.0, 2.0, 1e300) if changed.dtype.kind == "f" else ("", "x", changed.flat[0])
        )
        changed.flat[rng.randrange(changed.size)] = rng.choice(values)
    return changed


def of_safetensors(rng: random.Random, data: bytes) -> bytes:
    (n,) = struct.unpack("<Q", data[:8])
    header = json.loads(data[8 : 8 + n])
    if rng.random() < 0.7:
        key = rng.choice(("spec", "stamp"))
        header["__metadata__"][key] = of_json(rng, header["__metadata__"][key].encode()).decode(
            "utf-8", "replace"
        )
    else:
        header = of_tree(rng, header)
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data[8 + n :]


def of_checkpoint(rng: random.Random, data: bytes) -> bytes:
    import torch

    state = torch.load(io.BytesIO(data), weights_only=True)
    if rng.random() < 0.3:
        state["history"] = of_json(rng, state["history"].encode()).decode("utf-8", "replace")
    else:
        state = of_tree(rng, state)
    target = io.BytesIO()
    torch.save(state, target)
    return target.getvalue()


def of_html(rng: random.Random, data: bytes) -> bytes:
    first, stamp, *others = data.split(b"\n")
    return b"\n".join([first, b"<!--" + of_json(rng, stamp[4:-3]).replace(b"\n", b"") + b"-->", *others])


MUTATIONS: dict[str, Callable[[random.Random, bytes], bytes]] = {
    ".json": of_json,
    ".jsonl": of_lines,
    ".log": of_lines,
    ".toml": of_toml,
    ".csv": of_csv,
    ".npz": of_npz,
    ".safetensors": of_safetensors,
    ".pt": of_checkpoint,
    ".html": of_html,
}


# --- cases --------------------------------------------------------------------------------------------------


class TooLong(BaseException):
    """A command that does not end."""


def too_long(*_: Any) -> None:
    raise TooLong(f"more than {LIMIT} s")


def case(world: World, submission: str, seed: int, number: int) -> tuple[str, list[str], str | None]:
    """(the file that is mutated, the command, what is wrong with its end)."""
    rng = random.Random(f"{seed}:{number}")
    world.restore()
    target, commands = rng.choice(list(TARGETS.items()))
    path = Path(target.format(submission=submission))
    command = rng.choice(commands).split()
    if command[0] not in ("ledger", "compare", *(["decide"] if "--probs" in command else [])):
        command.insert(2 if command[0] == "kernel" else 1, "tiny.toml")
    mutate = MUTATIONS.get(path.suffix, of_bytes)
    data = mutate(rng, path.read_bytes()) if rng.random() < 0.8 else path.read_bytes()
    while data == path.read_bytes() or rng.random() < 0.2:
        data = of_bytes(rng, data)
    path.write_bytes(data)
    return str(path), command, attempt(command)


def attempt(command: list[str]) -> str | None:
    """What is wrong with how a command ends; None where nothing is."""
    said = io.StringIO()
    signal.signal(signal.SIGALRM, too_long)
    signal.alarm(LIMIT)
    try:
        with (
            contextlib.redirect_stdout(io.StringIO()),
            contextlib.redirect_stderr(said),
            warnings.catch_warnings(action="ignore"),
        ):
            code = main(command)
    except BaseException:
        return traceback.format_exc()
    finally:
        signal.alarm(0)
    lines = said.getvalue().strip().splitlines()
    if code and (len(lines) != 1 or not lines[0].startswith(f"comp {command[0]}: ")):
        return f"exit code {code}, {len(lines)} lines: {said.getvalue()[:2000]}"
    return None


def fuzz(seed: int, *, seconds: float = 1e9, cases: range = range(10**9), failures: Path) -> int:
    """Try cases until the time is over; give how many kinds of failure there are."""
    found: Counter[str] = Counter()
    study.LOST_AFTER = 1.0  # seconds; an edited trial may look like one that runs elsewhere
    with alone():
        with contextlib.redirect_stdout(io.StringIO()):
            submission = build()
        world, started, n = World(), time.monotonic(), 0
        for number in cases:
            if time.monotonic() - started > seconds:
                break
            n += 1
            target, command, wrong = case(world, submission, seed, number)
            if wrong is None:
                continue
            places = [line.strip() for line in wrong.splitlines() if line.startswith("  File ")]
            kind = f"{places[-1] if places else ''} {wrong.strip().splitlines()[-1]}"[:300]
            found[kind] += 1
            if found[kind] == 1:
                failures.mkdir(parents=True, exist_ok=True)
                kept = failures / f"{seed}-{number}-{Path(target).name}"
                kept.write_bytes(Path(target).read_bytes() if Path(target).exists() else b"")
                print(f"seed {seed}, case {number}: {target}, kept as {kept}\n  comp {' '.join(command)}")
                print(wrong if len(cases) == 1 else f"  {kind}", flush=True)
        print(f"fuzz: {n} cases, {sum(found.values())} failures of {len(found)} kinds")
    return len(found)


def main_of_fuzz() -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__.split("\n\n")[0])
    parser.add_argument("--seconds", type=float, default=600)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--case", type=int, help="this case alone")
    given = parser.parse_args()
    cases = range(10**9) if given.case is None else range(given.case, given.case + 1)
    return bool(
        fuzz(given.seed, seconds=given.seconds, cases=cases, failures=Path("fuzz-failures").resolve())
    )


if __name__ == "__main__":
    sys.exit(main_of_fuzz())
