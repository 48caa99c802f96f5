"""The ablation: gains paired by seed, kept scores, refused files."""

import json
from pathlib import Path

from comp.benchmarks.ablation import show_gains
from comp.cli.main import main


def test_tricks_are_measured_once_and_only_the_trick_differs(here: Path, capsys, fails):
    (here / "tricks.toml").write_text('"the same" = ["seed=42"]\n"faster" = ["phases.0.lr=1e-2"]\n')
    for stage in ("download", "folds"):
        assert main([stage, "tiny.toml"]) == 0
    command = ["bench", "tricks", "tiny.toml", "--tricks", "tricks.toml", "--images", "80", "--seeds", "2"]
    capsys.readouterr()
    assert main(command) == 0
    first = capsys.readouterr().out
    assert "0 of 4 trainings" in first
    kept = sorted((here / "runs/tiny/tricks").iterdir())
    assert len(kept) == 4  # two recipes, two seeds: "the same" is the recipe
    assert set(json.loads(kept[0].read_text())) == {"score", "mAP", "log_loss"}
    assert main(command) == 0
    again = capsys.readouterr().out
    assert "4 of 4 trainings" in again
    assert first.splitlines()[-3:] == again.splitlines()[-3:]
    assert "+0.0000 ± 0.0000" in again
    (here / "tricks.toml").write_text("mixup = 0.2\n")
    assert 'a list such as ["mixup=0.2"]' in fails(*command)


def test_gains_are_paired_by_seed(capsys):
    scores = {("the recipe", 0): 0.5, ("the recipe", 1): 0.7, ("more", 0): 0.6, ("more", 1): 0.8}
    show_gains(
        {key: dict.fromkeys(("score", "mAP", "log_loss"), value) for key, value in scores.items()}, "F2"
    )
    assert "0.7000 ± 0.1414  +0.1000 ± 0.0000" in capsys.readouterr().out
