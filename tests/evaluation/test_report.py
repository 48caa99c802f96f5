"""`comp report`: what it says is what scikit-learn says, and the page works as people use it."""

import json
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import fbeta_score, precision_score, recall_score

from comp import console
from comp.artifacts.paths import test_path as path_of_test
from comp.artifacts.predictions import load
from comp.cli.main import main
from comp.config.loading import load_recipe
from comp.data.corrections import read_corrections
from comp.decisions.metrics import log_losses
from comp.decisions.rules import FittedRule
from comp.evaluation.explanation import read_query, with_training_labels
from comp.evaluation.gallery import gallery, label_queues
from comp.evaluation.label_errors import find_label_errors
from comp.evaluation.report_answers import drift
from comp.evaluation.report_curves import calibration
from comp.evaluation.report_data import count_cooccurrences
from comp.evaluation.results import read_results
from comp.kaggle import ledger
from tests.conftest import TINY, read_by, run_all
from tests.fake_kaggle import FakeKaggle, old_planet
from tests.pages import check_accessible, check_report, content_of, download, opened

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A working directory with a finished run of the tiny competition, of 240 images."""
    folder = tmp_path_factory.mktemp("finished")
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        for name in ("COMP_DATA", "COMP_RUNS", "COMP_WEIGHTS"):
            patch.delenv(name, raising=False)
        (folder / "tiny.toml").write_text(
            TINY.replace("n_train = 90", "n_train = 240").replace("epochs = 1", "epochs = 4")
        )
        run_all("tiny.toml")
    return folder


@pytest.fixture
def inside(finished: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(finished)
    return finished / "runs" / "tiny" / "report.html"


def test_the_page_of_the_drawn_competition_works_in_a_browser(inside: Path, browser: Any):
    check_report(browser, inside, looks=True)


def test_the_map_colours_images_and_selects_those_of_the_gallery(inside: Path, browser: Any):
    data = content_of(inside)
    found, ids = data["map"], [image["id"] for image in data["images"]]
    assert found["n"] == 240 and len(set(found["id"])) == 240
    for name, x in zip(found["id"], found["image"]):
        assert x is None or ids[x] == name
    page, heard = opened(browser, inside, viewport={"width": 1200, "height": 900})
    for choice in ("fold", "0", "loss"):
        page.select_option("#map-colour", choice)
        assert page.locator("#map-chart circle, #map-chart path").count() >= 240
    all_shown = page.inner_text("#count")
    page.fill("#map-image", ids[0])  # by keyboard: an image, and those near it
    assert page.inner_text("#map-status").startswith(f"{ids[0]}: ")
    page.keyboard.press("Enter")
    places = np.column_stack([found["x"], found["y"]])
    at = found["id"].index(ids[0])
    near = np.argsort(np.hypot(*(places - places[at]).T), kind="stable")[:24]
    n = sum(found["image"][i] is not None for i in near)
    assert page.inner_text("#map-status").startswith(f"24 images selected, {n} of them")
    assert f" of {n} such images shown" in page.inner_text("#count")
    page.click("#map-clear")
    assert page.inner_text("#count") == all_shown
    page.locator("#map-chart svg").last.scroll_into_view_if_needed()
    box = page.locator("#map-chart > svg").bounding_box()
    corners = [(0.01, 0.01), (0.99, 0.01), (0.99, 0.99), (0.01, 0.99)]
    page.mouse.move(box["x"] + 1, box["y"] + 1)  # a lasso around all of them
    page.mouse.down()
    for x, y in corners:
        page.mouse.move(box["x"] + x * box["width"], box["y"] + y * box["height"], steps=3)
    page.mouse.up()
    assert page.inner_text("#map-status").startswith("240 images selected")
    assert not heard, heard


def test_what_takes_long_says_so_at_once_and_shows_how_far_it_is(
    inside: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
):
    monkeypatch.setattr(console, "SECONDS_BETWEEN_LINES", 0.0)
    image = next(Path("data/tiny/drawn/test-jpg").iterdir())
    (inside.parent / "decision.json").unlink()
    for command in (["decide"], ["report", "--force"], ["explain", str(image), "--to", "seen.png"]):
        capsys.readouterr()
        assert main([command[0], "tiny.toml", *command[1:]]) == 0
        first, *lines = capsys.readouterr().out.splitlines()
        assert (
            first
            == {
                "decide": "decide: tiny, 240 held-out images, 11 labels",
                "report": "report: tiny, 240 held-out images, 11 labels",
                "explain": f"explain: {image}, by tiny, 2 networks",
            }[command[0]]
        )
        for bar in {"decide": ["rules"], "report": ["pictures", "heat maps"], "explain": ["answers"]}[
            command[0]
        ]:
            assert any(line.startswith(f"{bar}: ") and line.endswith(" left") for line in lines), (bar, lines)


def test_what_is_soon_over_is_not_announced(capsys: pytest.CaptureFixture[str]):
    with console.announce_if_slow("soon over", after=60):
        pass
    printed = ""
    with console.announce_if_slow("takes long", after=0):
        while not printed:
            printed = capsys.readouterr().out
    assert printed == "takes long\n"


def test_its_numbers_are_those_of_scikit_learn(inside: Path):
    data, outcome = content_of(inside), read_results(load_recipe("tiny.toml"))
    targets, decisions = outcome.targets, outcome.decisions
    decision = json.loads((inside.parent / "decision.json").read_text())
    assert data["scores"][0]["value"] == decision["scores"]["cross_fitted"]
    assert data["scores"][0]["value"] == pytest.approx(
        fbeta_score(targets, decisions, beta=2, average="samples", zero_division=0)
    )
    for score in data["scores"]:
        n = [(outcome.folds == part["fold"]).sum() for part in score["folds"]]
        mean = np.average([part["value"] for part in score["folds"]], weights=n)
        assert mean == pytest.approx(score["value"])
    for c, row in enumerate(data["classes"]):
        true, chosen = targets[:, c], decisions[:, c]
        assert row["f"] == pytest.approx(fbeta_score(true, chosen, beta=2, zero_division=0))
        assert row["recall"] == pytest.approx(recall_score(true, chosen, zero_division=0))
        if chosen.any():
            assert row["precision"] == pytest.approx(precision_score(true, chosen))
        assert (row["misses"], row["alarms"]) == (int((true > chosen).sum()), int((true < chosen).sum()))
    assert [curve["fold"] for curve in data["curves"]] == [0, 1]
    assert all(len(curve["rows"]) == 8 for curve in data["curves"])


def test_a_second_one_is_made_when_what_was_decided_differs(inside: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["report", "tiny.toml"]) == 0
    assert "done already" in capsys.readouterr().out
    before = inside.read_bytes()
    assert main(["decide", "tiny.toml", "--rule", "global", "--force"]) == 0
    assert main(["report", "tiny.toml"]) == 0
    assert content_of(inside)["rule"] == "global"
    assert main(["decide", "tiny.toml", "--force"]) == 0
    assert main(["report", "tiny.toml"]) == 0
    assert inside.read_bytes() == before


def test_given_thresholds_decide_the_test_images_and_their_score_is_called_in_sample(
    inside: Path, capsys: pytest.CaptureFixture[str], fails: Callable[..., str]
):
    place = inside.parent / "decision.json"
    text, page = place.read_text(), inside.read_bytes()
    before = json.loads(text)
    outcome = read_results(load_recipe("tiny.toml"))
    thresholds = dict.fromkeys(outcome.labels.classes, 0.3) | {outcome.labels.classes[0]: 0.05}
    Path("given.toml").write_text("[thresholds]\n" + "".join(f"{k} = {v}\n" for k, v in thresholds.items()))
    asked = ["decide", "tiny.toml", "--thresholds", "given.toml"]
    assert "--force replaces it" in fails(*asked)
    assert "leave one of the two out" in fails(*asked, "--rule", "global")
    assert "no such file" in fails(*asked[:3], "nowhere.toml", "--force")
    assert json.loads(place.read_text()) == before
    assert main([*asked, "--force"]) == 0
    assert "It is in-sample" in capsys.readouterr().out
    after = json.loads(place.read_text())
    rule = FittedRule(np.array(list(thresholds.values())), min_labels=1)
    score = outcome.scorer.score(outcome.targets, rule.decide(outcome.probs, outcome.scorer))
    assert after["rule"] == "given" and after["thresholds"] == thresholds
    assert after["scores"] == before["scores"] | {"in_sample": score}
    assert after["by_fold"] == before["by_fold"] and after["given"]["automatic"] == before["rule"]
    assert main(["decide", "tiny.toml", "--thresholds", "given.toml"]) == 0
    assert "done already" in capsys.readouterr().out
    for stage in ("submit", "report"):
        assert main([stage, "tiny.toml"]) == 0
    assert "decided by given thresholds" in capsys.readouterr().out
    test = load(path_of_test("tiny"), outcome.labels.classes)
    expected = rule.decide(test.probs, outcome.scorer)
    sent = json.loads(max(Path("submissions").glob("*.json"), key=lambda p: p.stat().st_mtime).read_text())
    assert sent["decision"]["thresholds"] == thresholds and "cross_fitted" not in sent["scores"]
    assert not ledger.read()[-1]["cross_fitted"] and ledger.read()[-1]["public"]
    assert main(["submit", "tiny.toml"]) == 0  # what is written already has no such score either
    data = content_of(inside)
    assert data["lab"]["given"]["automatic"] == before["rule"] and data["lab"]["chosen"][:2] == [0.05, 0.3]
    assert data["labels_an_image"]["test"] == pytest.approx(expected.sum(1).mean())
    place.write_text(text)
    inside.write_bytes(page)


def test_without_models_it_has_no_heat_maps_and_without_a_decision_it_says_what_to_run(
    inside: Path, browser: Any, tmp_path: Path, fails: Callable[..., str]
):
    kept = {path: path.read_bytes() for path in inside.parent.glob("fold*/model.safetensors")}
    try:
        for path in kept:
            path.unlink()
        assert main(["report", "tiny.toml", "--force"]) == 0
        assert not any(image["maps"] for image in content_of(inside)["images"])
        check_report(browser, inside)
    finally:
        for path, data in kept.items():
            path.write_bytes(data)
        assert main(["report", "tiny.toml", "--force"]) == 0
    assert "run `comp decide` first" in fails("report", "tiny.toml", "--set", "name=other")


def test_each_kind_of_run_has_its_page(inside: Path, browser: Any, capsys: pytest.CaptureFixture[str]):
    """One fold alone, expected F-beta, one of several labels, a blend of two recipes, two networks of other
    settings now than those that predicted."""
    runs = inside.parents[1]
    one = ["tiny.toml", "--folds", "0", "--set", "name=one"]
    shutil.copytree(runs / "tiny" / "fold0", runs / "one" / "fold0")
    for stage in ("blend", "decide", "report"):
        assert main([stage, *read_by(stage, [*one])]) == 0
    data = content_of(runs / "one" / "report.html")
    assert data["n_folds"] == 1 and all(len(row["by_part"]) == 5 for row in data["classes"])
    decision = json.loads((runs / "one" / "decision.json").read_text())
    assert data["scores"][0]["folds"] == [{"fold": 0, "value": decision["scores"]["cross_fitted"]}]
    check_report(browser, runs / "one" / "report.html")
    capsys.readouterr()
    assert main(["compare", "one", "tiny"]) == 0
    assert f"A one   {decision['scores']['cross_fitted']:.4f}" in capsys.readouterr().out

    for image in data["images"][:4]:  # by the rule that was fitted without its fifth, as explain has it
        path = Path("data/tiny/drawn/train-jpg") / f"{image['id']}.jpg"
        recipe = load_recipe("tiny.toml", ["name=one"])
        query = with_training_labels(read_query(path, recipe, decision), recipe, decision, [0])
        rules = [row["by_part"][image["part"]] for row in data["classes"]]
        assert [query.rule.threshold_of(c) for c in range(len(rules))] == rules

    assert main(["decide", *read_by("decide", one), "--rule", "expected", "--force"]) == 0
    assert main(["report", *read_by("report", one)]) == 0
    data = content_of(runs / "one" / "report.html")
    assert all(row["threshold"] is None and set(row["by_part"]) == {None} for row in data["classes"])
    check_report(browser, runs / "one" / "report.html")

    shutil.copytree(runs / "tiny", runs / "other")
    Path("other.toml").write_text('extends = "tiny.toml"\nname = "other"\n')
    assert main(["blend", "tiny.toml", "other.toml", "--name", "mix", "--how", "mean"]) == 0
    for stage in ("decide", "report"):
        assert main([stage, *read_by(stage, ["mix"])]) == 0
    data = content_of(runs / "mix" / "report.html")
    assert [network[0] for network in data["networks"]] == ["test_resnet"] * 2 and data["maps_by"] == "tiny"
    assert {curve["run"] for curve in data["curves"]} == {"tiny", "other"}
    check_report(browser, runs / "mix" / "report.html")
    for stage in ("predict", "blend"):
        assert main([stage, *read_by(stage, ["other.toml", "--set", "views=identity", "--force"])]) == 0
    capsys.readouterr()
    assert main(["report", "mix", "--force"]) == 0
    assert "other was trained or predicted again since it was blended" in capsys.readouterr().out
    assert {curve["run"] for curve in content_of(runs / "mix" / "report.html")["curves"]} == {"tiny"}


def test_ticks_of_two_rounds_are_one_file(inside: Path, browser: Any, fails: Callable[..., str]):
    """A label is ticked beside its image; one that holds replaces the others of its group. The report of a
    run with corrections shows them as ticks, and its file holds those of both rounds."""
    runs, key = inside.parents[1], "competition.labels.corrections"
    weather = ["clear", "partly_cloudy", "haze", "cloudy"]
    sets = ["tiny.toml", "--set", f"competition.labels.exclusive=[{weather}]"]
    shutil.copytree(runs / "tiny", runs / "first")
    for stage in ("decide", "report"):
        assert main([stage, *sets, "--set", "name=first", "--force"]) == 0
    data = content_of(runs / "first" / "report.html")
    page, heard = opened(browser, runs / "first" / "report.html", accept_downloads=True)
    names = [row["name"] for row in data["classes"]]
    images = {image["id"]: image for image in data["images"]}
    page.locator("#gallery button").first.click()
    first = images[page.inner_text("#viewer-title")]
    now = next(name for name in weather if names.index(name) in first["true"])
    other = weather[weather.index(now) - 1]
    box_of(page, names.index(now)).get_by_role("button", name="wrong").click()
    assert first["id"] in page.text_content("#ticks-warning")
    Path("half.csv").write_text(download(page))
    said = fails("train", *sets, "--set", f"{key}=half.csv", "--set", "name=half")
    assert f"{first['id']!r} is left with none of 4" in said
    box_of(page, names.index(other)).get_by_role("button", name="wrong").focus()
    page.keyboard.press("Enter")
    assert page.text_content("#ticks-warning") == "" and not heard
    check_accessible(page)
    Path("first.csv").write_text(download(page))
    shutil.copytree(runs / "first", runs / "second")
    for stage in ("decide", "report"):
        assert main([stage, *sets, "--set", "name=second", "--set", f"{key}=first.csv", "--force"]) == 0
    before = read_corrections(load_recipe("tiny.toml", [f"{key}=first.csv"]).competition)
    assert {(one.id, one.label, one.value) for one in before} == {
        (first["id"], now, 0),
        (first["id"], other, 1),
    }

    page, heard = opened(browser, runs / "second" / "report.html", accept_downloads=True)
    assert page.inner_text("#ticks-count") == "2 ticks: 2 wrong."
    assert all(text in page.inner_text("#scores") for text in ("Corrected labels", "2 labels of 1 image"))
    page.locator("#ticked summary").click()
    page.locator("#ticked tbody tr").first.wait_for()  # the browser tells a page later that a list is open
    assert page.locator("#ticked tbody tr").count() == 2
    page.locator("#ticked .ticks [aria-pressed=true]").first.click()  # taken back
    page.locator("#ticked .ticks").first.get_by_role("button", name="unsure").click()
    page.locator("#gallery button").nth(1).click()
    second = page.inner_text("#viewer-title")
    box_of(page, names.index("water")).get_by_role("button", name="right").click()
    Path("second.csv").write_text(download(page))
    after = read_corrections(load_recipe("tiny.toml", [f"{key}=second.csv"]).competition)
    assert {one.id for one in after} == {first["id"], second} and len(after) == 3
    assert sum(one.value is None for one in after) == 1
    assert len({(one.id, one.label, one.value) for one in (*before, *after)}) == 4  # one is as it was
    assert not heard


def box_of(page: Any, label: int) -> Any:
    """The buttons of a label beside the opened image, which is asked for where the table lacks it."""
    if not page.locator(f'#viewer-labels [data-class="{label}"]').count():
        page.select_option("#viewer-labels select", str(label))
    return page.locator(f'#viewer-labels [data-class="{label}"]')


def test_networks_that_were_trained_again_explain_nothing(inside: Path, capsys: pytest.CaptureFixture[str]):
    runs = inside.parents[1]
    shutil.copytree(runs / "tiny", runs / "again")
    settings = ["tiny.toml", "--set", "name=again"]
    assert main(["report", *settings, "--force"]) == 0
    assert len(content_of(runs / "again" / "report.html")["curves"]) == 2
    started = runs / "again" / "fold1" / "started.json"
    content = json.loads(started.read_text())
    content["stamp"]["seed"] = content["recipe"]["seed"] = 7
    started.write_text(json.dumps(content))
    (runs / "again" / "fold0" / "log.jsonl").write_text("")  # as a training leaves it that has just begun
    capsys.readouterr()
    assert main(["report", *settings, "--force"]) == 0
    assert "again, fold 1 was trained or predicted again; left out" in capsys.readouterr().out
    data = content_of(runs / "again" / "report.html")
    assert not data["curves"] and {image["fold"] for image in data["images"] if image["maps"]} == {0}


def test_one_label_an_image_has_its_page(here: Path, browser: Any):
    weather = 'classes = ["clear", "partly_cloudy", "haze", "cloudy"]\nsingle = true'
    rows = ["image,tags"]
    for split, n in (("train", 60), ("test", 12)):
        (here / split).mkdir()
        for i in range(n):
            pixels = np.full((24, 24, 3), 20 + 60 * (i % 4), np.uint8)
            Image.fromarray(pixels + np.random.default_rng(i).integers(0, 60, pixels.shape, np.uint8)).save(
                here / split / f"{split}{i}.png"
            )
    rows += [f"train{i},{['clear', 'partly_cloudy', 'haze', 'cloudy'][i % 4]}" for i in range(60)]
    (here / "train.csv").write_text("\n".join(rows) + "\n")
    (here / "sample.csv").write_text("image,tags\n" + "".join(f"test{i},clear\n" for i in range(12)))
    (here / "one.toml").write_text(
        f'name = "one"\n[labels]\ncsv = "train.csv"\nid = "image"\ncolumn = "tags"\n{weather}\n'
        '[images]\ntrain = "train/{id}.png"\ntest = "test/{id}.png"\n[submission]\nsample = "sample.csv"\n'
    )
    sets = ["backbone=test_resnet", "pretrained=false", "n_folds=2", "views=identity"]
    sets += ["phases=[{size=24,epochs=2,batch_size=8}]"]
    run_all("one.toml", "--from", ".", *(word for change in sets for word in ("--set", change)))
    path = here / "runs" / "one" / "report.html"
    data = content_of(path)
    assert data["single"] and all(row["threshold"] is None for row in data["classes"])
    check_report(browser, path)


def test_names_that_look_like_markup_stay_text(here: Path, browser: Any):
    rows = ["image,tags"]
    rng = np.random.default_rng(0)
    names = ["<script>alert(1)</script>", "a&b", '"quoted"', "</script>", "plain"]
    for split, n in (("train", 40), ("test", 12)):
        (here / split).mkdir()
        for i in range(n):
            Image.fromarray(rng.integers(0, 256, (24, 24, 3), np.uint8)).save(
                here / split / f"{split}{i}.png"
            )
    rows += [
        f'train{i},"{(names[i % 5] + ";" + names[i * 3 % 5 - 4]).replace(chr(34), chr(34) * 2)}"'
        for i in range(40)
    ]
    (here / "train.csv").write_text("\n".join(rows) + "\n")
    (here / "sample.csv").write_text("image,tags\n" + "".join(f"test{i},plain\n" for i in range(12)))
    (here / "odd.toml").write_text(
        'name = "odd"\n[labels]\ncsv = "train.csv"\nid = "image"\ncolumn = "tags"\nseparator = ";"\n'
        f"classes = {json.dumps(names)}\n"
        '[images]\ntrain = "train/{id}.png"\ntest = "test/{id}.png"\n[submission]\nsample = "sample.csv"\n'
    )
    sets = [
        "backbone=test_resnet",
        "pretrained=false",
        "n_folds=2",
        "phases=[{size=32,epochs=1,batch_size=8}]",
    ]
    run_all("odd.toml", "--from", ".", *(word for change in sets for word in ("--set", change)))
    page, heard = opened(browser, here / "runs" / "odd" / "report.html")
    assert not heard
    assert set(page.locator("#classes-table tbody th").all_inner_texts()) == set(names)


def test_the_real_uc_merced_in_a_browser(here: Path, shared: Path, browser: Any):
    with zipfile.ZipFile(shared / "ucmerced" / "ucmerced.zip") as archive:
        archive.extractall(here / "files")
    (here / "ucmerced.toml").write_bytes((ROOT / "tests" / "ucmerced.toml").read_bytes())
    sets = ["backbone=test_resnet", "pretrained=false", "n_folds=2", "views=identity"]
    sets += ["phases=[{size=32,epochs=3,lr=5e-3}]"]
    run_all("ucmerced.toml", "--from", "files", *(word for change in sets for word in ("--set", change)))
    path = here / "runs" / "ucmerced" / "report.html"
    check_report(browser, path, looks=True)
    assert len(content_of(path)["images"]) == 480


def test_the_real_planet_in_a_browser(here: Path, shared: Path, kaggle: FakeKaggle, browser: Any):
    old_planet(kaggle, shared, n_images=500)
    sets = ["n_folds=2", "n_trials=5", "views=identity", "phases=[{size=32,epochs=4,lr=5e-3}]"]
    run_all("planet32", *(word for change in sets for word in ("--set", change)))
    check_report(browser, here / "runs" / "planet32" / "report.html", looks=True)


def test_calibration_curves_and_counts_against_their_definitions():
    rng = np.random.default_rng(0)
    probs = rng.random((5000, 3)).astype(np.float32)
    targets = (rng.random((5000, 3)) < probs**1.5).astype(np.uint8)
    shares, means = calibration_curve(targets.ravel(), probs.ravel(), n_bins=10)
    found = calibration(probs, targets)
    assert [b["share"] for b in found["bins"]] == pytest.approx(list(shares), abs=1e-3)
    assert [b["p"] for b in found["bins"]] == pytest.approx(list(means), abs=1e-3)
    n = np.array([b["n"] for b in found["bins"]])
    assert found["error"] == pytest.approx(np.average(np.abs(shares - means), weights=n), abs=1e-3)
    both = count_cooccurrences(targets)
    assert both[0, 1] == (targets[:, 0] & targets[:, 1]).sum() and both[2, 2] == targets[:, 2].sum()
    p = probs[0].astype(float)
    assert log_losses(probs, targets)[0] == pytest.approx(
        -np.log(np.where(targets[0], p, 1 - p)).sum(), rel=1e-5
    )


def test_a_label_that_test_images_have_more_often_is_warned_of():
    class Outcome:
        decisions = np.zeros((4000, 3), np.uint8)
        targets = decisions

        class labels:
            classes = ("stable", "rare", "drifting")

    rng = np.random.default_rng(0)
    Outcome.decisions = (rng.random((4000, 3)) < [0.3, 0.002, 0.10]).astype(np.uint8)
    test = (rng.random((6000, 3)) < [0.3, 0.003, 0.16]).astype(np.uint8)
    assert [row["warn"] for row in drift(Outcome, test, range(3))] == [False, False, True]  # type: ignore[arg-type]


def test_the_gallery_holds_the_worst_of_every_class():
    rng = np.random.default_rng(0)
    targets = (rng.random((3000, 8)) < 0.2).astype(np.uint8)
    probs = np.clip(targets * 0.5 + rng.normal(0.2, 0.2, targets.shape), 0, 1).astype(np.float32)
    decisions, losses = (probs > 0.4).astype(np.uint8), log_losses(probs, targets)
    rows = gallery(losses, label_queues(probs, targets, decisions), [7, 7, 9], 200, 0)
    assert len(rows) == len(set(rows.tolist())) == 200 and {7, 9} <= set(rows.tolist())
    for c in range(8):
        missed = np.flatnonzero((targets[:, c] == 1) & (decisions[:, c] == 0))
        alarms = np.flatnonzero((targets[:, c] == 0) & (decisions[:, c] == 1))
        assert {missed[probs[missed, c].argmin()], alarms[probs[alarms, c].argmax()]} <= set(rows.tolist())
    assert losses.argmax() in rows
    of_400 = (np.repeat(matrix, 50, 1) for matrix in (probs, targets, decisions))
    assert set(np.argsort(-losses)[:20].tolist()) <= set(
        gallery(losses, label_queues(*of_400), [7], 200, 0).tolist()
    )
    few = label_queues(probs[:20], targets[:20], decisions[:20])
    assert sorted(gallery(losses[:20], few, [], 200, 0)) == list(range(20))


def plant(path: Path, label: str) -> list[str]:
    """Turn round the label `label` of 5 % of the images that the CSV file `path` lists; their names."""
    lines = path.read_text().splitlines()
    planted = np.random.default_rng(0).choice(len(lines) - 1, (len(lines) - 1) // 20, replace=False) + 1
    for i in planted.tolist():
        name, tags = lines[i].split(",")
        kept = [tag for tag in tags.split() if tag != label]
        lines[i] = f"{name},{' '.join(kept if len(kept) < len(tags.split()) else [*kept, label])}"
    path.write_text("\n".join(lines) + "\n")
    return [lines[i].split(",")[0] for i in planted.tolist()]


def test_planted_label_errors_are_the_first_suspects(
    here: Path, browser: Any, capsys: pytest.CaptureFixture[str]
):
    """5 % of the labels of one class of the demo are turned round before anything is trained."""
    sets = ["phases=[{size=32,epochs=8,lr=5e-3,batch_size=32}]", "n_folds=2", "views=identity"]
    words = [word for change in sets for word in ("--set", change)]
    assert main(["download", "demo"]) == 0
    turned = plant(here / "data" / "demo" / "drawn" / "train.csv", "agriculture")
    for stage in ("folds", "train", "predict", "blend", "decide", "report"):
        assert main([stage, *read_by(stage, ["demo", *words])]) == 0
    data = content_of(here / "runs" / "demo" / "report.html")
    label = [row["name"] for row in data["classes"]].index("agriculture")
    hits = [s["label"] == label and s["id"] in turned for s in data["suspects"][:50]]
    assert sum(hits) > 25, sum(hits)
    check_report(browser, here / "runs" / "demo" / "report.html")
    check_suspects(here, browser, set(turned), capsys)


def check_suspects(here: Path, browser: Any, turned: set[str], capsys: pytest.CaptureFixture[str]) -> None:
    """`comp suspects` lists those of the page. They are ticked by keyboard and mouse, and the file of ticks
    says what the truth is; a decision is then scored both ways."""
    path = here / "runs" / "demo" / "report.html"
    data = content_of(path)
    capsys.readouterr()
    assert main(["suspects", "demo"]) == 0
    printed = capsys.readouterr().out.splitlines()
    assert all(len(line) <= 80 for line in printed) and data["suspects"][0]["id"] in printed[2]
    listed = pd.read_csv(here / "runs" / "demo" / "suspects.csv")
    assert listed.columns.tolist() == ["id", "label", "given", "probability", "doubt", "fold"]
    assert listed["id"].tolist()[:500] == [suspect["id"] for suspect in data["suspects"]]
    page, heard = opened(browser, path, accept_downloads=True)
    wrong = [
        suspect["id"] in turned and data["classes"][suspect["label"]]["name"] == "agriculture"
        for suspect in data["suspects"][:50]
    ]
    page.fill("#who", "=me, myself")
    page.locator("#suspects-table .ticks button").first.focus()
    for is_wrong in wrong[:25]:  # each key goes to the next row
        page.keyboard.press("w" if is_wrong else "r")
    boxes = page.locator("#suspects-table .ticks")
    for i in range(25, len(wrong)):
        boxes.nth(i).get_by_role("button", name="wrong" if wrong[i] else "right").click()
    page.reload()
    assert not heard
    n_wrong = sum(wrong)
    said = f"{len(wrong)} ticks: {n_wrong} wrong, {len(wrong) - n_wrong} right."
    assert page.inner_text("#ticks-count") == said
    text = download(page)
    Path("corrections.csv").write_text(text)
    recipe = load_recipe("demo", ["competition.labels.corrections=corrections.csv"])
    assert {one.who for one in read_corrections(recipe.competition)} == {"=me, myself"}
    words = ["--set", "competition.labels.corrections=corrections.csv", "--rule", "global", "--force"]
    words += ["--set", "n_folds=2"]
    assert main(["decide", "demo", *words]) == 0
    assert f"({n_wrong} labels of {n_wrong} images differ)" in capsys.readouterr().out
    results = read_results(recipe.model_copy(update={"n_folds": 2, "rule": "global"}))
    scores = results.decision["scores"]
    truth = results.targets.copy()
    for suspect in (s for s, is_wrong in zip(data["suspects"], wrong) if is_wrong):
        row = results.ids.tolist().index(suspect["id"])
        truth[row, suspect["label"]] = 1 - truth[row, suspect["label"]]
    for value, targets in ((scores["cross_fitted"], results.targets), (scores["corrected"], truth)):
        assert value == pytest.approx(
            fbeta_score(targets, results.decisions, beta=2, average="samples", zero_division=0)
        )
    assert scores["corrected"] > scores["cross_fitted"]


@pytest.mark.parametrize("learned", [False, True])
def test_doubts_promise_no_more_than_holds(learned: bool):
    """Of labels that are drawn from known probabilities and turned round at known rates; the network knows
    the true probabilities, or those of the labels as they are given."""
    rng = np.random.default_rng(0)
    invented, missed = np.array([0.02, 0.05, 0, 0]), np.array([0.02, 0.3, 0.1, 0])
    truth = 1 / (1 + np.exp(-rng.normal([0, -3, -1, 0], [6, 4, 6, 2], (20_000, 4))))
    true = rng.random(truth.shape) < truth
    wrong = rng.random(truth.shape) < np.where(true, missed, invented)
    given = (true ^ wrong).astype(np.uint8)
    probs = (1 - missed) * truth + invented * (1 - truth) if learned else truth
    rows, classes, doubts = find_label_errors(probs, given)
    found = wrong[rows, classes]
    assert (np.diff(doubts) <= 0).all() and doubts.min() > 0.5 and doubts.max() <= 1
    assert found.mean() > doubts.mean() and found[classes < 2].mean() > 0.95
    assert found.sum() > (200 if learned else 1000)
    assert (classes == 3).sum() < 80  # none is wrong, though many are uncertain
    doubts = find_label_errors(np.eye(2, dtype=np.float32)[[0, 1] * 50], np.ones((100, 2), np.uint8))[2]
    assert np.isfinite(doubts).all()  # no division by 0 where probabilities are 0 and 1
