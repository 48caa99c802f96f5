"""Edited, truncated or foreign files that commands read back: one line names file and field, or comp's own
file is made again."""

import io
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from comp.artifacts.decision_schema import Decision
from comp.artifacts.files import read_json, write_json, write_text
from comp.artifacts.paths import checkpoint_path, ledger_path
from comp.artifacts.predictions import Predictions, load
from comp.artifacts.resumable import GrowingArray, read_log
from comp.artifacts.schemas import (
    BlendStamp,
    DuplicatesStamp,
    Manifest,
    Note,
    Pushed,
    RangeTest,
    Submitted,
    TrackedRows,
    TrainingStart,
    User,
)
from comp.artifacts.stamps import difference, is_done, read_safetensors_header, read_spec, read_stamp
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.config.schema import check_fields
from comp.data.image_files import open_cache
from comp.data.tables import read_probs
from comp.decisions.rules import FittedRule
from comp.errors import CompError
from comp.kaggle import ledger
from comp.kaggle.download import read_notes
from comp.kaggle.kernels.kernel import find_owner
from comp.models.network import ModelSpec, create
from comp.models.network import load as load_model
from comp.models.network import save as save_model
from tests.benchmarks.test_speed import trainer_of
from tests.fuzz import fuzz

RULE = FittedRule(np.array([0.2, 0.3]), slopes=np.ones(2), offsets=np.zeros(2)).as_json("ab")
METRIC = {"beta": 2.0, "average": "samples"}
DECISION = {
    **RULE,
    "rule": "expected",
    "metric": "samples F2",
    "by_fold": {"0": {"rule": "expected", **RULE}},
    "thresholds_by_fold": {"a": [0.2], "b": [0.3]},
    "scores": {"default": 0.1, "in_sample": 0.3, "cross_fitted": 0.2},
    "stamp": {"oof": "0", "labels": "1", "folds": "2", "metric": METRIC},
}
PLACE = {"folder": "x", "pattern": "{id}.jpg", "files": 1, "bytes": 1, "digest": "0"}
MANIFEST = {"files": {"labels": "a", "sample": "b"}, "images": {"train": [PLACE], "test": [PLACE]}}
NOTE = {"file": "a", "name": "a", "source": "s", "bytes": 1, "sha256": "0", "mtime_ns": 1}
EPOCH = {"epoch": 1, "size": 16, "lr": 0.1, "loss": 1.0, "valid_loss": 1.0, "mAP": 0.5, "fbeta": 0.5}
EPOCH |= {"images_per_second": 9.0, "seconds": 1.0, "memory": 1}
WHOLE: list[tuple[Any, dict[str, Any]]] = [
    (Decision, DECISION),
    (Manifest, MANIFEST),
    (Note, NOTE),
    (TrainingStart, {"recipe": {"n_folds": 2}, "stamp": {}, "begun": 1}),
    (Submitted, {"scores": {"cross_fitted": 0.5}, "time": "now", "sha256": "0"}),
    (TrackedRows, {"run": "0", "rows": 1}),
    (Pushed, {"kernel": "me/x", "version": 1, "me/data": {"a": "0"}}),
    (RangeTest, {"fold": 0, "phase": 0, "suggested": 0.1, "lowest": 0.2, "rates": [0.1], "smooth": [1]}),
    (BlendStamp, {"members": {"fold 0": "0"}, "folds": [0]}),
    (DuplicatesStamp, {"sets": {"train": "0"}}),
    (User, {"username": "me"}),
]


def changed(content: dict[str, Any], key: str, value: Any) -> dict[str, Any]:
    """The content with the value at a dotted key, or without the key where the value is `...`."""
    content = json.loads(json.dumps(content))
    *parents, last = key.split(".")
    place: Any = content
    for parent in parents:
        place = place[int(parent) if isinstance(place, list) else parent]
    if value is ...:
        del place[last]
    else:
        place[int(last) if isinstance(place, list) else last] = value
    return content


