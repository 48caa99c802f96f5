"""Submissions to Kaggle and their ledger: the real client against a fake Kaggle on this machine."""

import base64
import math
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from comp.cli.main import main
from comp.kaggle import ledger
from comp.kaggle import submit as sending
from tests.conftest import SLUG
from tests.fake_kaggle import FakeKaggle


@pytest.fixture
def ready(here: Path, submitted: Path, kaggle: FakeKaggle, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy of `submitted` whose competition is on the fake Kaggle and has no solution file here."""
    shutil.copytree(submitted, here, dirs_exist_ok=True, symlinks=True)
    shutil.rmtree(here / "submissions")
    monkeypatch.setattr(sending, "SETTLE_SECONDS", 2.0)
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


def test_a_submission_gets_the_score_of_its_solution(ready: Path, kaggle: FakeKaggle, capsys):
    assert send() == 0
    printed = capsys.readouterr().out
    assert "0 submissions" in printed and "5 left" in printed
    (row,), (sent,) = rows(), kaggle.submissions
    assert (row["status"], row["ref"], row["message"]) == ("complete", str(sent["ref"]), "first try")
    assert Path(sent["path"]).read_bytes() == (ready / "submissions" / f"{row['name']}.csv").read_bytes()
    assert float(row["public"]) == pytest.approx(float(sent["publicScore"]), abs=1e-4)
    assert float(row["private"]) == pytest.approx(float(sent["privateScore"]), abs=1e-4)


def test_the_same_file_is_sent_again_only_with_again(ready: Path, kaggle: FakeKaggle, capsys):
    assert send() == send() == 0
    assert f"submission {rows()[0]['ref']}; --again" in capsys.readouterr().out
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
    assert "1 submission " in line and "0 left" in line and "00:00 UTC" in line
    assert len(kaggle.submissions) == len(rows()) == 1


def test_a_success_is_checked_against_the_list(ready: Path, kaggle: FakeKaggle, fails, monkeypatch):
    """At the daily limit Kaggle has been seen to report success and to record nothing."""
    kaggle.competitions[SLUG].daily_limit, kaggle.lying_limit = 1, True
    from comp.kaggle.client import Kaggle, Limits

    assert send() == 0
    monkeypatch.setattr(
        Kaggle, "get_limits", lambda self, slug: Limits(0, 1)
    )  # another machine sends meanwhile
    assert "not among the submissions on Kaggle" in fails("submit", "tiny.toml", "--send", "--again")
    assert [row["status"] for row in rows()] == ["complete", ""]


@pytest.mark.parametrize("kind", ["403", "404"])
def test_a_failed_upload_is_a_failure(ready: Path, kaggle: FakeKaggle, fails, kind: str):
    kaggle.fail(kind, r"PUT /upload", times=9)
    assert "was not sent: Could not submit" in fails("submit", "tiny.toml", "--send")
    assert [row["status"] for row in rows()] == [""]
    kaggle._failures.clear()
    assert send() == 0 and len(kaggle.submissions) == len(rows()) == 1


def test_a_truncated_submission_is_written_again_before_it_is_sent(ready: Path, kaggle: FakeKaggle):
    assert main(["submit", "tiny.toml"]) == 0
    (path,) = (ready / "submissions").glob("tiny-*.csv")
    whole = path.read_bytes()
    path.write_bytes(whole[:300])
    assert send() == 0
    assert Path(kaggle.submissions[0]["path"]).read_bytes() == path.read_bytes() == whole
    assert len(rows()) == 1


def test_a_row_that_was_removed_from_the_ledger_is_written_again(ready: Path, kaggle: FakeKaggle):
    assert main(["submit", "tiny.toml"]) == 0
    (ready / "submissions" / "ledger.csv").unlink()
    assert send() == 0
    assert len(kaggle.submissions) == len(rows()) == 1


def test_again_also_sends_a_file_that_is_missing_in_the_ledger(ready: Path, kaggle: FakeKaggle):
    assert send() == 0
    (ready / "submissions" / "ledger.csv").unlink()
    assert send("--again") == 0
    assert [row["ref"] for row in rows()] == [str(s["ref"]) for s in kaggle.submissions]
    assert len(kaggle.submissions) == 2 and {row["slug"] for row in rows()} == {SLUG}


def test_a_clock_that_was_set_back_causes_no_wait(ready: Path, kaggle: FakeKaggle):
    assert main(["submit", "tiny.toml"]) == 0
    ledger.update(rows()[0], status="sending", sent="2199-01-01T00:00:00+00:00", slug=SLUG)
    started = time.monotonic()
    assert send() == 0
    assert time.monotonic() - started < 30
    assert len(kaggle.submissions) == len(rows()) == 1


def test_a_submission_can_be_sent_while_another_waits_for_its_score(ready: Path, kaggle: FakeKaggle):
    kaggle.score_after = math.inf
    process = subprocess.Popen([sys.executable, "-m", "comp", "submit", "tiny.toml", "--send"], cwd=ready)
    while not kaggle.submissions:
        time.sleep(0.05)
        assert process.poll() is None
    time.sleep(0.3)
    assert send("--again", "--wait", "0") == 0
    assert process.poll() is None
    kaggle.score_after = 0
    assert process.wait(60) == 0
    assert len(kaggle.submissions) == len(rows()) == 2


def test_a_ledger_edited_by_hand(ready: Path, kaggle: FakeKaggle, fails, capsys):
    assert send() == 0
    path = ready / "submissions" / "ledger.csv"
    text = path.read_text()
    lines = text.splitlines()
    path.write_text(f"{lines[0]},notes\n{lines[1]},mine\n")
    assert send("--again") == 0
    assert [row["notes"] for row in rows()] == ["mine", "mine"]
    ledger.update(rows()[0], ref="999", private="")  # of another account
    ledger.update(rows()[1], private="")
    assert main(["ledger", "--sync"]) == 0
    assert rows()[1]["private"] and not rows()[0]["private"]
    ledger.update(rows()[1], message="many words " * 40)
    capsys.readouterr()
    assert main(["ledger"]) == 0
    shown = capsys.readouterr().out
    assert rows()[1]["name"] in shown and f"{float(rows()[1]['private']):.4f}" in shown
    assert max(map(len, shown.splitlines())) <= 100
    path.write_text(text.replace(rows()[0]["public"], "0;93"))
    line = fails("ledger")
    assert "line 2: public is '0;93'" in line and "a number such as 0.93" in line


def test_rules_not_accepted(ready: Path, kaggle: FakeKaggle, fails):
    kaggle.competitions[SLUG].accepted = False
    assert f"competitions/{SLUG}/rules" in fails("submit", "tiny.toml", "--send")


def test_a_file_that_kaggle_can_not_score(ready: Path, kaggle: FakeKaggle, fails):
    short = (ready / "files/sample_submission.csv").read_text().splitlines()[:-1]
    kaggle.add_competition(SLUG, {"sample.csv": "\n".join(short).encode()}, sample="sample.csv")
    assert "Kaggle could not score" in fails("submit", "tiny.toml", "--send")
    assert [row["status"] for row in rows()] == ["error"]
    assert "Kaggle could not score" in fails("submit", "tiny.toml", "--send")
    assert len(kaggle.submissions) == 1


@pytest.mark.parametrize("kind", ["drop", "500", "html"])
@pytest.mark.parametrize(
    "method", ["StartSubmissionUpload", "PUT /upload", "CreateSubmission", "GetSubmission", "List"]
)
def test_a_failed_response_never_doubles_or_loses_a_submission(
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
    """With `drop`, Kaggle has the submission when the process is killed; with `hang` it never gets it."""
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
    assert send("--again") == 0  # an unsettled row is settled first, even with --again
    (row,), (sent,) = rows()[:1], kaggle.submissions[:1]
    assert (row["status"], row["ref"]) == ("complete", str(sent["ref"]))
    assert len(kaggle.submissions) == len(rows()) <= (2 if method == "GetSubmission" else 1)


def test_sync_fetches_a_late_score(ready: Path, kaggle: FakeKaggle, capsys):
    kaggle.score_after = math.inf
    assert send("--wait", "0.5") == 0
    assert rows()[0]["status"] == "pending" and not rows()[0]["public"]
    kaggle.score_after = 0
    assert main(["ledger", "--sync"]) == 0
    printed = capsys.readouterr().out
    assert rows()[0]["status"] == "complete" and f"{float(rows()[0]['public']):.4f}" in printed
    assert (ready / "submissions" / "ledger.png").read_bytes().startswith(b"\x89PNG")


def _add(folder: str, first: int) -> None:
    os.chdir(folder)
    for i in range(first, first + 20):
        ledger.add({"time": ledger.now(), "name": f"s{i}"})


def test_several_processes_write_the_ledger_at_once(here: Path):
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_add, args=(str(here), 20 * i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert {row["name"] for row in rows()} == {f"s{i}" for i in range(80)}


def test_no_file_and_no_output_contains_credentials(ready: Path, submitted: Path, kaggle: FakeKaggle, capfd):
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
    basic = base64.b64encode(f"tester:{key}".encode()).decode()
    for secret in (key, basic, "X-Goog-Signature"):
        assert secret not in printed
        for path in ready.rglob("*"):
            assert not path.is_file() or secret.encode() not in path.read_bytes(), path
