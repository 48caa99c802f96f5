"""`comp check` on a machine as it is, on one whose results differ, and on one whose driver is too old."""

import json
import pickle
from pathlib import Path

import pytest
import torch

from comp.benchmarks import check, check_ranks, check_rates
from comp.benchmarks import check_equality as equality
from comp.benchmarks.check_inputs import Bench, gradients, small_phase
from comp.benchmarks.machine import describe
from comp.cli.main import main
from comp.compute.devices import Device
from comp.config.loading import load_recipe
from comp.deadline import NEVER

SHORT = ["check", "demo", "--set", "backbone=test_resnet", "--set", "views=flips", "--time-budget"]


def verdicts(folder: Path) -> dict[str, str]:
    content = json.loads((folder / "runs/check.json").read_text())
    assert content["machine"]["packages"]["torch"] == torch.__version__.partition("+")[0]
    return {row["check"]: row["verdict"] for row in content["checks"]}


def test_every_check_passes_here_or_says_why_it_is_skipped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(check_rates, "BACKBONES", ("test_resnet",))
    monkeypatch.setattr(check_rates, "SIZES", (32, 48, 64))
    monkeypatch.setattr(check_rates, "ROUND_SECONDS", 0.1)
    assert main([*SHORT, "115s"]) == 0  # too short for torch.compile on a CPU
    found = verdicts(tmp_path)
    wanted = {"resumed", "step in bf16", "views", "prediction", "memory"}
    assert {name for name in wanted if found[name] != "ok"} == set()
    assert {found[f"test_resnet at {size} px"] for size in (32, 48, 64)} == {"ok"}
    assert torch.cuda.is_available() or found["largest batch"] == "skipped"
    printed = capsys.readouterr().out
    assert "equal bit for bit" in printed and "of the bare step" in printed


def test_what_differs_and_an_old_driver_end_with_exit_code_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fails
):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setitem(equality.TOLERANCE, "bf16", 0.0)
    steps = {"step in bf16": lambda bench: equality.precision(bench, "bf16"), "broken": lambda bench: 1 / 0}
    monkeypatch.setattr(check, "_checks", lambda bench: steps.items())
    assert "3 (GPUs and driver, step in bf16, broken) failed" in fails(*SHORT, "10m")
    assert verdicts(tmp_path) == {"GPUs and driver": "failed", "step in bf16": "differs", "broken": "failed"}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 0)
    assert main([*SHORT, "0.001s"]) == 0
    assert set(verdicts(tmp_path).values()) == {"skipped"}


def test_a_rank_alone_has_the_gradients_that_the_check_compares_with(tmp_path: Path):
    bench = Bench(load_recipe("demo"), Device("cpu", 1), 0, tmp_path, NEVER)
    inputs = bench.inputs(small_phase(bench.recipe, 8), 16, backbone=equality.NORM_FREE, precision="fp32")
    (tmp_path / "given").write_bytes(pickle.dumps(inputs))
    check_ranks.main(tmp_path / "given", tmp_path / "answer")
    found = torch.load(tmp_path / "answer", weights_only=True)
    assert torch.equal(found, gradients(inputs, bench.device)[1])


def test_the_description_names_no_folder_and_no_user():
    text = json.dumps(describe(Device("cpu", 1)))
    assert str(Path.home()) not in text and str(Path.cwd()) not in text
