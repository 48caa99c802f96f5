"""The fake Kaggle, used by the real client."""

import json
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.fake_kaggle import FakeKaggle, old_planet, planet

SAMPLE = b"image_name,tags\na,x y\nb,x\nc,y\nd,x\n"
LARGE = bytes(range(256)) * 12_000  # 3 MB: the client takes a download in blocks of 1 MB


@pytest.fixture
def kaggle(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeKaggle]:
    for name in ("KAGGLE_API_TOKEN", "KAGGLE_KERNEL_RUN_TYPE", "KAGGLE_API_ENVIRONMENT"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))  # the client keeps its notes of uploads there
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path / "config"))
    monkeypatch.setenv("KAGGLE_USERNAME", "tester")
    monkeypatch.setenv("KAGGLE_KEY", "0123456789abcdef-secret")
    with FakeKaggle(tmp_path / "kaggle") as server:
        from kagglesdk import kaggle_env

        monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, server.url)
        server.score_after = server.ready_after = server.queued_for = 0.0
        server.add_competition("letters", {"t.csv/t.csv": LARGE, "s.csv": SAMPLE}, sample="s.csv")
        yield server
        assert not server.errors


@pytest.fixture
def api(kaggle: FakeKaggle) -> Any:
    from kaggle.api.kaggle_api_extended import KaggleApi

    client = KaggleApi()
    client.authenticate()
    return client


@pytest.fixture
def link(kaggle: FakeKaggle, api: Any) -> str:
    """The signed URL of the 3 MB file."""
    request = {"competitionName": "letters", "fileName": "t.csv/t.csv"}
    answer = requests.post(
        f"{kaggle.url}/v1/competitions.CompetitionApiService/DownloadDataFile",
        json=request, auth=("tester", kaggle.users["tester"]), allow_redirects=False, timeout=5,
    )  # fmt: skip
    assert answer.status_code == 302
    return answer.headers["Location"]


def until(ready: Callable[[], bool]) -> None:
    stop = time.monotonic() + 10
    while not ready():
        assert time.monotonic() < stop
        time.sleep(0.02)


def submit(api: Any, folder: Path, text: bytes) -> Any:
    (folder / "mine.csv").write_bytes(text)
    return api.competition_submit(str(folder / "mine.csv"), "a try", "letters", quiet=True)


def test_files_are_listed_in_pages_and_downloaded_byte_for_byte(kaggle, api, tmp_path):
    first = api.competition_list_files("letters", page_size=1)
    assert [f.name for f in first.files] == ["s.csv"]
    second = api.competition_list_files("letters", page_token=first.next_page_token, page_size=1)
    assert [(f.name, f.total_bytes) for f in second.files] == [("t.csv/t.csv", len(LARGE))]
    assert not second.next_page_token
    api.competition_download_file("letters", "t.csv/t.csv", path=str(tmp_path), quiet=True)
    assert (tmp_path / "t.csv").read_bytes() == LARGE
    verb, path, headers = kaggle.requests[-1]
    assert (verb, path.split("/")[1]) == ("GET", "storage")
    assert "Authorization" not in headers  # the client leaves it behind at the redirect
    assert kaggle.users["tester"] not in str(kaggle.requests)


def test_a_token_signs_in_and_a_wrong_key_does_not(kaggle, api, monkeypatch):
    monkeypatch.setenv("KAGGLE_API_TOKEN", "KGAT_secret_token")
    api.authenticate()
    assert api.competition_list_files("letters").files
    monkeypatch.delenv("KAGGLE_API_TOKEN")
    monkeypatch.setenv("KAGGLE_KEY", "wrong")
    api.config_values.clear()
    api.authenticate()
    with pytest.raises(requests.HTTPError, match="Unauthenticated"):
        api.competition_list_files("letters")


def test_unknown_names_and_rules_that_wait_are_refused(kaggle, api, tmp_path):
    with pytest.raises(requests.HTTPError, match="not found"):
        api.competition_list_files("figures")
    kaggle.competitions["letters"].accepted = False
    with pytest.raises(requests.HTTPError, match="accept this competition's rules"):
        api.competition_download_file("letters", "s.csv", path=str(tmp_path), quiet=True)
    with pytest.raises(requests.HTTPError) as error:
        api.dataset_status("tester/nothing")
    assert error.value.response.status_code == 403


