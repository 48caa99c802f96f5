"""Where pretrained weights come from, and the error without internet."""

import socket
import threading
from collections.abc import Iterator
from pathlib import Path

import huggingface_hub
import pytest
import timm
import torch
from huggingface_hub import constants
from safetensors.torch import save_file

from comp.errors import CompError
from comp.models import network as models


def make_spec(backbone: str) -> models.ModelSpec:
    return models.ModelSpec(backbone, ("a",), 3, 32, (0.5,) * 3, (0.5,) * 3)


@pytest.fixture
def tries(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[list[str]]:
    """The requests for weights. None gets a response, and no weights were downloaded before."""
    asked: list[str] = []
    server = socket.create_server(("127.0.0.1", 0))

    def refuse() -> None:
        while True:
            try:
                connection, (host, _) = server.accept()
            except OSError:
                return
            asked.append(host)
            connection.close()

    threading.Thread(target=refuse, daemon=True).start()
    address = f"http://127.0.0.1:{server.getsockname()[1]}/model.safetensors"
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.delenv("COMP_WEIGHTS", raising=False)
    monkeypatch.setattr(huggingface_hub, "hf_hub_url", lambda *_, **__: address)
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    yield asked
    server.shutdown(socket.SHUT_RDWR)
    server.close()


def test_without_a_network_weights_are_asked_for_once(tries: list[str]):
    with pytest.raises(CompError, match="weights of resnet18 can't be downloaded") as error:
        models.check("resnet18", [32], 3, pretrained=True, weights=None)
    assert "set COMP_WEIGHTS" in str(error.value) and "--set pretrained=false" in str(error.value)
    assert "\n" not in str(error.value) and len(tries) == 1


def test_weights_that_were_downloaded_need_no_network(tries: list[str], tmp_path: Path):
    state = timm.create_model("test_resnet").state_dict()
    name = timm.get_pretrained_cfg("test_resnet").hf_hub_id.replace("/", "--")
    place = tmp_path / "hub" / f"models--{name}"
    snapshot = place / "snapshots" / ("0" * 40)
    snapshot.mkdir(parents=True)
    (place / "refs").mkdir()
    (place / "refs" / "main").write_text("0" * 40)
    save_file(state, snapshot / "model.safetensors")
    model = models.create(make_spec("test_resnet"), pretrained=True)
    name = next(iter(state))
    assert torch.equal(model.state_dict()[name], state[name])
    assert not tries


def test_weights_in_a_file_are_those_of_the_hub_for_networks_with_other_originals(tmp_path: Path):
    assert timm.get_pretrained_cfg("vit_tiny_patch16_224").custom_load
    state = timm.create_model("vit_tiny_patch16_224").state_dict()
    save_file(state, tmp_path / "vit_tiny_patch16_224.safetensors")
    model = models.create(make_spec("vit_tiny_patch16_224"), pretrained=True, weights=str(tmp_path))
    assert torch.equal(model.state_dict()["blocks.0.mlp.fc1.weight"], state["blocks.0.mlp.fc1.weight"])


def test_weights_that_do_not_fit_are_one_line(tmp_path: Path):
    (tmp_path / "test_resnet.safetensors").write_bytes(b"")
    with pytest.raises(CompError, match="does not fit test_resnet"):
        models.create(make_spec("test_resnet"), pretrained=True, weights=str(tmp_path))
