"""The search of a recipe's values: which keys may be searched, how trials are compared, and studies that
several processes share and resume after a kill."""

import json
import os
import re
import signal
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import optuna
import pytest

from comp.cli.main import main
from comp.config.loading import load_recipe, toml_text, with_values
from comp.deadline import check_time
from comp.errors import CompError
from comp.training import trainer as training
from comp.tuning import study as studies
from comp.tuning.pruning import N_STEPS, curve, make_pruner
from comp.tuning.search_space import distributions
from comp.tuning.study import SharedStudy, open_storage
from tests.conftest import TINY

SPACE = """
[tune]
"phases.0.lr" = [3e-3, 1e-9]
drop_rate = { low = 0.0, high = 0.5 }
"""
SHORT = TINY[: TINY.index("[[phases]]")] + "[[phases]]\nsize = 16\nepochs = 2\nlr = 3e-3\nbatch_size = 16\n"


# --- search space


@pytest.mark.parametrize(
    ("table", "words"),
    [
        ("", "has no [tune] table"),
        ("drop_rat = { low = 0.0, high = 0.5 }", "unknown key 'drop_rat'; did you mean 'drop_rate'?"),
        ("drop_rate = { low = 0.5, high = 0.5 }", "low = 0.5 is not below high = 0.5"),
        ("drop_rate = { low = 0.0, high = 0.5, log = true }", "found low = 0.0"),
        ("drop_rate = { low = 0.0 }", "a list, or a table with low and high, is expected"),
        ("drop_rate = { low = 0.0, high = 1.5 }", "'drop_rate': input should be less than 1, found 1.5"),
        ("drop_rate = { low = 0.1, high = 0.5 }", "the recipe's own drop_rate = 0.0 is not among the values"),
        ("drop_rate = [0.1, 0.2]", "the recipe's own drop_rate = 0.0 is not among the values"),
        ('augment = ["dihedral"]', "expected, found ['dihedral']"),
        ('augment = ["dihedral", "rotation"]', "unknown augmentation 'rotation'"),
        ('"phases.7.lr" = { low = 1e-4, high = 1e-2 }', "there is no 'phases.7.lr' (a list of 2"),
        ('"phases.0.epochs" = { low = 0.5, high = 2 }', "'phases.0.epochs': input should be a valid integer"),
        ("seed = [42, 43]", "[tune]: 'seed' can't be searched"),
        (
            '"phases.1.batch_size" = [16, 4]\n"phases.1.accumulate" = { low = 1, high = 4 }',
            "accumulate = 4 leaves",
        ),
    ],
)
def test_what_cannot_be_searched_is_refused_in_one_line(
    here: Path, fails: Callable[..., str], table: str, words: str
):
    (here / "tiny.toml").write_text(TINY + f"\n[tune]\n{table}\n")
    assert words in fails("tune", "tiny.toml")


def test_keys_that_hold_whole_numbers_get_whole_numbers_and_the_table_travels_with_the_recipe(here: Path):
    spaces = (
        '"phases.0.epochs" = { low = 1, high = 8 }\nmixup = { low = 0, high = 1 }\nloss = ["bce", "focal"]\n'
        '"augment.turn" = { low = 0, high = 45 }'
    )
    (here / "tiny.toml").write_text(TINY + f"\n[tune]\n{spaces}\n")
    recipe = load_recipe("tiny.toml")
    assert distributions(recipe) == {
        "phases.0.epochs": optuna.distributions.IntDistribution(1, 8),
        "mixup": optuna.distributions.FloatDistribution(0, 1),
        "loss": optuna.distributions.CategoricalDistribution(("bce", "focal")),
        "augment.turn": optuna.distributions.FloatDistribution(0, 45),
    }
    (here / "again.toml").write_text(toml_text(recipe))
    assert load_recipe("again.toml") == recipe
    set_by_hand = load_recipe("tiny.toml", ["phases.0.epochs=3", "loss=focal", "augment.turn=9"])
    assert with_values(recipe, {"phases.0.epochs": 3, "loss": "focal", "augment.turn": 9}) == set_by_hand


# --- pruning


@pytest.mark.parametrize("n_epochs", [1, 2, 3, 7, 10, 25])
def test_trials_that_learn_alike_have_the_same_curve_whatever_their_epochs(n_epochs: int):
    fold = [0.3 + 0.5 * e / n_epochs for e in range(1, n_epochs + 1)]
    found = curve([fold], n_epochs)
    assert max(found) == N_STEPS
    inside = {step: value for step, value in found.items() if step * n_epochs >= N_STEPS}
    assert inside == pytest.approx({step: 0.3 + 0.5 * step / N_STEPS for step in inside})
    assert all(step * n_epochs <= N_STEPS for step in found.keys() - inside.keys())  # within the first epoch
    for k in range(1, n_epochs):  # reported steps don't change later
        assert curve([fold[:k]], n_epochs).items() <= found.items()