def test_ranges_are_served_as_long_as_the_file_is_the_same(link):
    whole = requests.get(link, timeout=5)
    assert whole.content == LARGE
    part = requests.get(link, headers={"Range": "bytes=10-19", "If-Range": whole.headers["ETag"]}, timeout=5)
    assert (part.status_code, part.content) == (206, LARGE[10:20])
    assert part.headers["Content-Range"] == f"bytes 10-19/{len(LARGE)}"
    assert requests.get(link, headers={"Range": "bytes=-5"}, timeout=5).content == LARGE[-5:]
    other = requests.get(link, headers={"Range": "bytes=10-", "If-Range": '"other"'}, timeout=5)
    assert (other.status_code, len(other.content)) == (200, len(LARGE))
    beyond = requests.get(link, headers={"Range": f"bytes={len(LARGE)}-"}, timeout=5)
    assert (beyond.status_code, beyond.headers["Content-Range"]) == (416, f"bytes */{len(LARGE)}")
    assert requests.head(link, timeout=5).headers["Content-Length"] == str(len(LARGE))
    assert requests.get(link, auth=("tester", "key"), timeout=5).status_code == 400
    assert requests.get(link + "0", timeout=5).status_code == 403


def test_checksums_are_the_published_ones(kaggle, api, tmp_path):
    kaggle.add_dataset("someone/digits", {"nine.txt": b"123456789", "long": LARGE})
    api.dataset_download_file("someone/digits", "nine.txt", path=str(tmp_path))
    link = kaggle._store(kaggle.datasets["someone/digits"].files["nine.txt"], "nine.txt")
    hashes = requests.get(link, timeout=5).headers["x-goog-hash"]
    assert hashes == "crc32c=4waSgw==, md5=JfnnlDI7RTiF9RgfG2JNCw=="  # the check value of CRC-32C


@pytest.mark.parametrize(
    ("kind", "at", "expected"),
    [("cut", 1000, 1000), ("length", 5, len(LARGE)), ("refuse", 0, 0), ("drop", 0, 0)],
)
def test_a_failure_happens_once_and_ends_the_connection(kaggle, link, kind, at, expected):
    kaggle.fail(kind, "GET /storage", at=at)
    got = b""
    with pytest.raises(requests.RequestException):
        for block in requests.get(link, stream=True, timeout=5).iter_content(1000):
            got += block
    assert got == LARGE[:expected]
    assert requests.get(link, timeout=5).content == LARGE


def test_failures_that_look_like_success(kaggle, link):
    kaggle.fail("corrupt", "storage", at=7)
    assert [i for i, (a, b) in enumerate(zip(requests.get(link, timeout=5).content, LARGE)) if a != b] == [7]
    kaggle.fail("nolength", "storage", at=1000)
    assert requests.get(link, timeout=5).content == LARGE[:1000]
    kaggle.fail("html", "storage")
    assert requests.get(link, timeout=5).headers["Content-Type"].startswith("text/html")
    kaggle.fail("length", "storage", at=-5)
    assert requests.get(link, timeout=5).content == LARGE[:-5]


def test_failures_can_start_after_some_requests(kaggle, link):
    kaggle.fail("429", "GET /storage", after=1, times=2, seconds=3)
    answers = [requests.get(link, timeout=5) for _ in range(4)]
    assert [a.status_code for a in answers] == [200, 429, 429, 200]
    assert answers[1].headers["Retry-After"] == "3"


def test_chaos_is_the_same_for_the_same_seed(kaggle, link):
    def codes() -> list[int]:
        kaggle.chaos(seed=4, rate=0.5, kinds=("503", "429"))
        return [requests.get(link, timeout=5).status_code for _ in range(12)]

    first = codes()
    assert {200, 503, 429} >= set(first) > {200}
    assert codes() == first


