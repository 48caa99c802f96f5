"""Runs by name: settings that are frozen, --as, `comp run` and `comp runs`, options that are refused."""

import contextlib
import re
import shutil
from pathlib import Path

import pytest

from comp.artifacts.run_recipe import frozen, read_recipe
from comp.cli.main import main
from comp.config.loading import load_recipe, shipped
from comp.config.recipe import Recipe
from comp.errors import CompError


@pytest.fixture
def finished(submitted: Path, here: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    shutil.copytree(submitted, here, dirs_exist_ok=True, ignore=shutil.ignore_patterns("kernel-*"))
    return here


def freeze(recipe: Recipe, *, force: bool = False, refused: bool = False) -> None:
    with contextlib.suppress(CompError), frozen(recipe, force=force):
        if refused:
            raise CompError("no")


@pytest.mark.parametrize("name", shipped("recipes"))
def test_a_frozen_recipe_is_read_back_as_it_was(here: Path, name: str):
    recipe = load_recipe(name)
    freeze(recipe)
    assert read_recipe(name) == recipe


def test_members_are_frozen_too_and_weights_stay_where_they_are(here: Path):
    Path("mix.toml").write_text(
        'extends = "demo"\nweights = "own/w.safetensors"\n[[members]]\nname = "a"\n[[members]]\nname = "b"\n'
    )
    freeze(load_recipe("mix.toml"))
    assert [one.name for one in read_recipe("mix").members] == ["mix-a", "mix-b"]
    for name in ("mix", "mix-a"):
        assert Path(str(read_recipe(name).weights)).resolve() == Path("own/w.safetensors").resolve()


def test_a_run_takes_the_settings_of_stages_that_end_well(here: Path):
    freeze(read_recipe("tiny.toml", ["seed=1"]), refused=True)
    assert not Path("runs").exists()  # a refused stage leaves nothing
    freeze(read_recipe("tiny.toml", ["seed=1"]))
    assert read_recipe("tiny").seed == 1
    freeze(read_recipe("tiny.toml", ["seed=2"]), refused=True)
    assert read_recipe("tiny").seed == 1
    fold = Path("runs/tiny/fold0")
    fold.mkdir()
    (fold / "log.jsonl").write_text("")
    with pytest.raises(KeyboardInterrupt), frozen(read_recipe("tiny", ["seed=3"]), force=True):
        raise KeyboardInterrupt
    assert read_recipe("tiny").seed == 3  # a killed stage resumes
    with pytest.raises(KeyboardInterrupt), frozen(read_recipe("tiny", ["seed=4"]), force=False):
        raise KeyboardInterrupt
    assert read_recipe("tiny").seed == 3
    freeze(read_recipe("tiny", ["seed=5"], run="other"))
    assert (read_recipe("tiny").seed, read_recipe("other").seed) == (3, 5)
    assert read_recipe("tiny", run="other").seed == 5  # the run that has begun


def test_an_unknown_name_lists_recipes_and_runs(here: Path):
    freeze(read_recipe("tiny.toml", run="quick"))
    with pytest.raises(CompError, match=r"no recipe 'quikc'; did you mean 'quick'\?; .*demo.* the runs 1"):
        read_recipe("quikc")
    assert main(["train", "../tiny"]) == 1


@pytest.mark.parametrize(
    ("command", "said"),
    [
        ("folds demo --send", "--send is read by submit, run, not by folds"),
        ("predict demo --rule shrunk", "--rule is read by decide, run, not by predict"),
        ("run demo --name x", "--name is read by blend, not by run"),
        ("decide demo --to x.json", "--to is read by infer, explain, not by decide"),
    ],
)
def test_an_option_that_a_command_does_not_read_is_refused(
    here: Path, capsys: pytest.CaptureFixture[str], command: str, said: str
):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2 and said in capsys.readouterr().err
    assert not Path("runs").exists()


def test_a_finished_run_is_a_summary_and_a_second_experiment_needs_its_name_alone(
    finished: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    assert main(["run", "tiny"]) == 0
    out = capsys.readouterr().out
    assert "comp submit tiny --send" in out and re.search(r"^cross-fitted +0\.\d{4}", out, re.M)
    assert re.search(r"^submission +submissions/tiny-\w+\.csv", out, re.M)
    monkeypatch.setattr("comp.commands.decide.run", None)  # no stage is called again
    assert main(["run", "tiny"]) == 0
    assert "run: tiny done already" in capsys.readouterr().out
    monkeypatch.undo()
    monkeypatch.chdir(finished)
    assert main(["run", "tiny", "--set", "phases.0.lr=0.5"]) == 1  # other settings are no finished run
    assert "--as NAME keeps both, --force replaces it" in capsys.readouterr().err
    assert main(["run", "tiny"]) == 0
    capsys.readouterr()

    shutil.copytree("runs/tiny", "runs/second")
    for command in (
        "predict tiny --as second --set views=identity --force",
        "blend second --force",
        "decide second --force",
        "blend tiny second --name mix",
    ):
        assert main(command.split()) == 0, command
    assert main(["decide", "mix"]) == 0
    assert main(["submit", "second"]) == 0
    capsys.readouterr()
    assert main(["runs", "--by", "score"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "runs: tiny, samples F2"
    assert {line.split()[0] for line in lines[2:]} == {"tiny", "second", "mix"}
    assert [line.split()[-1] for line in lines[2:]] == ["1", "2", "3"]
    assert all(len(line) <= 80 for line in lines)

    Path(next(Path("submissions").glob("tiny-*.csv"))).write_text("changed")
    assert main(["run", "tiny"]) == 0  # each stage looks again
    assert "was changed since it was written" in capsys.readouterr().out