def test_a_fold_that_begins_does_not_pull_the_curve_down_and_the_last_step_is_the_mean():
    folds = np.random.default_rng(0).random((4, 5)).cumsum(1)
    found = curve(folds.tolist(), 5)
    for n_folds in range(1, 5):
        assert found[N_STEPS * n_folds] == pytest.approx(folds[:n_folds, -1].mean())
    alike = curve([[0.1, 0.7]] * 3, 2)
    assert [alike[step] for step in range(N_STEPS, 3 * N_STEPS + 1)] == pytest.approx(
        [0.7] * (2 * N_STEPS + 1)
    )


# --- a search


def tune(*arguments: str) -> int:
    return main(["tune", "tiny.toml", *arguments])


def trials(storage: str = "runs/tiny/tune.log") -> list[optuna.trial.FrozenTrial]:
    return optuna.load_study(study_name=None, storage=open_storage(storage)).trials


def test_a_search_begins_with_the_recipe_prunes_a_rate_that_learns_nothing_and_gives_a_recipe(
    here: Path, capsys: pytest.CaptureFixture[str]
):
    (here / "tiny.toml").write_text(SHORT + SPACE)
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    assert tune("--trials", "1", "--folds", "0") == 0
    study = optuna.load_study(study_name=None, storage=open_storage("runs/tiny/tune.log"))
    for rate in (0.1, 0.2, 0.3, 0.4):
        study.enqueue_trial({"phases.0.lr": 3e-3, "drop_rate": rate})
    study.enqueue_trial({"phases.0.lr": 1e-9, "drop_rate": 0.0})
    study.enqueue_trial({"phases.0.lr": 3e-3, "drop_rate": 0.1})
    capsys.readouterr()
    assert tune("--trials", "7", "--folds", "0") == 0
    printed = capsys.readouterr().out
    ended = trials()
    assert ended[0].params == {"phases.0.lr": 3e-3, "drop_rate": 0.0}
    assert [trial.state.name for trial in ended] == [*["COMPLETE"] * 5, "PRUNED", "COMPLETE"]
    assert "trial  5  pruned after epoch 1 of fold 0" in printed
    assert "trial  6  as trial 1 " in printed
    for trial in ended[:5]:
        folder = here / "runs" / "tiny" / "tune" / trial.user_attrs["folder"] / "fold0"
        assert sorted(path.name for path in folder.iterdir()) == [".lock", "log.jsonl", "started.json"]
        rows = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
        assert trial.value == rows[-1]["mAP"]
        assert trial.intermediate_values == curve([[row["mAP"] for row in rows]], 2)
    best = max(ended, key=lambda trial: trial.value)
    assert re.search(rf"tune: {best.value:.4f}, .* {ended[0].value:.4f}\n", printed)
    tuned, options = load_recipe("runs/tiny/tuned.toml"), [f"{key}={v}" for key, v in best.params.items()]
    assert tuned == load_recipe("tiny.toml", [*options, "name=tiny-tuned", "tune={}"])
    assert (here / "runs" / "tiny" / "tune.png").read_bytes()[:4] == b"\x89PNG"
    assert tune("--trials", "7", "--folds", "0") == 0
    assert trials() == ended