def test_a_submission_is_scored_and_a_bad_one_gets_a_reason(kaggle, api, tmp_path):
    kaggle.score_after = 0.2
    good = submit(api, tmp_path, SAMPLE)
    short = submit(api, tmp_path, b"image_name,tags\na,x\n")
    assert [s.status.name for s in api.competition_submissions("letters")] == ["PENDING", "PENDING"]
    until(lambda: all(s["status"] != "PENDING" for s in kaggle.submissions))
    newest, oldest = api.competition_submissions("letters")
    assert (oldest.ref, oldest.public_score, oldest.private_score) == (good.ref, "1.00000", "1.00000")
    assert (newest.ref, newest.status.name) == (short.ref, "ERROR")
    assert "must have 4 rows" in newest.error_description
    assert api.competition_get_submission_limits("letters").num_allowed_now == 4


def test_scores_are_those_of_the_solution(kaggle, api, tmp_path):
    solution = "id,tags,Usage\na,x y,Public\nb,x,Public\nc,y,Private\nd,y,Private\n"
    kaggle.add_competition("letters", {"s.csv": SAMPLE}, sample="s.csv", solution=solution)
    submit(api, tmp_path, SAMPLE)
    until(lambda: kaggle.submissions[-1]["status"] == "COMPLETE")
    assert (kaggle.submissions[-1]["publicScore"], kaggle.submissions[-1]["privateScore"]) == (
        "1.00000",
        "0.50000",
    )


def test_the_daily_limit_is_reported_or_hidden(kaggle, api, tmp_path):
    kaggle.competitions["letters"].daily_limit = 1
    submit(api, tmp_path, SAMPLE)
    with pytest.raises(requests.HTTPError, match="daily Submission allowance"):
        submit(api, tmp_path, SAMPLE)
    kaggle.lying_limit = True
    answer = submit(api, tmp_path, SAMPLE)
    assert (answer.message, answer.ref) == ("Successfully submitted to Letters", 0)
    assert len(kaggle.submissions) == 1


def test_a_dropped_answer_leaves_the_submission_recorded(kaggle, api, tmp_path):
    kaggle.fail("drop", "CreateSubmission")
    with pytest.raises(requests.ConnectionError):
        submit(api, tmp_path, SAMPLE)
    assert len(kaggle.submissions) == 1


def test_a_dataset_is_created_versioned_and_downloaded(kaggle, api, tmp_path):
    folder = tmp_path / "weights"
    (folder / "inner").mkdir(parents=True)
    (folder / "inner" / "a.txt").write_text("a")
    (folder / "big.bin").write_bytes(LARGE)
    about = {"id": "tester/weights", "title": "weights", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(about))
    assert api.dataset_create_new(str(folder), quiet=True, dir_mode="zip").status == "ok"
    assert sorted(kaggle.datasets["tester/weights"].files) == ["big.bin", "inner/a.txt"]
    kaggle.ready_after = 60
    (folder / "big.bin").unlink()
    assert api.dataset_create_version(str(folder), "fewer", quiet=True, dir_mode="zip").status == "ok"
    assert api.dataset_status("tester/weights") == "blobs_received"
    assert [f.name for f in api.dataset_list_files("tester/weights").files] == ["big.bin", "inner/a.txt"]
    kaggle.datasets["tester/weights"].versions[-1].ready_at = 0
    assert api.dataset_status("tester/weights") == "ready"
    api.dataset_download_files("tester/weights", path=str(tmp_path / "out"), unzip=True)
    assert [p.name for p in (tmp_path / "out").rglob("*") if p.is_file()] == ["a.txt"]


def test_a_cut_upload_resumes(kaggle, api, tmp_path):
    folder = tmp_path / "weights"
    folder.mkdir()
    (folder / "big.bin").write_bytes(LARGE)
    about = {"id": "tester/weights", "title": "weights", "licenses": [{"name": "CC0-1.0"}]}
    (folder / "dataset-metadata.json").write_text(json.dumps(about))
    kaggle.fail("503", "PUT /upload")
    assert api.dataset_create_new(str(folder), quiet=True).status == "ok"
    assert kaggle.datasets["tester/weights"].files["big.bin"].read_bytes() == LARGE
    link = kaggle._start_upload("x", 10)["createUrl"]
    kaggle.fail("cut", "PUT /upload", at=4)
    with pytest.raises(requests.ConnectionError):
        requests.put(link, data=b"0123456789", timeout=5)
    asked = requests.put(link, headers={"Content-Range": "bytes */10"}, timeout=5)
    assert (asked.status_code, asked.headers["Range"]) == (308, "bytes=0-3")
    rest = requests.put(link, data=b"456789", headers={"Content-Range": "bytes 4-9/10"}, timeout=5)
    assert (rest.status_code, rest.json()["size"]) == (200, "10")