def line_of(path: Path, schema: Any) -> str:
    with pytest.raises(CompError) as caught:
        read_json(path, schema)
    assert len(str(caught.value).splitlines()) == 1 and str(path) in str(caught.value)
    return str(caught.value)


@pytest.mark.parametrize(("schema", "content"), WHOLE, ids=[schema.__name__ for schema, _ in WHOLE])
def test_whole_files_are_read_as_they_stand_also_with_fields_of_later_versions(
    schema: Any, content: dict[str, Any], tmp_path: Path
):
    later = {**content, "of_a_later_version": {"x": [1]}}
    write_json(tmp_path / "x.json", later)
    assert read_json(tmp_path / "x.json", schema) == later


@pytest.mark.parametrize(
    ("schema", "key", "value", "named"),
    [
        (Decision, "thresholds", ..., "'thresholds' is missing"),
        (Decision, "thresholds.a", float("nan"), "'thresholds.a': input should be a finite number"),
        (Decision, "thresholds.a", 1.5, "'thresholds.a': input should be less than or equal to 1"),
        (Decision, "thresholds.a", "0.2", "'thresholds.a': input should be a valid number, found '0.2'"),
        (Decision, "thresholds.a", ..., "slopes have other labels"),
        (Decision, "offsets.b", float("inf"), "'offsets.b'"),
        (Decision, "groups", [["a", "c"]], "groups have a label twice"),
        (Decision, "max_labels", -1, "'max_labels'"),
        (Decision, "by_fold.0.slopes", [], "'by_fold.0.slopes'"),
        (Decision, "by_fold", None, "'by_fold'"),
        (Decision, "thresholds_by_fold.a", ..., "thresholds_by_fold have other labels"),
        (Decision, "scores.cross_fitted", None, "'scores.cross_fitted'"),
        (Decision, "scores.default", float("-inf"), "'scores.default'"),
        (Decision, "stamp", [], "'stamp'"),
        (Decision, "stamp.metric.beta", "2", "'stamp.metric.beta'"),
        (Decision, "elsewhere", float("nan"), "'elsewhere' is nan"),
        (Decision, "elsewhere", "\0", "'elsewhere' has a NUL"),
        (Manifest, "files.labels", None, "'files.labels'"),
        (Manifest, "files.sample", ..., "'files.sample' is missing"),
        (Manifest, "images.train", {}, "'images.train'"),
        (Manifest, "images.test.0.digest", ..., "'images.test.0.digest' is missing"),
        (Manifest, "images.test.0.pattern", "{id}{id.__class__}", "holds {id.__class__}"),
        (Note, "bytes", "many", "'bytes'"),
        (Note, "file", "", "'file'"),
        (TrainingStart, "recipe.n_folds", "2", "'recipe.n_folds'"),
        (TrainingStart, "recipe", ..., "'recipe' is missing"),
        (Submitted, "scores.cross_fitted", "high", "'scores.cross_fitted'"),
        (TrackedRows, "rows", True, "'rows'"),
        (Pushed, "kernel", "../x", "'kernel'"),
        (Pushed, "version", ..., "kernel and version"),
        (RangeTest, "smooth", [], "0 losses for 1 rates"),
        (RangeTest, "suggested", 0, "'suggested'"),
        (BlendStamp, "folds", ["0"], "'folds.0'"),
        (BlendStamp, "folds", [1], "the members are fold 0, and the folds [1]"),
        (DuplicatesStamp, "sets", ["train"], "'sets'"),
        (User, "username", 7, "'username'"),
    ],
)
def test_a_wrong_field_is_named_with_its_file(schema: Any, key: str, value: Any, named: str, tmp_path: Path):
    path = tmp_path / "x.json"
    path.write_text(json.dumps(changed(dict(WHOLE)[schema], key, value)))
    assert named in line_of(path, schema)


@pytest.mark.parametrize(
    "text",
    [b"", b"{", b"[]", b"null", b"7", b"\xff", b'{"a": "\\ud800"}', b"[" * 9999, b"9" * 9999, b'{"a": NaN}'],
)
def test_what_is_no_json_is_one_line(text: bytes, tmp_path: Path):
    (tmp_path / "x.json").write_bytes(text)
    line_of(tmp_path / "x.json", dict[str, Any])


