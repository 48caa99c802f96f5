"""`comp watch`: what it reads from the files of a training, and the page that it serves or writes."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from http.client import HTTPConnection
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comp.artifacts.resumable import read_log
from comp.artifacts.run_recipe import recipe_text
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.config.metric import Metric
from comp.config.recipe import Phase
from comp.models import network as models
from comp.models.numbers import scale_of
from comp.training.validation import HeldOutScores
from comp.training.worst_images import worst_images
from comp.watch import runs as watch_runs
from comp.watch.fold_logs import Fold, Log, end_of_all, expected_seconds, read_rows
from comp.watch.page import static_page
from comp.watch.pictures import Pictures
from comp.watch.runs import RunReader, planned_rates
from comp.watch.server import App, is_loopback_name, make_server
from tests.conftest import TINY
from tests.pages import check_accessible, content_of, opened

NAMES = ("a", "b", "c", "d")
SPEC = models.ModelSpec("test_resnet", NAMES, 3, 32, (0.5,) * 3, (0.2,) * 3)
N_EPOCHS = 2 * 4  # of a fold of the planted runs


def row(epoch: int, *, fold: int = 0, seconds: float = 10.0) -> dict[str, Any]:
    """A row of log.jsonl, as a training writes it."""
    size = 16 if epoch <= 4 else 32
    worst = [{"id": f"train_{i}", "loss": 2.5 - i, "answers": [["water", 1.0, 0.02]]} for i in (fold, 2)]
    scores = {"valid_loss": 0.5 / epoch, "mAP": 0.5 + epoch / 40, "fbeta": 0.6 + epoch / 50 + fold / 100}
    first = {"epoch": epoch, "phase": (epoch - 1) // 4, "size": size, "lr": 1e-3, "loss": 0.6 / epoch}
    last = {"worst": worst, "images_per_second": 80.0, "seconds": seconds, "memory": 500_000_000}
    return first | scores | last


def text_of(rows: list[dict[str, Any]]) -> str:
    return "".join(json.dumps(one) + "\n" for one in rows)


def plant(name: str, epochs: dict[int, int], begun: int, *, trained: bool = False) -> None:
    """Write the files of a run of the tiny competition with so many epochs by fold."""
    recipe = load_recipe("tiny.toml", [f"name={name}", "phases.0.epochs=4", "phases.1.epochs=4"])
    folder = Path("runs") / name
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "recipe.toml").write_text(recipe_text(recipe))
    for fold, n in epochs.items():
        (folder / f"fold{fold}").mkdir()
        about = {"recipe": recipe.model_dump(mode="json"), "stamp": {}, "begun": begun * 10**9}
        (folder / f"fold{fold}" / "started.json").write_text(json.dumps(about))
        (folder / f"fold{fold}" / "log.jsonl").write_text(text_of([row(i + 1, fold=fold) for i in range(n)]))
        if trained:
            (folder / f"fold{fold}" / "model.safetensors").write_bytes(b"")


@pytest.fixture(scope="module")
def drawn(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with the images of the tiny competition, a run that is trained, and one that is
    half trained."""
    folder = tmp_path_factory.mktemp("watched")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS"):
            patch.delenv(name, raising=False)
        Path("tiny.toml").write_text(TINY)
        assert main(["download", "tiny.toml"]) == 0
        plant("earlier", {0: 8, 1: 8}, 1_700_000_000, trained=True)
        plant("tiny", {0: 5, 1: 3}, 1_700_090_000)
    return folder