@pytest.mark.parametrize(("layout", "place"), [("new", "datasets/someone/digits"), ("flat", "digits")])
def test_a_pushed_kernel_runs_with_its_inputs_and_without_credentials(kaggle, api, tmp_path, layout, place):
    kaggle.mount_layout = layout
    kaggle.add_dataset("someone/digits", {"deep/nine.txt": b"123456789"})
    folder = tmp_path / "push"
    folder.mkdir()
    (folder / "main.py").write_text(
        "import os, pathlib\n"
        f"path = pathlib.Path(os.environ['COMP_KAGGLE_INPUT'], '{place}', 'deep', 'nine.txt')\n"
        "pathlib.Path('out').mkdir()\n"
        "pathlib.Path('out', 'nine.txt').write_text(path.read_text())\n"
        "print('keys', [k for k in os.environ if k.startswith('KAGGLE_')])\n"
    )
    about = {
        "id": "tester/my-kernel", "title": "My kernel", "code_file": "main.py", "language": "python",
        "kernel_type": "script", "dataset_sources": ["someone/digits", "someone/unknown"],
        "competition_sources": ["letters"],
    }  # fmt: skip
    (folder / "kernel-metadata.json").write_text(json.dumps(about))
    answer = api.kernels_push(str(folder))
    assert (answer.version_number, answer.invalid_dataset_sources) == (1, ["someone/unknown"])
    until(lambda: api.kernels_status("tester/my-kernel").status.name not in ("QUEUED", "RUNNING"))
    assert api.kernels_status("tester/my-kernel").status.name == "COMPLETE"
    api.kernels_output("tester/my-kernel", str(tmp_path / "output"))
    assert (tmp_path / "output" / "out" / "nine.txt").read_text() == "123456789"
    log = json.loads((tmp_path / "output" / "my-kernel.log").read_text())
    assert [e["data"] for e in log] == ["keys ['KAGGLE_KERNEL_RUN_TYPE']\n"]


def test_a_kernel_that_fails_says_so(kaggle, api, tmp_path):
    (tmp_path / "main.ipynb").write_text(
        json.dumps({"cells": [{"cell_type": "code", "source": ["!echo hello\n", "raise SystemExit(3)"]}]})
    )
    about = {
        "id": "tester/failing", "title": "failing", "code_file": "main.ipynb", "language": "python",
        "kernel_type": "notebook",
    }  # fmt: skip
    (tmp_path / "kernel-metadata.json").write_text(json.dumps(about))
    api.kernels_push(str(tmp_path))
    until(lambda: kaggle.kernels["tester/failing"].runs[-1].done)
    assert "code 3" in api.kernels_status("tester/failing").failure_message
    assert "hello" in api.kernels_logs("tester/failing")


def test_planet_is_served_as_it_is_today_and_as_it_was(kaggle, api):
    planet(kaggle, None, 16)
    names = [f.name for f in api.competition_list_files("planet-understanding-the-amazon-from-space").files]
    assert "train_v2.csv/train_v2.csv" in names
    files = kaggle.datasets["nikitarom/planets-dataset"].files
    assert sum(name.endswith(".jpg") for name in files) == 16 + 8 + 4
    assert "test-jpg-additional/test-jpg-additional/file_3.jpg" in files
    old_planet(kaggle, None, 16)
    old = kaggle.competitions["planet-understanding-the-amazon-from-space"]
    assert "train-jpg/train-jpg/train_15.jpg" in kaggle._unpacked(
        "train-jpg.tar.7z", old.files["train-jpg.tar.7z"]
    )
    assert list(kaggle._unpacked("train_v2.csv.zip", old.files["train_v2.csv.zip"])) == ["train_v2.csv"]
