"""Which GPUs and drivers can be used, and in which precision. torch's answers about a GPU are pretended."""

import os

import pytest
import torch
from torch import nn

from comp.compute.devices import Device, devices
from comp.compute.distributed import ProcessGroup
from comp.compute.gpus import runs_on, usable_gpus
from comp.errors import CompError
from comp.models.precision import choose_precision

KNOWN = ["sm_75", "sm_80", "sm_86", "sm_90", "sm_100", "sm_120"]  # of torch's wheels for CUDA 13


@pytest.fixture
def gpus(monkeypatch: pytest.MonkeyPatch):
    def pretend(*capabilities: tuple[int, int], driver_works: bool = True) -> None:
        for name, answer in {
            "device_count": lambda: len(capabilities),
            "is_available": lambda: driver_works and bool(capabilities),
            "get_arch_list": lambda: KNOWN,
            "get_device_capability": lambda device: (
                capabilities[torch.device(device).index or 0]
                if isinstance(device, torch.device)
                else capabilities[device]
            ),
            "get_device_name": lambda device: f"card {device}",
        }.items():
            monkeypatch.setattr(torch.cuda, name, answer)

    return pretend


@pytest.mark.parametrize(
    ("known", "capability", "expected"),
    [
        (KNOWN, (7, 5), True),  # T4
        (KNOWN, (6, 0), False),  # P100
        (KNOWN, (7, 0), False),  # V100
        (KNOWN, (8, 9), True),  # Ada runs code for 8.6
        (KNOWN, (11, 0), False),  # no machine code of its major version
        (["sm_75", "compute_75"], (9, 0), True),  # compiled when it is loaded
        (["sm_86"], (8, 0), False),
        (["sm_90a"], (9, 0), True),
        (["sm_100a"], (10, 3), False),
        (["sm_100f"], (10, 3), True),
        (["compute_90a"], (10, 0), False),
        (["gfx942"], (9, 4), True),  # AMD
    ],
)
def test_a_gpu_is_usable_if_torch_has_code_for_it(known, capability, expected):
    assert runs_on(known, capability) == expected


def test_every_usable_gpu_gets_jobs_and_another_one_is_named(gpus, monkeypatch, capsys):
    gpus((6, 1), (8, 6), (9, 0))
    assert [device.name for device in devices(5)] == ["cuda:1", "cuda:2"]
    assert "GPU 0 (card 0, sm_61) is not used" in capsys.readouterr().out
    for name, value in {"WORLD_SIZE": "2", "LOCAL_WORLD_SIZE": "2", "RANK": "1", "LOCAL_RANK": "1"}.items():
        monkeypatch.setenv(name, value)
    assert ProcessGroup.from_torchrun().device().name == "cuda:2"
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    with pytest.raises(CompError, match="--nproc-per-node to 2"):
        ProcessGroup.from_torchrun().device()


def test_no_gpu_means_the_cpu(gpus):
    gpus()
    assert usable_gpus() == ([], []) and ProcessGroup().device().name == "cpu"


@pytest.mark.parametrize("place", [lambda: devices(1), ProcessGroup().device, Device("cuda:0", 1).activate])
def test_gpus_that_cannot_be_used_are_an_error_and_never_the_cpu(gpus, place):
    gpus((8, 0), driver_works=False)
    with pytest.raises(CompError, match="can't use the driver.*update the driver"):
        place()
    gpus((6, 0))
    with pytest.raises(CompError, match="GPU 0 .card 0, sm_60. is not used.*COMP_TORCH"):
        place()


@pytest.mark.parametrize(
    ("capability", "dtype"),
    [((7, 5), torch.float16), ((8, 0), torch.bfloat16), ((8, 6), torch.bfloat16), ((9, 0), torch.bfloat16)],
)
def test_a_t4_computes_in_fp16_and_later_gpus_in_bf16(gpus, capability, dtype):
    gpus(capability)
    assert choose_precision("auto", torch.device("cuda", 0), nn.Identity(), 64) == dtype


def test_torchrun_is_refused_by_all_commands_but_train(monkeypatch, fails):
    monkeypatch.setenv("WORLD_SIZE", "2")
    for command in (["predict", "demo"], ["bench", "speed"], ["ledger"]):
        assert "torchrun is for `comp train` alone" in fails(*command)
    assert "once per GPU" in fails("tune", "demo")


def test_deterministic_holds_until_the_next_use_of_the_gpu(gpus, monkeypatch):
    gpus((8, 0))
    monkeypatch.setattr(torch.cuda, "set_device", lambda device: None)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    monkeypatch.delenv("CUBLAS_WORKSPACE_CONFIG", raising=False)
    precision, n_threads = torch.get_float32_matmul_precision(), torch.get_num_threads()
    try:
        for deterministic in (True, False):
            Device("cuda:0", 2).activate(deterministic=deterministic)
            assert torch.are_deterministic_algorithms_enabled() == deterministic
            assert torch.backends.cudnn.benchmark != deterministic
        assert os.environ["CUBLAS_WORKSPACE_CONFIG"] == ":4096:8"
    finally:
        torch.set_float32_matmul_precision(precision)
        torch.set_num_threads(n_threads)
        torch.use_deterministic_algorithms(False)
        os.environ.pop("CUBLAS_WORKSPACE_CONFIG", None)