@pytest.fixture
def watched(drawn: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of that directory."""
    shutil.copytree(drawn, tmp_path / "here")
    monkeypatch.chdir(tmp_path / "here")
    for name in ("COMP_DATA", "COMP_RUNS"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(watch_runs, "REREAD_SECONDS", 0.0)
    return tmp_path / "here"


# --- the worst images ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["labels", "single", "numbers"])
def test_the_loss_of_the_worst_images_is_the_part_they_have_in_the_held_out_loss(here: Path, kind: str):
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(8, 4)).astype(np.float32)
    targets = (rng.random((8, 4)) < 0.5).astype(np.uint8)
    spec, competition = SPEC, load_recipe("demo").competition
    if kind == "single":
        targets = np.eye(4, dtype=np.uint8)[rng.integers(4, size=8)]
        spec = replace(SPEC, groups=((0, 1, 2, 3),))
    if kind == "numbers":
        targets = rng.normal(3, 2, size=(8, 4)).astype(np.float32)
        spec = replace(SPEC, numbers=scale_of(targets, None))
        competition = competition.model_copy(update={"metric": Metric(name="rmse")})
    scores = HeldOutScores(competition, NAMES, kind == "single").of(logits, targets, spec)
    ids = np.array([f"i{i}" for i in range(8)])
    found = worst_images(ids, logits, targets, spec, single=kind == "single")
    losses = [image["loss"] for image in found]
    assert sorted(image["id"] for image in found) == ids.tolist()
    assert losses == sorted(losses, reverse=True)
    assert np.mean(losses) == pytest.approx(scores["valid_loss"], rel=1e-3)


def test_the_answers_of_a_worst_image_are_those_that_cost_most():
    logits = np.array([[-4.0, 3.0, -3.0, -5.0], [9, -9, -9, -9]], np.float32)
    targets = np.array([[1, 0, np.nan, 0], [1, 0, 0, 0]], np.float32)
    first, second = worst_images(np.array(["x\x1b", "y"]), logits, targets, SPEC, single=False)
    assert first["id"] == r"x\x1b"  # as it can be shown
    assert [answer[:2] for answer in first["answers"]] == [["a", 1.0], ["b", 0.0]]
    assert first["answers"][0][2] == pytest.approx(float(torch.tensor(-4.0).sigmoid()), rel=1e-3)
    assert len(second["answers"]) == 1  # nothing of it is clearly wrong


def test_other_commands_read_the_log_without_the_worst_images(watched: Path):
    assert all("worst" not in one for one in read_log("tiny", 0))
    assert len(read_log("tiny", 0)) == 5


# --- what is read -------------------------------------------------------------------------------------------


def test_a_damaged_line_is_left_out_and_the_rest_is_read(watched: Path):
    path = Path("runs/tiny/fold0/log.jsonl")
    whole = path.read_text()
    path.write_text(whole + '{"epoch": 6, "phase"')  # a last line that is being written
    assert (len(read_rows(path).rows), read_rows(path).n_damaged) == (5, 0)
    path.write_bytes(b"\xff\x00\n" + whole.encode() + b'{"epoch": 1e999}\n' + text_of([row(6)]).encode())
    assert (len(read_rows(path).rows), read_rows(path).n_damaged) == (6, 2)


def test_news_of_a_log_are_the_rows_that_a_reader_lacks(watched: Path):
    reader, path = RunReader(), Path("runs/tiny/fold0/log.jsonl")

    def news(mark: str) -> tuple[int, list[int], str]:
        details = reader.details("tiny", [mark])
        assert details is not None
        fold = details["folds"][0]
        return fold["known"], [one["epoch"] for one in fold["rows"]], fold["mark"]

    known, epochs, mark = news("")
    assert (known, epochs) == (0, [1, 2, 3, 4, 5])
    assert news(mark)[:2] == (5, [])
    path.write_text(text_of([row(i) for i in range(1, 8)]))
    assert news(mark)[:2] == (5, [6, 7])
    path.write_text(text_of([row(i, seconds=11.0) for i in range(1, 3)]))  # the training began again
    assert news(mark)[:2] == (0, [1, 2])
    path.unlink()
    assert news(mark)[:2] == (0, [])


def test_the_time_left_is_the_pace_of_epochs_alike():
    phases = [Phase(size=16, epochs=3, head_epochs=1), Phase(size=32, epochs=2)]
    rows = [{"epoch": 1, "size": 16, "seconds": 2.0}, {"epoch": 2, "size": 16, "seconds": 5.0}]
    assert expected_seconds(phases, 0, [], []) is None
    assert expected_seconds(phases, 1, rows[:1], []) == 6.0  # the whole network after the head alone
    assert expected_seconds(phases, 2, rows, []) == 5.0
    assert expected_seconds(phases, 3, rows, []) == 20.0  # four times the pixels
    other = [*rows, {"epoch": 3, "size": 16, "seconds": 5.0}, {"epoch": 4, "size": 32, "seconds": 17.0}]
    assert expected_seconds(phases, 3, rows, [other]) == 17.0  # as another fold took
    assert expected_seconds(phases, 0, [], [other]) == 2.0


def test_all_folds_end_as_many_at_once_as_now():
    def fold(state: str, left: float | None, written: float | None = 100.0) -> Fold:
        return Fold(0, Log(), state, None, written, None, left)

    waiting = fold("waiting", 50.0, None)
    assert end_of_all([fold("training", 30.0)]) == 130.0
    assert end_of_all([fold("training", 30.0), waiting, waiting]) == 230.0  # one after the other
    two = [fold("training", 30.0), fold("training", 60.0)]
    assert end_of_all([*two, waiting, waiting]) == 210.0  # side by side: 130 + 50, 160 + 50
    assert end_of_all([fold("trained", 0.0), waiting]) is None  # nobody trains
    assert end_of_all([fold("training", None), waiting]) is None  # no pace yet


def test_a_training_without_news_for_long_is_stopped(watched: Path):
    def states() -> list[str]:
        return [fold["state"] for fold in (RunReader().details("tiny") or {})["folds"]]

    assert states() == ["training", "training"]
    for path in Path("runs/tiny/fold1").iterdir():
        os.utime(path, (1e9, 1e9))
    assert states() == ["training", "stopped"]
    Path("runs/tiny/fold1/model.safetensors").write_bytes(b"")
    assert states() == ["training", "trained"]


def test_runs_that_can_not_be_read_are_named_and_the_others_shown(watched: Path):
    Path("runs/broken").mkdir()
    Path("runs/broken/recipe.toml").write_text("name = ")
    Path("runs/earlier/decision.json").write_text("{")
    Path("runs/earlier/bare-step.json").write_text("[]")
    overview = RunReader(["tiny"]).overview()
    assert [run["name"] for run in overview["runs"] if run["watched"]] == ["tiny"]
    assert {run["name"] for run in overview["runs"]} == {"tiny", "earlier"}
    assert len(overview["problems"]) == 1 and "broken" in overview["problems"][0]


def test_the_bare_step_is_that_of_the_network_size_and_batch(watched: Path):
    about = {"backbone": load_recipe("tiny.toml").backbone, "machine": "a card", "at_once": 2}
    path = Path("runs/tiny/bare-step.json")
    path.write_text(json.dumps({**about, "rates": [[16, 16, 400.0], [32, 64, 300.0]]}))
    assert (RunReader().details("tiny") or {})["bare"]["rates"] == {16: 200.0}  # two share the device
    path.write_text(json.dumps({**about, "backbone": "other", "rates": []}))
    assert (RunReader().details("tiny") or {})["bare"] is None


def test_planned_rates_are_those_of_the_schedule():
    points = planned_rates(
        [Phase(size=16, epochs=2, lr=0.1, body_lr=0.01, head_epochs=1, schedule="constant")]
    )
    assert points[0] == [0.025, 0.1, None] and points[-1] == [1.975, 0.1, 0.01]
    assert {point[1] for point in planned_rates([Phase(size=16, epochs=1, schedule="own.py:f")])} == {None}


# --- the server ---------------------------------------------------------------------------------------------


Answered = tuple[str, dict[str, str], bytes]


def ask(app: App, path: str, method: str = "GET", **more: str) -> Answered:
    found: dict[str, Any] = {}

    def start(status: str, headers: list[tuple[str, str]]) -> None:
        found.update(status=status, headers=dict(headers))

    path, _, query = path.partition("?")
    given = {"REQUEST_METHOD": method, "PATH_INFO": path, "QUERY_STRING": query, "HTTP_HOST": "localhost:80"}
    content = b"".join(app({**given, **more}, start))
    return found["status"].split()[0], found["headers"], content


def test_the_server_only_reads_and_says_only_what_is_asked_for(watched: Path):
    app = App(RunReader())
    for method in ("POST", "PUT", "DELETE", "PATCH", "OPTIONS"):
        assert ask(app, "/news", method)[0] == "405"
    for path in ("/../tiny.toml", "/run?run=../tiny", "/run?run=", "/picture?run=tiny&id=train_5", "/x"):
        assert ask(app, path)[0] == "404", path  # train_5 is no worst image
    status, headers, content = ask(app, "/news")
    assert (status, headers["X-Content-Type-Options"]) == ("200", "nosniff")
    assert len(content) < 2000
    assert ask(app, "/news", HTTP_IF_NONE_MATCH=headers["ETag"])[::2] == ("304", b"")
    assert ask(app, "/news", "HEAD")[::2] == ("200", b"")
    status, headers, jpeg = ask(app, "/picture?run=tiny&id=train_2")
    assert (status, headers["Content-Type"], jpeg[:2]) == ("200", "image/jpeg", b"\xff\xd8")
    next(Path("data").rglob("train_0.jpg")).unlink()
    assert ask(app, "/picture?run=tiny&id=train_0")[1]["Content-Type"] == "image/svg+xml"


def test_another_sites_name_for_this_machine_is_refused(watched: Path):
    app = App(RunReader())
    assert ask(app, "/news", HTTP_HOST="evil.example:8470")[0] == "403"
    assert ask(app, "/news", HTTP_HOST="")[0] == "403"
    for host in ("127.0.0.1:1", "localhost", "LOCALHOST:9", "[::1]:8470", "[::1]", "127.0.0.2:1"):
        assert is_loopback_name(host), host
    for host in ("127.0.0.1.evil.example", "localhost.evil.example:80", "[::1", "127.0.0.1:80:80", "a"):
        assert not is_loopback_name(host), host


def test_beyond_this_machine_a_token_is_needed(watched: Path):
    server, address = make_server([], "0.0.0.0", 0)
    server.close()
    assert re.fullmatch(r"http://0\.0\.0\.0:\d+/[\w-]{32}/", address)
    again, other = make_server([], "0.0.0.0", 0)
    again.close()
    assert other.split("/")[3] != address.split("/")[3]
    app = App(RunReader(), "secret")
    for path in ("/", "/news", "/secre/news", "/secrets/news", "/secret", "//news"):
        assert ask(app, path, HTTP_HOST="any")[0] == "403", path
    assert ask(app, "/secret/news", HTTP_HOST="any")[0] == "200"
    assert ask(app, "/secret/", HTTP_HOST="any")[0] == "200"


@pytest.fixture
def served(watched: Path) -> Iterator[Callable[..., tuple[subprocess.Popen[str], str]]]:
    """Start `comp watch` as a process of its own; give it and its address."""
    started = []

    def start(*arguments: str) -> tuple[subprocess.Popen[str], str]:
        command = [sys.executable, "-m", "comp", "watch", *arguments]
        process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        started.append(process)
        assert process.stdout
        return process, process.stdout.readline().removeprefix("watch: ").strip()

    yield start
    for process in started:
        process.kill()
        process.communicate()


def get(address: str) -> bytes:
    with urllib.request.urlopen(address, timeout=20) as answer:
        return answer.read()


def files_below(folder: Path) -> dict[str, tuple[int, int]]:
    return {
        str(path): (path.stat().st_mtime_ns, path.stat().st_size)
        for path in folder.rglob("*")
        if "__pycache__" not in path.parts
    }


def test_it_is_killed_and_started_again_without_a_trace_while_two_read(watched: Path, served: Any):
    before = files_below(watched)
    process, address = served("--port", "0")
    paths = ["", "news", "run?run=tiny", "run?run=earlier", "picture?run=tiny&id=train_2"] * 4
    with ThreadPoolExecutor(2) as browsers:  # at once
        first, second = browsers.map(lambda _: [get(address + path) for path in paths], range(2))
    assert first == second
    port = int(address.split(":")[2].strip("/"))
    connection = HTTPConnection("127.0.0.1", port, timeout=20)
    connection.request("GET", "/news", headers={"Host": "evil.example"})
    assert connection.getresponse().status == 403
    connection.close()
    with pytest.raises(urllib.error.HTTPError, match="405"):
        urllib.request.urlopen(urllib.request.Request(address + "news", b"x"), timeout=20)
    process.kill()
    process.wait()
    assert files_below(watched) == before
    process, again = served("--port", str(port), "tiny")
    assert again == address
    news = json.loads(get(address + "news"))
    assert [run["name"] for run in news["runs"] if run["watched"]] == ["tiny"]
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=20)
    assert (process.returncode, err) == (0, "")
    assert files_below(watched) == before


def test_what_can_not_be_watched_is_refused(watched: Path, fails: Callable[..., str]):
    assert "nothing.toml" in fails("watch", "nothing.toml")
    assert "leave out --host and --port" in fails("watch", "--static", "--port", "1")
    assert "65535" in fails("watch", "--port", "65536")
    server, address = make_server([], "127.0.0.1", 0)
    assert "cannot listen on 127.0.0.1" in fails("watch", "--port", address.split(":")[2].strip("/"))
    server.close()


# --- the page -----------------------------------------------------------------------------------------------


def wait_until(page: Any, condition: str) -> None:
    """Wait until a condition holds; playwright's own waiting needs eval, which the page forbids."""
    for _ in range(400):
        if page.evaluate(condition):
            return
        page.wait_for_timeout(50)
    raise AssertionError(condition)


def test_the_page_works_in_two_browsers_at_once_and_shows_news(watched: Path, served: Any, browser: Any):
    process, address = served("--port", "0")
    pages = [
        opened(browser, address, viewport={"width": 1200, "height": 900}, color_scheme="light"),
        opened(browser, address, viewport={"width": 390, "height": 844}, color_scheme="dark", has_touch=True),
    ]
    for page, heard in pages:
        page.wait_for_selector("#gallery img")
        assert page.inner_text("#run-title") == "tiny"
        assert page.locator("#charts svg").count() == 7
        assert page.locator("#gallery li").count() == 4
        assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
        check_accessible(page)
        assert not heard, heard
    page, phone = pages[0][0], pages[1][0]
    page.locator("#gallery img").first.scroll_into_view_if_needed()
    wait_until(page, "document.querySelector('#gallery img').naturalWidth > 0")
    assert "train_0" in page.inner_text("#gallery li") and "5 epochs in a row" in page.inner_text(
        "#gallery li"
    )
    table = page.locator("#compared-table tbody tr").first.inner_text().split("\t")
    assert table[:6] == ["fold 0", "5", "32", "0.7000", "0.7000", "+0.0000"]
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    page.focus("#run-earlier")
    page.keyboard.press("Enter")
    wait_until(page, "document.getElementById('run-title').textContent == 'earlier'")
    assert page.evaluate("document.activeElement.id") == "run-earlier"
    assert "run=earlier" in page.url
    page.focus("#run-tiny")
    page.keyboard.press("Enter")
    wait_until(page, "document.getElementById('run-title').textContent == 'tiny'")
    Path("runs/tiny/fold0/log.jsonl").write_text(text_of([row(i + 1) for i in range(7)]))
    for one in (page, phone):
        one.evaluate("drawAfter = 0; void ask()")  # else later, the slower drawing is
        wait_until(
            one, "document.querySelector('#folds-table tbody td:nth-child(3)').textContent == '7 of 8'"
        )
    assert page.evaluate("document.activeElement.id") == "run-tiny"
    assert not pages[0][1] and not pages[1][1]
    process.kill()
    process.wait()
    page.evaluate("void ask()")
    wait_until(page, "document.getElementById('news').textContent.startsWith('No answer')")
    served("--port", address.split(":")[2].strip("/"))
    page.evaluate("void ask()")
    wait_until(page, "document.getElementById('news').textContent.startsWith('Live')")


def test_the_file_is_written_until_all_is_trained(
    watched: Path, browser: Any, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    looks = iter(["an epoch", "the end"])

    def sleep(_: float) -> None:
        page = content_of(Path("runs/watch.html"))
        assert not page["over"]
        if next(looks) == "an epoch":
            Path("runs/tiny/fold0/log.jsonl").write_text(text_of([row(i + 1) for i in range(6)]))
            return
        assert len(page["details"]["tiny"]["folds"][0]["rows"]) == 6
        for fold in (0, 1):
            Path(f"runs/tiny/fold{fold}/model.safetensors").write_bytes(b"")

    monkeypatch.setattr(time, "sleep", sleep)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    assert main(["watch", "--static", "tiny"]) == 0
    assert "complete" in capsys.readouterr().out
    monkeypatch.undo()
    page, heard = opened(browser, watched / "runs" / "watch.html", viewport={"width": 390, "height": 844})
    assert page.inner_text("#news").startswith("Complete: written")
    page.locator("#gallery img").first.scroll_into_view_if_needed()
    wait_until(page, "document.querySelector('#gallery img').naturalWidth > 0")
    assert page.evaluate("document.documentElement.scrollWidth <= innerWidth")
    assert not heard, heard


def test_the_file_is_ended_quietly_and_waits_for_a_run_that_has_not_begun(
    watched: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    def interrupt(_: float) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(time, "sleep", interrupt)
    monkeypatch.setattr(os, "nice", lambda _: 0)
    assert main(["watch", "--static", "demo"]) == 0  # a recipe that is not trained yet
    assert capsys.readouterr().err == ""
    assert content_of(Path("runs/watch.html"))["news"]["expected"] == ["demo"]


def test_names_from_outside_are_no_part_of_the_page(watched: Path):
    evil = row(1)
    evil["worst"][0] |= {"id": "</script><b>", "answers": [["<img src=x>\x1b", 1.0, 0.5]]}
    Path("runs/tiny/fold0/log.jsonl").write_text(text_of([evil]))
    page = static_page(RunReader(), Pictures(), over=False)
    assert "</script><b>" not in page and "<img src=x>" not in page and "\x1b" not in page