def test_a_key_is_shown_in_no_message(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("KAGGLE_USERNAME", raising=False)
    monkeypatch.setenv("KAGGLE_CONFIG_DIR", str(tmp_path))
    for content in (
        {"username": ["me"], "key": "secret"},
        ["secret"],
        "secret",
        {"key": "secret", "x": 1e999},
    ):
        (tmp_path / "kaggle.json").write_text(json.dumps(content))
        with pytest.raises(CompError) as caught:
            find_owner(None)
        assert "kaggle.json is not a valid kaggle.json" in str(caught.value)
        assert "secret" not in str(caught.value)


def test_a_line_of_a_log_is_named(here: Path):
    path = Path("runs/tiny/fold0/log.jsonl")
    for row, named in (
        ({**EPOCH, "mAP": float("nan")}, "log.jsonl, line 2: 'mAP'"),
        ({**EPOCH, "images_per_second": 0}, "line 2: 'images_per_second'"),
        ({**EPOCH, "memory": "much"}, "line 2: 'memory'"),
        ([], "line 2: input should be"),
    ):
        write_text(path, json.dumps(EPOCH) + "\n" + json.dumps(row) + "\n")
        with pytest.raises(CompError, match=named):
            read_log("tiny", 0)
    write_text(path, json.dumps({**EPOCH, "mAP": None, "later": 1}) + "\n")
    assert read_log("tiny", 0)[0]["later"] == 1


# --- what stands in other files


PROBS = Predictions(np.array(["i", "j"]), ("a", "b"), np.array([[0.1, 0.2], [0.3, 1.0]], np.float32))


def npz(path: Path, **changes: Any) -> None:
    arrays = {"ids": PROBS.ids, "classes": np.array(["a", "b"]), "probs": PROBS.probs, "stamp": "{}"}
    np.savez(path, **{key: value for key, value in (arrays | changes).items() if value is not None})


@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"probs": np.full((2, 2), np.nan, "f4")}, "outside of 0 to 1"),
        ({"probs": np.full((2, 2), 3.0, "f4")}, "outside of 0 to 1"),
        ({"probs": np.ones((2, 3), "f4")}, "(2, 3) numbers for 2 ids"),
        ({"probs": np.ones(2, "f4")}, "probabilities (N, C) are expected in 'probs'"),
        ({"probs": np.ones((2, 2), "c8")}, "expected in 'probs'"),
        ({"probs": PROBS.probs.astype(object)}, "allow_pickle"),
        ({"probs": None}, "expected in 'probs'"),
        ({"ids": np.array(["i", "i"])}, "more than once: 1 (i)"),
        ({"ids": np.array([1, 2])}, "texts are expected in 'ids'"),
        ({"ids": np.array("i")}, "texts are expected in 'ids'"),
        ({"classes": np.array([["a", "b"]])}, "texts are expected in 'classes'"),
    ],
)
def test_predictions_that_are_none_are_refused(changes: dict[str, Any], named: str, tmp_path: Path):
    npz(tmp_path / "x.npz", **changes)
    with pytest.raises(CompError) as caught:
        load(tmp_path / "x.npz", "ab")
    assert named in str(caught.value) and "x.npz" in str(caught.value)


def test_npz_files_of_other_programs_are_refused_in_words(tmp_path: Path):
    path = tmp_path / "x.npz"
    for changes, named in (
        ({"probs": np.array(0.5)}, r"probs are float64 \(\)"),
        ({"probs": np.array([["x"]])}, "probs are <U1"),
        ({"ids": np.zeros((2, 2))}, "ids are float64"),
        ({"classes": np.array(["a", "b"], object)}, "allow_pickle"),
    ):
        npz(path, **changes)
        with pytest.raises(CompError, match=named):
            read_probs(path)
    np.save(tmp_path / "x.npy", np.ones(3))
    (tmp_path / "x.npy").rename(path)
    with pytest.raises(CompError, match="cannot be read as npz"):
        read_probs(path)


