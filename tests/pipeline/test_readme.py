"""Each command of README.md and of the pages in notebooks/, as it is printed there. A shell reads it, with
programs that only record their arguments. Calls of comp then run in this process, shortened by --set, against
a fake Kaggle."""

import contextlib
import io
import os
import re
import shutil
import subprocess
import tomllib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import comp
from comp.artifacts.files import write_text
from comp.benchmarks import speed as bench_speed
from comp.benchmarks import training_speed
from comp.cli.command_help import DETAILS
from comp.cli.main import main, parser
from comp.config.competition import Drawn
from comp.config.loading import load_competition
from comp.data.synthetic.generate import generate_files
from comp.kaggle import retries
from comp.kaggle.kernels import build as kernels
from comp.kaggle.kernels import push as pushing
from tests.decisions.test_decisions import planetary
from tests.fake_kaggle import FakeKaggle, hpa, planet

ROOT = Path(__file__).parents[2]
PAGES = (
    ROOT / "README.md",
    *(ROOT / "notebooks" / f"{name}.md" for name in ("recipes", "decisions", "machines")),
)
README = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```", README, re.S | re.M)  # (language, text)
COMMANDS = re.findall(r"^    (\S.*)$", re.sub(r"^```.*?^```", "", README, flags=re.S | re.M), re.M)
PROGRAMS = ("comp", "pip", "python", "ray", "torchrun")
NOTES = (
    '#!/bin/sh\nfor word in "${0##*/}" "$@"; do printf "%s\\0" "$word"; done >> "$CALLS"; echo >> "$CALLS"\n'
)
PHASE = "{{size = 32, epochs = {}, batch_size = 16}}"
SHORT = {
    "n_folds": "2", "n_trials": "2", "backbone": "test_resnet", "pretrained": "false",
    "phases": f"[{PHASE.format(1)}]",
}  # fmt: skip
FEW = {"competition.drawn.n_train": "60", "competition.drawn.n_test": "50"}
TUNED = {"phases": f"[{PHASE.format(1)}, {PHASE.format(6)}]"}  # which is among the values to try
BENCH = {"N_ROUNDS": 1, "ROUND_SECONDS": 0.1, "BLOCK_SECONDS": 0.1, "N_IMAGES": 40}


def record_calls(command: str, folder: Path) -> list[list[str]]:
    """Return the programs that a line of shell starts, with their arguments."""
    venv, calls = folder / "venv", folder / "calls"
    if not venv.exists():
        (venv / "bin").mkdir(parents=True)
        for name in PROGRAMS:
            (venv / "bin" / name).write_text(NOTES)
            (venv / "bin" / name).chmod(0o755)
        made = "cat pyproject.toml constraints.txt | cksum"
        answer = subprocess.run(["bash", "-c", made], cwd=ROOT, capture_output=True, check=True)
        (venv / "installed").write_bytes(answer.stdout)
    calls.write_text("")
    path = f"{venv / 'bin'}{os.pathsep}{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "COMP_VENV": str(venv), "CALLS": str(calls)}
    subprocess.run(["bash", "-c", command], cwd=ROOT, env=environment, check=True, timeout=60)
    return [line.split("\0")[:-1] for line in calls.read_text().splitlines()]


def shorten(arguments: list[str]) -> list[str]:
    stage, *rest = arguments
    if stage not in (*DETAILS, "bench"):
        return arguments
    rest = [word.replace("/shared/", "shared/") for word in rest]
    settings = SHORT
    if rest[0] == "demo" or (
        rest[0] in ("my-recipe.toml", "runs/my-recipe/tuned.toml") and "--from" not in rest
    ):
        settings = SHORT | FEW | (TUNED if stage == "tune" else {})
    more = [word for key, value in settings.items() for word in ("--set", f"{key}={value}")]
    return [stage, *rest, *more, *(["--trials", "1"] if stage == "tune" else [])]


def check(program: str, arguments: list[str]) -> None:
    """Run a call or, where it needs another machine, check that its arguments are valid."""
    if program == "comp" and ("postgresql://USER:PASSWORD@HOST/NAME" in arguments or arguments[0] == "watch"):
        parser().parse_args(arguments)
    elif program == "comp":
        assert main(shorten(arguments)) == 0, arguments
    elif program == "pip":
        (extra,) = re.findall(r"^install \.\[(\w+)\]$", " ".join(arguments))
        assert (
            extra in tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
        )
    elif program == "torchrun":
        from torch.distributed.run import get_args_parser

        given = get_args_parser().parse_args(arguments)
        assert (given.module, given.training_script, given.nproc_per_node) == (True, "comp", "2")
        parser().parse_args(given.training_script_args)
    elif program == "ray":
        ray = pytest.importorskip("ray.scripts.scripts")
        ray.cli.commands[arguments[0]].make_context(arguments[0], arguments[1:], resilient_parsing=True)
    else:
        assert (program, arguments) == ("python", ["-m", "pytest"])


def prepare(command: str, folder: Path) -> None:
    """Write the files of their own that a reader of the README has by now."""
    if "FOLDER" in command and not Path("FOLDER").exists():
        few = load_competition("demo").model_copy(update={"drawn": Drawn(n_train=60, n_test=50, size=32)})
        generate_files(few, folder)
        (folder / "drawn").rename("FOLDER")
    if "mine.py" in command:
        own = "def soft(logits, targets):\n    return (logits.sigmoid() - targets).abs().mean(1)\n"
        write_text(Path("mine.py"), own)
    if "explain" in command:
        shutil.copy(next(Path("data").glob("**/test_0.jpg")), "photo.jpg")
    if "tune my-recipe.toml --folds" in command:
        (text,) = (text for language, text in BLOCKS if language == "toml" and "[tune]" in text)
        write_text(Path("my-recipe.toml"), text)
    if "--probs" in command:
        probs, targets = planetary(0, 200)
        probs, targets = probs[:, :3], targets[:, :3]
        if "--exclusive" in command:
            targets = np.eye(3, dtype=int)[probs.argmax(1)]
        ids = [f"image_{i}" for i in range(len(probs))]
        for name, matrix in (("oof", probs), ("test", probs), ("train", targets)):
            pd.DataFrame(matrix, ids, ["cat", "dog", "horse"]).rename_axis("id").to_csv(f"{name}.csv")


@pytest.fixture(scope="module")
def done(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """Run all commands, one after the other in one folder. Give the errors by command."""
    folder, errors = tmp_path_factory.mktemp("readme"), {}
    (folder / "clone").mkdir()
    with pytest.MonkeyPatch.context() as patch, FakeKaggle(folder / "kaggle") as server:
        patch.chdir(folder / "clone")
        for name in [name for name in os.environ if name.startswith(("COMP_", "KAGGLE_"))]:
            patch.delenv(name)
        server.score_after = server.ready_after = server.queued_for = 0.0
        server.python = folder / "python"
        server.python.write_text("#!/bin/sh\n")
        server.python.chmod(0o755)
        planet(server, None, 60)
        hpa(server, None, 28, 10)
        for name, value in (("HOME", folder), ("KAGGLE_CONFIG_DIR", folder), ("KAGGLE_USERNAME", "tester")):
            patch.setenv(name, str(value))
        patch.setenv("KAGGLE_KEY", server.users["tester"])
        patch.setenv("COMP_KAGGLE_ENDPOINT", server.url)
        patch.setattr(retries, "PAUSES", (0.05,) * 4)
        patch.setattr(pushing, "POLL_SECONDS", (0.05, 0.2))
        wheel = folder / "some-1.0-py3-none-any.whl"
        wheel.write_bytes(b"")
        patch.setattr(kernels, "fetch_wheels", lambda where: [wheel])
        for name, value in BENCH.items():
            patch.setattr(bench_speed if hasattr(bench_speed, name) else training_speed, name, value)
        for command in COMMANDS:
            said = io.StringIO()
            try:
                prepare(command, folder)
                with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
                    for program, *arguments in record_calls(command, folder):
                        check(program, arguments)
            except (Exception, SystemExit) as error:
                errors[command] = f"{type(error).__name__}: {error}\n{said.getvalue()[-2000:]}"
        (code,) = (text for language, text in BLOCKS if language == "python" and "load_run" in text)
        try:
            exec(code, {})
        except Exception as error:
            errors[code] = f"{type(error).__name__}: {error}"
        yield errors


@pytest.mark.parametrize("command", COMMANDS)
def test_a_command_of_the_readme_does_what_it_is_shown_for(done: dict[str, str], command: str):
    assert not done.get(command), done[command]


def test_the_readme_s_python_runs(done: dict[str, str]):
    (code,) = (text for language, text in BLOCKS if language == "python" and "load_run" in text)
    assert not done.get(code), done[code]
    (code,) = (text for language, text in BLOCKS if language == "python" and "FBeta" in text)
    probs, targets = planetary(0, 200)
    names = {"comp": comp, "probs": probs, "targets": targets, "test_probs": probs}
    exec(code, names)
    assert names["decision"].predict(probs).shape == probs.shape


def test_the_readme_s_competition_is_the_one_of_the_tests():
    (text,) = (text for language, text in BLOCKS if language == "toml" and "[submission]" in text)
    assert tomllib.loads(text) == tomllib.loads((ROOT / "tests" / "ucmerced.toml").read_text())
