"""Submissions to Kaggle, and the ledger that forgets none: the real client against a server that plays
Kaggle."""

import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comp import ledger, sending
from comp.cli import main
from comp.config import load_recipe
from tests.conftest import SLUG
from tests.fake_kaggle import FakeKaggle


@pytest.fixture
def ready(here: Path, submitted: Path, kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of it whose competition is on Kaggle and has no solution here."""
    shutil.copytree(submitted, here, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(here / "submissions")
    monkeypatch.setattr(sending, "SETTLE", 2.0)
    kaggle.add_competition(
        SLUG,
        {name: here / "files" / name for name in ("train.csv", "sample_submission.csv")},
        sample="sample_submission.csv",
        solution=(here / "files" / "solution.csv").read_text(),
    )
    return here


def send(*more: str) -> int:
    return main(["submit", "tiny.toml", "--send", "-m", "first try", *more])


def rows() -> list[dict[str, str]]:
    return ledger.read()


def test_a_submission_comes_back_with_the_score_that_its_truth_gives(ready: Path, kaggle: FakeKaggle, capsys):
    assert send() == 0
    printed = capsys.readouterr().out
    assert "0 submissions are used today, 5 left" in printed
    (row,), (sent,) = rows(), kaggle.submissions
    assert (row["status"], row["ref"], row["message"]) == ("complete", str(sent["ref"]), "first try")
    assert Path(sent["path"]).read_bytes() == (ready / "submissions" / f"{row['name']}.csv").read_bytes()
    assert float(row["public"]) == pytest.approx(float(sent["publicScore"]), abs=1e-4)
    assert float(row["private"]) == pytest.approx(float(sent["privateScore"]), abs=1e-4)


def test_the_same_file_is_sent_again_only_when_asked(ready: Path, kaggle: FakeKaggle, capsys):
    assert send() == send() == 0
    assert "was sent already" in capsys.readouterr().out
    assert len(kaggle.submissions) == 1
    assert send("--again") == 0
    assert len(kaggle.submissions) == 2
    assert [row["ref"] for row in rows()] == [str(s["ref"]) for s in kaggle.submissions]


def test_a_file_that_was_sent_from_elsewhere_is_found_and_not_sent(ready: Path, kaggle: FakeKaggle):
    assert send() == 0
    (ready / "submissions" / "ledger.csv").unlink()
    for path in (ready / "submissions").glob("tiny*"):
        path.unlink()
    assert send() == 0
    (row,) = rows()
    assert len(kaggle.submissions) == 1 and row["ref"] and row["status"] == "complete"


def test_at_the_daily_limit_nothing_is_sent(ready: Path, kaggle: FakeKaggle, fails):
    kaggle.competitions[SLUG].daily_limit = 1
    assert send() == 0
    line = fails("submit", "tiny.toml", "--send", "--again")
    assert "1 submission is used today, 0 left" in line and "00:00 UTC" in line
    assert len(kaggle.submissions) == len(rows()) == 1


def test_successfully_submitted_is_not_believed(ready: Path, kaggle: FakeKaggle, fails, monkeypatch):
    """At the limit Kaggle has been seen to answer with success and to keep nothing."""
    kaggle.competitions[SLUG].daily_limit, kaggle.lying_limit = 1, True
    from comp.kaggle_api import Kaggle, Limits

    assert send() == 0
    monkeypatch.setattr(Kaggle, "limits", lambda self, slug: Limits(0, 1))  # another machine sends meanwhile
    assert "not among the submissions on Kaggle" in fails("submit", "tiny.toml", "--send", "--again")
    assert [row["status"] for row in rows()] == ["complete", ""]


@pytest.mark.parametrize("kind", ["403", "404"])
def test_could_not_submit_is_a_failure(ready: Path, kaggle: FakeKaggle, fails, kind: str):
    kaggle.fail(kind, r"PUT /upload", times=9)
    assert "was not sent: Could not submit" in fails("submit", "tiny.toml", "--send")
    assert [row["status"] for row in rows()] == [""]
    kaggle._failures.clear()
    assert send() == 0 and len(kaggle.submissions) == len(rows()) == 1


def test_rules_not_accepted(ready: Path, kaggle: FakeKaggle, fails):
    kaggle.competitions[SLUG].accepted = False
    assert f"competitions/{SLUG}/rules" in fails("submit", "tiny.toml", "--send")


def test_a_file_that_kaggle_can_not_score(ready: Path, kaggle: FakeKaggle, fails):
    short = (ready / "files/sample_submission.csv").read_text().splitlines()[:-1]
    kaggle.add_competition(SLUG, {"sample.csv": "\n".join(short).encode()}, sample="sample.csv")
    assert "Kaggle could not score" in fails("submit", "tiny.toml", "--send")
    assert [row["status"] for row in rows()] == ["error"]


@pytest.mark.parametrize("kind", ["drop", "500", "429", "refuse", "html"])
@pytest.mark.parametrize(
    "method", ["StartSubmissionUpload", "PUT /upload", "CreateSubmission", "GetSubmission", "List"]
)
def test_an_answer_that_fails_never_doubles_or_loses_a_submission(
    ready: Path, kaggle: FakeKaggle, kind: str, method: str
):
    kaggle.fail(kind, method)
    code = send()
    if code:
        assert send() == 0
    (row,), (sent,) = rows(), kaggle.submissions
    assert (row["status"], row["ref"]) == ("complete", str(sent["ref"]))


@pytest.mark.parametrize(
    "method", ["StartSubmissionUpload", "PUT /upload", "CreateSubmission", "GetSubmission"]
)
@pytest.mark.parametrize("kind", ["hang", "drop"])
def test_killed_at_any_moment_it_is_never_sent_twice_and_never_lost(
    ready: Path, kaggle: FakeKaggle, kind: str, method: str
):
    """With drop, Kaggle has the submission when the process is killed; with hang it never hears of it."""
    kaggle.fail(kind, method, seconds=30)
    if kind == "drop":
        kaggle.fail("hang", f"{method}|GetSubmission$", times=5, seconds=30)
        kaggle.fail("hang", r"ListSubmissions", times=5, after=1, seconds=30)
    n_calls, deadline = len(kaggle.requests), time.monotonic() + 60
    process = subprocess.Popen(
        [sys.executable, "-m", "comp", "submit", "tiny.toml", "--send"], cwd=ready, start_new_session=True
    )
    while not any(method.split()[-1] in path for _, path, _ in kaggle.requests[n_calls:]):
        time.sleep(0.05)
        assert process.poll() is None and time.monotonic() < deadline, kaggle.calls
    time.sleep(0.3)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    kaggle._failures.clear()
    assert send("--again") == 0  # what is unsettled is settled first, also then
    (row,), (sent,) = rows()[:1], kaggle.submissions[:1]
    assert (row["status"], row["ref"]) == ("complete", str(sent["ref"]))
    assert len(kaggle.submissions) == len(rows()) <= (2 if method == "GetSubmission" else 1)


def test_a_score_that_comes_late_is_fetched_by_sync(ready: Path, kaggle: FakeKaggle, capsys):
    kaggle.score_after = 3
    assert send("--wait", "0.5") == 0
    assert rows()[0]["status"] == "pending" and not rows()[0]["public"]
    time.sleep(3)
    assert main(["ledger", "--sync"]) == 0
    printed = capsys.readouterr().out
    assert rows()[0]["status"] == "complete" and f"{float(rows()[0]['public']):.4f}" in printed
    assert (ready / "submissions" / "ledger.png").read_bytes().startswith(b"\x89PNG")


def _add(folder: str, first: int) -> None:
    os.chdir(folder)
    for i in range(first, first + 20):
        ledger.add({"time": ledger.now(), "name": f"s{i}"})


def test_two_processes_write_the_ledger_at_once(here: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(str(here), 20 * i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {row["name"] for row in rows()} == {f"s{i}" for i in range(80)}


def test_credentials_are_in_no_file_and_no_output(ready: Path, submitted: Path, kaggle: FakeKaggle, capfd):
    key = kaggle.users["tester"]
    for kind in ("", "500", "html", "403", "drop"):
        if kind:
            kaggle.fail(kind, "", times=3)
        shutil.rmtree(ready / "data", ignore_errors=True)
        main(["download", "tiny.toml", "--force"])
        shutil.copytree(submitted / "data", ready / "data", dirs_exist_ok=True)
        send("--again")
        main(["ledger", "--sync"])
    printed = "".join(capfd.readouterr())
    basic = __import__("base64").b64encode(f"tester:{key}".encode()).decode()
    for secret in (key, basic, "X-Goog-Signature"):
        assert secret not in printed
        for path in ready.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
    assert load_recipe("tiny.toml").competition.slug == SLUG