@pytest.mark.parametrize("stamp", ["[]", "7", "{", "", '{"a": NaN}', '{"a": "\\u0000"}'])
def test_a_wrong_stamp_is_one_line_in_every_kind_of_file(stamp: str, tmp_path: Path):
    npz(tmp_path / "x.npz", stamp=stamp)
    header = json.dumps({"__metadata__": {"stamp": stamp}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    (tmp_path / "x.html").write_text(f"<!doctype html>\n<!--{stamp}-->\n")
    for name in ("x.npz", "x.safetensors", "x.html"):
        with pytest.raises(CompError, match=f"{name}, stamp: "):
            read_stamp(tmp_path / name)


def test_safetensors_with_a_foreign_header_are_one_line(tmp_path: Path):
    path = tmp_path / "x.safetensors"
    for header in (
        [],
        {"a": 1},
        {"a": {"shape": "x"}},
        {"a": {"shape": [-1]}},
        {"__metadata__": {"spec": 1}},
    ):
        text = json.dumps(header).encode()
        path.write_bytes(len(text).to_bytes(8, "little") + text)
        with pytest.raises(CompError, match=r"x\.safetensors"):
            read_safetensors_header(path)
    path.write_bytes(b"\xff" * 7)
    with pytest.raises(CompError, match=r"x\.safetensors is not"):
        read_safetensors_header(path)


def test_a_model_that_does_not_fit_its_own_words_is_refused(tmp_path: Path):
    spec = ModelSpec("test_resnet", ("a", "b"), 3, 16, (0.5,) * 3, (0.2,) * 3, groups=((0, 1),))
    path, model = tmp_path / "x.safetensors", create(spec, pretrained=False)
    save_model(path, model, spec, {})
    assert load_model(path)[1] == spec and read_spec(path)["groups"] == [[0, 1]]
    for change, named in (
        ({"mean": (0.5,)}, "1 means"),
        ({"std": (0.0,) * 3}, "'std.0'"),
        ({"groups": ((0, 2),)}, "beyond the 2 classes"),
        ({"classes": ()}, "'classes'"),
        ({"size": "16"}, "'size'"),
        ({"n_channels": 4, "mean": (), "std": ()}, "is not a comp model"),
    ):
        save_model(path, model, ModelSpec(**{**vars(spec), **change}), {})
        with pytest.raises(CompError, match=named):
            load_model(path)


@pytest.mark.parametrize("damage", ["stamp", "list", "flags", "rows", "shape"])
def test_an_array_whose_parts_are_damaged_is_begun_again(damage: str, tmp_path: Path):
    def opened() -> GrowingArray:
        return GrowingArray(tmp_path / "x.npy", (5, 2), "uint8", {"of": "x"})

    array = opened()
    array.put(np.array([1, 3]), np.ones((2, 2), np.uint8))
    array.rows.flush()
    array.done.flush()
    assert opened().missing().tolist() == [0, 2, 4]
    if damage == "stamp":
        array.meta.write_text("{")
    elif damage == "list":
        array.meta.write_text("[1]")
    elif damage == "flags":
        array.flags.write_bytes(b"\1")
    elif damage == "rows":
        array.partial.write_bytes(b"x" * 200)
    else:
        with array.partial.open("wb") as file:
            np.save(file, np.ones((5, 3), np.uint8))
    assert opened().missing().tolist() == [0, 1, 2, 3, 4]


def test_a_damaged_cache_is_named(tmp_path: Path):
    path = tmp_path / "x.npy"
    np.save(path, np.ones((2, 4, 4, 3), np.uint8))
    assert open_cache(path).shape == (2, 4, 4, 3)
    path.write_bytes(path.read_bytes()[:-9])
    with pytest.raises(CompError, match=r"x\.npy is damaged"):
        open_cache(path)
    np.save(path, np.ones(3))
    with pytest.raises(CompError, match=r"unexpected dtype or shape \(float64"):
        open_cache(path)


def test_a_checkpoint_that_lacks_something_is_damaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("COMP_RUNS", raising=False)
    trainer = trainer_of(tmp_path, monkeypatch)
    trainer.save()
    path = checkpoint_path(trainer.recipe.name, trainer.inputs.fold)
    whole = path.read_bytes()
    assert trainer.resume()
    state = torch.load(path, weights_only=True)
    for changes in (
        {"model": None},
        {"optimizer": {}},
        {"history": "[1]"},
        {"history": json.dumps([EPOCH] * 999)},
        {"n_steps_done": "x"},
        {"n_more_parts": 0},
        {"swa": 5},
        None,
    ):
        buffer = io.BytesIO()
        torch.save([1] if changes is None else state | changes, buffer)
        path.write_bytes(buffer.getvalue())
        with pytest.raises(CompError, match=r"last\.pt.*remove it to train this fold from the start"):
            trainer.resume()
    path.write_bytes(whole)
    assert trainer.resume()


def test_cells_of_the_ledger_that_are_none_are_named(here: Path):
    ledger.add({"time": "now", "name": "x", "recipe": "x", "competition": "c", "cross_fitted": 0.5})
    for cells, named in (
        ({"public": "nan"}, "line 2: public is 'nan'"),
        ({"private": "inf"}, "line 2: private is 'inf'"),
        ({"ref": "-1"}, "line 2: ref is '-1'"),
        ({"sent": "2020-01-01"}, "line 2: sent is '2020-01-01'"),
        ({"status": "sending"}, "line 2: sent is ''"),
    ):
        before = ledger_path().read_bytes()
        ledger.update(ledger.read()[0], **cells)
        with pytest.raises(CompError, match=named):
            ledger.read()
        ledger_path().write_bytes(before)


def test_notes_of_fetched_files_are_checked(tmp_path: Path):
    (tmp_path / ".a.fetched.json").write_text(json.dumps(NOTE))
    assert read_notes(tmp_path) == [NOTE]
    (tmp_path / ".b.fetched.json").write_text(json.dumps({**NOTE, "file": ["a"]}))
    with pytest.raises(CompError, match=r"\.b\.fetched\.json"):
        read_notes(tmp_path)


def test_settings_of_another_form_differ():
    assert difference({"a": {"b": 1}}, {"a.b": 1}).startswith("settings")
    assert len(difference({"a": "x" * 9999}, {"a": 1})) < 300


def test_a_stamp_of_the_rule_drawn_is_that_of_shrunk(tmp_path: Path):
    path = tmp_path / "decision.json"
    write_json(path, {"stamp": {"rule": "drawn+limits", "seed": 1}})
    assert is_done(path, {"rule": "shrunk+limits", "seed": 1}, force=False)
    assert read_stamp(path) == {"rule": "shrunk+limits", "seed": 1}
    with pytest.raises(CompError, match="rule"):
        is_done(path, {"rule": "shrunk", "seed": 1}, force=False)


# --- recipes


@pytest.mark.parametrize("value", ["nan", "inf"])
def test_numbers_of_a_recipe_are_finite(value: str):
    for key in ("phases.0.lr", "clip_norm", "competition.metric.beta"):
        with pytest.raises(CompError, match=key):
            load_recipe("demo", [f"{key}={value}"])
    assert Recipe.model_config["allow_inf_nan"] is False


@pytest.mark.parametrize(
    "template", ["x", "{id!r}", "{id:>9999999999}", "{id", "{id}{0}", "{id.__class__}", "{}"]
)
def test_a_template_holds_an_id_and_nothing_clever(template: str):
    with pytest.raises(ValueError, match="image template"):
        check_fields(template)
    assert check_fields("a/{id}_{channel}.png") == "a/{id}_{channel}.png"


def test_mutated_files_of_all_kinds_end_in_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    """The start of what `python -m tests.fuzz` does for ten minutes."""
    assert fuzz(1, cases=range(12), failures=tmp_path) == 0, capsys.readouterr().out
