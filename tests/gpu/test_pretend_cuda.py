"""The pretended GPU refuses what a GPU refuses, and does later what a GPU does later."""

import threading

import pytest
import torch

from tests.pretend_cuda import PretendCuda

ONES = torch.ones(4)


def test_what_makes_the_cpu_wait_is_counted(gpu):
    """Without this, tests that nothing waits could pass for nothing. On a GPU it holds as well."""
    on_gpu = torch.ones(4, device=gpu.device)
    gpu.watching = True
    float(on_gpu.sum())
    on_gpu.cpu()
    ONES.to(gpu.device)
    gpu.watching = False
    assert sum(gpu.waits.values()) == 3
    on_gpu.cpu()
    assert sum(gpu.waits.values()) == 3


def test_tensors_of_two_devices_do_not_mix(gpu):
    on_gpu = ONES.to(gpu.device)
    with pytest.raises(RuntimeError, match="same device"):
        on_gpu + ONES
    with pytest.raises(TypeError, match="numpy"):
        on_gpu.numpy()
    assert (on_gpu + 1).device == gpu.device and torch.equal((on_gpu * 2.0).cpu(), ONES * 2)


def test_a_copy_on_another_stream_is_rubbish_until_its_stream_is_waited_for(pretended: PretendCuda):
    stream = torch.cuda.Stream()
    with torch.cuda.stream(stream):
        copied = ONES.pin_memory().to(pretended.device, non_blocking=True)
    assert torch.isnan(copied.cpu()).all()
    torch.cuda.current_stream().wait_stream(stream)
    assert torch.equal(copied.cpu(), ONES)


def test_a_copy_to_the_host_is_rubbish_until_its_event_is_waited_for(pretended: PretendCuda):
    on_gpu = ONES.to(pretended.device)
    here, event = on_gpu.to("cpu", non_blocking=True), torch.cuda.Event()
    event.record()
    on_gpu.zero_()  # comes after the copy
    assert torch.isnan(here).all()
    event.synchronize()
    assert torch.equal(here, ONES)


@pytest.mark.parametrize("waits", [False, True])
def test_pinned_memory_is_not_written_before_its_copy_has_ended(pretended: PretendCuda, waits: bool):
    pinned, target = torch.ones(4).pin_memory(), torch.zeros(4, device=pretended.device)
    stream, event = torch.cuda.Stream(), torch.cuda.Event()
    with torch.cuda.stream(stream):
        target.copy_(pinned, non_blocking=True)
        event.record()
    torch.cuda.current_stream().wait_stream(stream)  # only the GPU waits
    if waits:
        event.synchronize()
    pinned.numpy()[:] = 2
    if waits:
        assert torch.equal(target.cpu(), ONES)
    else:
        with pytest.raises(RuntimeError, match="overwritten"):
            event.synchronize()


def test_threads_work_on_the_same_gpu_with_streams_and_waits_of_their_own(pretended: PretendCuda):
    found = []

    def work() -> None:
        stream = torch.cuda.Stream()
        with torch.cuda.stream(stream):
            found.append(ONES.pin_memory().to(pretended.device, non_blocking=True))
            assert torch.cuda.current_stream() is stream
        stream.synchronize()

    pretended.watching = True
    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert found[0].device == pretended.device and torch.cuda.current_stream() is pretended.main
    assert not pretended.waits
    pretended.watching = False
    assert torch.equal(found[0].cpu(), ONES)