def test_a_search_that_was_stopped_in_a_trial_ends_as_one_that_was_not(
    here: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    (here / "tiny.toml").write_text("swa_epochs = 1\n" + SHORT + SPACE)
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    assert tune("--trials", "1", "--storage", "sqlite:///whole.db") == 0

    def stop_in_the_second_fold(deadline: float, done: str) -> None:
        begun = list(Path("stopped").glob("tiny/tune/*/fold1/last.pt"))
        check_time(0.0 if begun else deadline, done)

    monkeypatch.setenv("COMP_RUNS", "stopped")
    with monkeypatch.context() as patch:
        patch.setattr(training, "check_time", stop_in_the_second_fold)
        assert tune("--trials", "1", "--storage", "sqlite:///stopped.db", "--time-budget", "1h") == 3
    assert "the time is up (trial 0: 1 of 2 epochs)" in capsys.readouterr().err
    logs = sorted(Path("stopped/tiny/tune").glob("*/*/log.jsonl"))
    assert [path.read_text().count("\n") for path in logs] == [2, 1]
    times = logs[0].stat().st_mtime_ns
    assert tune("--trials", "1", "--storage", "sqlite:///stopped.db") == 0
    assert logs[0].stat().st_mtime_ns == times
    (whole,), (stopped, ended) = (trials(f"sqlite:///{name}.db") for name in ("whole", "stopped"))
    assert (stopped.state.name, ended.state.name) == ("FAIL", "COMPLETE")
    assert ended.value == whole.value
    ends = [json.loads(path.read_text().splitlines()[-1]) for path in logs]
    assert ended.value == np.mean([row["mAP"] for row in ends])
    assert ended.value != np.mean([row["before_mean"]["mAP"] for row in ends])
    assert ended.intermediate_values == whole.intermediate_values


# --- processes

WORKER = """
import sys, time
from comp.deadline import NEVER
from comp.tuning.study import SharedStudy
from comp.tuning.pruning import make_pruner
from optuna.distributions import FloatDistribution
from pathlib import Path
space = {"x": FloatDistribution(-1, 1)}
study = SharedStudy(sys.argv[1], "toy-1", space, seed=0, pruner=make_pruner(), folder=Path("t"))
study.start({"x": 0.5})
print("ready", flush=True)
sys.stdin.readline()
while trial := study.next(int(sys.argv[2]), NEVER):
    with study.working_on(trial) as folder:
        print(trial.number, flush=True)
        time.sleep(float(sys.argv[3]))
        study.study.tell(trial, -trial.params["x"] ** 2)
"""


def worker(storage: str, n_trials: int, seconds: float) -> subprocess.Popen:
    return subprocess.Popen(
        [sys.executable, "-c", WORKER, storage, str(n_trials), str(seconds)],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )  # fmt: skip


def toy(storage: str) -> SharedStudy:
    space = {"x": optuna.distributions.FloatDistribution(-1, 1)}
    return SharedStudy(storage, "toy-1", space, seed=0, pruner=make_pruner(), folder=Path("t"))


@pytest.mark.parametrize("storage", ["shared.log", "sqlite:///shared.db"])
def test_processes_share_a_study_and_the_trial_of_one_that_is_killed_goes_on_in_another(
    here: Path, storage: str
):
    quick, slow = worker(storage, 10, 0.02), worker(storage, 10, 3600)
    try:
        for process in (quick, slow):
            assert process.stdout.readline() == "ready\n"
        for process in (slow, quick):
            process.stdin.write("go\n")
            process.stdin.flush()
        number = int(slow.stdout.readline())
        done = []
        while (line := quick.stdout.readline().strip()).isdigit():
            done.append(int(line))
        assert line.startswith("waiting for")
        assert len(done) == 9
        assert number not in done
    finally:
        slow.send_signal(signal.SIGKILL)
    done += map(int, quick.communicate(timeout=300)[0].split())
    assert quick.returncode == 0
    found = trials(storage)
    assert [trial.number for trial in found if trial.state.name == "COMPLETE"] == sorted(done)
    assert len({trial.params["x"] for trial in found}) == len(done) == 10
    assert [trial.params["x"] for trial in found if trial.number in done].count(0.5) == 1
    lost, again = found[number], found[done[-1]]
    assert lost.state.name == "FAIL"
    assert again.params == lost.params
    assert again.user_attrs["folder"] == lost.user_attrs["folder"]


def test_no_two_take_one_trial_out_of_an_sqlite_database(here: Path):
    url = "sqlite:///shared.db"
    study = optuna.create_study(study_name="toy", storage=open_storage(url))
    for x in range(18):
        study.enqueue_trial({"x": x})

    def take(_: int) -> list[int]:
        mine = optuna.load_study(study_name="toy", storage=open_storage(url))
        return [mine.ask().number for _ in range(6)]

    with ThreadPoolExecutor(3) as pool:
        assert sorted(sum(pool.map(take, range(3)), [])) == list(range(18))


def test_a_trial_of_another_machine_is_lost_once_it_gives_no_sign_of_life(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    clock = [0.0]
    monkeypatch.setattr(studies.time, "monotonic", lambda: clock[0])
    study = toy("shared.log")
    there = study.study.ask(study.space)
    there.set_user_attr("at", "elsewhere:/runs")

    def running() -> list[int]:
        for trial in study.trials("RUNNING"):
            if study._is_lost(trial):
                study.requeue(trial.number, lost=True)
        return [trial.number for trial in study.trials("RUNNING")]

    assert running() == [0]
    clock[0] += studies.LOST_AFTER - 1
    there.set_user_attr("beat", 1)
    assert running() == [0]
    clock[0] += studies.LOST_AFTER - 1
    assert running() == [0]
    clock[0] += 2
    assert running() == []
    assert study.study.ask(study.space).params == there.params


def test_a_trial_that_is_lost_again_and_again_at_the_same_place_is_left_out(here: Path):
    study = toy("shared.log")
    study.start({"x": 0.5})
    for _ in range(studies.MAX_LOST):
        trial = study.study.ask(study.space)
        assert trial.params == {"x": 0.5}
        study.requeue(trial.number, lost=True)
    assert study.study.ask(study.space).params != {"x": 0.5}


@pytest.mark.parametrize(
    "line", ['{"op_code": 0', '{"op_code": 99, "worker_id": "x"}', "[1]", '{"op_code": "x"}']
)
def test_an_edited_journal_is_one_line_that_names_the_file(tmp_path: Path, line: str):
    path = tmp_path / "study.log"
    path.write_text(f"{line}\n")
    with pytest.raises(CompError, match=r"study\.log is (damaged|not an Optuna journal)"):
        open_storage(str(path))


def test_storages_that_cannot_be_are_named_without_their_password(
    here: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    Path("image.log").write_bytes(b"\x89PNG no newline")
    for storage, words in (
        ("image.log", "image.log is not"),
        ("nothing://tester:secret@host/x", "nothing://host/x is not a database"),
        ("sqlite:///missing/x.db", "unable to open database file"),
    ):
        with pytest.raises(CompError) as error:
            toy(storage)
        assert words in str(error.value)
        assert "secret" not in str(error.value)
    assert Path("image.log").read_bytes() == b"\x89PNG no newline"
