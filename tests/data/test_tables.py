"""Tables as other programs write them: read where they have one meaning, refused with the line where not; and
labels that do not go with the sample submission, which is said before training."""

import gzip
import json
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from comp.artifacts.csv_tables import read_table
from comp.cli.main import main
from comp.config.competition import LabelTable
from comp.config.loading import load_competition, load_recipe
from comp.data.labels import Labels, read_labels
from comp.data.manifest import manifest_stamp, read_manifest
from comp.data.tables import read_probs, read_targets
from comp.errors import CompError
from comp.kaggle.submission_file import check_sample, check_submission, score_on_solution, submission_text
from tests.conftest import read_by

# --- files --------------------------------------------------------------------------------------------------

ROWS = [["a", "red blue"], ["b", ""], ["c", "x, y"]]
PLAIN = 'id,tags\na,red blue\nb,\nc,"x, y"\n'


def write(folder: Path, content: str | bytes, name: str = "t.csv") -> Path:
    (folder / name).write_bytes(content if isinstance(content, bytes) else content.encode())
    return folder / name


@pytest.mark.parametrize(
    "content",
    [
        PLAIN,
        PLAIN.replace("\n", "\r\n"),
        PLAIN.encode("utf-16"),
        PLAIN.encode("utf-8-sig"),
        "id;tags\na;red blue\nb;\nc;x, y\n",
        "id\ttags\na\tred blue\nb\t\nc\tx, y\n",
        'id, tags\na, red blue\nb,\nc, "x, y"\n',
        'id,tags,\na,red blue,\nb,,\nc,"x, y",\n',
        'id,tags\na,red blue,,\nb,\nc,"x, y",\n',
        '\nid,tags\na,red blue\n\nb,\nid,tags\nc,"x, y"\n,\n , \n\n',
    ],
)
def test_a_table_is_read_however_it_is_written(tmp_path: Path, content: str | bytes):
    table = read_table(write(tmp_path, content), ["id"])
    assert list(table) == ["id", "tags"] and table.to_numpy().tolist() == ROWS


def test_a_table_may_be_packed(tmp_path: Path):
    write(tmp_path, gzip.compress(PLAIN.encode()), "t.csv.gz")
    with zipfile.ZipFile(tmp_path / "t.csv.zip", "w") as archive:
        archive.writestr("t.csv", PLAIN)
        archive.writestr("__MACOSX/._t.csv", b"\0")
    for name in ("t.csv.gz", "t.csv.zip"):
        assert read_table(tmp_path / name, []).to_numpy().tolist() == ROWS
    write(tmp_path, (tmp_path / "t.csv.zip").read_bytes()[:90], "t.csv.zip")
    with pytest.raises(CompError, match="cannot be read as CSV"):
        read_table(tmp_path / "t.csv.zip", [])


cells = st.text(st.sampled_from("ab,;|\t\"'\n[é0"), max_size=5)


@given(st.lists(st.tuples(cells, cells), max_size=6))
@settings(max_examples=60, deadline=None)
def test_what_pandas_writes_comes_back(tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]):
    frame = pd.DataFrame(rows, columns=["x", "y"])
    frame.insert(0, "id", [f"i{n}" for n in range(len(rows))])
    path = tmp_path_factory.getbasetemp() / "round.csv"
    frame.to_csv(path, index=False)
    assert read_table(path, ["id", "y"]).to_numpy().tolist() == frame.to_numpy().tolist()


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,tags\na,red\nb,red,blue\n", r"line 3: 3 fields \(b \| red \| blue\).* 2; put"),
        ('id,tags\na,"two\nlines"\nb,red,blue\n', "line 4: 3 fields"),
        ("id,tags\na,red\nb\n", r"line 3: 1 fields \(b\).* 2; is the file"),
        (
            'id,tags\na,red\nb,"red\nc,blue\n',
            "line 3: unexpected end of data; is a quotation mark",
        ),
        ("id,tags,tags\na,red,blue\n", r"columns.* name: 1 \(tags\)"),
        ("id,tags\na,red\n,blue\n", "line 3: no id; give the row an id"),
        ("name,tags\na,red\n", "no column 'id'; it has name, tags"),
        (PLAIN.encode("utf-16-le"), "save it as UTF-8"),
        ("id,tags\na,bleu é\n".encode("latin-1"), "can't decode byte 0xe9.*save it as UTF-8"),
        ("\n , \n\t\n", "it is empty"),
        ("id,tags\n", "no rows"),
    ],
)
def test_a_table_of_no_one_meaning_is_refused_with_the_line(
    tmp_path: Path, content: str | bytes, message: str
):
    table = LabelTable(csv=("t.csv",), id="id", column="tags", empty=True)
    with pytest.raises(CompError, match=message) as error:
        read_labels(write(tmp_path, content), table)
    assert "\n" not in str(error.value)


# --- labels -------------------------------------------------------------------------------------------------


def labels_of(folder: Path, texts: list[str], **keys) -> Labels:
    """Those of a table with the column tags, one row a text."""
    rows = pd.DataFrame({"id": [f"i{n}" for n in range(len(texts))], "tags": texts})
    rows.to_csv(folder / "t.csv", index=False)
    return read_labels(folder / "t.csv", LabelTable(**{"csv": "t.csv", "id": "id", "column": "tags", **keys}))


@pytest.mark.parametrize(
    ("texts", "keys"),
    [
        (["red blue", "red"], {}),
        (["red , blue", "red"], {"separator": ","}),
        (["['red', 'blue']", "['red']"], {}),
        (['["red", "blue"]', '["red"]'], {"separator": ","}),
        (["{'blue', 'red'}", "('red',)"], {}),
        (["'red blue'", "'red'"], {}),
        (['"red|blue"', '"red"'], {"separator": "|"}),
    ],
)
def test_tags_are_read_however_they_are_listed(tmp_path: Path, texts: list[str], keys: dict):
    labels = labels_of(tmp_path, texts, **keys)
    assert (labels.classes, labels.targets.tolist()) == (("blue", "red"), [[1, 1], [0, 1]])


def test_indices_are_read_as_numbers(tmp_path: Path):
    for texts in (["0 2", "1"], ["0.0 2.0", "1.0"], ["[0, 2]", "[1]"]):
        assert labels_of(tmp_path, texts, indices=True).targets.tolist() == [[1, 0, 1], [0, 1, 0]]
    for text in ("²", "-1", "1.5", "1234567", "0|2"):
        with pytest.raises(CompError, match=r"not indices: 1|looks like several"):
            labels_of(tmp_path, ["0", text], indices=True)


@pytest.mark.parametrize(
    ("texts", "keys", "message"),
    [
        (["red", "red|blue"], {}, "line 3: the label 'red|blue' looks like several; set separator = '|'"),
        (["red, blue", "red"], {}, "line 2: the label 'red,' looks like several; set separator = ','"),
        (["red|blue;green", "red"], {"separator": "|"}, "the label 'blue;green' looks like several"),
        (["red\tblue", "red"], {}, "looks like several"),
        (["red/blue", "red", "blue"], {}, "others: 1 (red/blue)"),
        (["red blue", "red", "blue"], {"separator": ","}, "set separator = ' '"),
        (["a b", "a c", "b c", "a b c"], {"separator": ","}, "others: 4 (a b, "),
        (["['red' 'blue']", "['red']"], {}, "write labels as a b,"),
        (["{red,blue}", "{red}"], {"separator": ","}, "has brackets or quotation marks"),
        (["'red' 'blue'", "'red'"], {}, "has brackets or quotation marks"),
        (["red", "nan"], {}, "line 3: the label 'nan' looks like an empty cell"),
        ([f"text{n}" for n in range(12)], {}, "each of its 12 labels"),
    ],
)
def test_what_is_hardly_the_name_of_a_label_is_no_class(
    tmp_path: Path, texts: list[str], keys: dict, message: str
):
    with pytest.raises(CompError) as error:
        labels_of(tmp_path, texts, **keys)
    assert message in str(error.value)
    named = sorted({tag.strip() for text in texts for tag in text.split(keys.get("separator", " "))})
    if not texts[0].startswith(("[", "{")):
        assert labels_of(tmp_path, texts, **keys, classes=named).classes == tuple(named)


def test_names_of_labels_may_hold_what_separates_others(tmp_path: Path):
    names = ["Rods & rings", "Pleural effusion", "Boat (small)", "Cyst, benign"]
    labels = labels_of(tmp_path, ["|".join(names), names[0], names[3]], separator="|")
    assert labels.classes == tuple(sorted(names))
    assert labels_of(tmp_path, ["a|b", "a", "b"], single=True).classes == ("a", "a|b", "b")


def test_columns_of_an_index_are_no_labels(tmp_path: Path):
    table = LabelTable(csv=("t.csv",), id="id")
    for text in (",id,x,y\n7,a,1,0\n3,b,0,1\n", ",Unnamed: 0,id,x,y\n0,7,a,1,0\n1,3,b,0,1\n"):
        labels = read_labels(write(tmp_path, text), table)
        assert (labels.classes, labels.targets.tolist()) == (("x", "y"), [[1, 0], [0, 1]])
    with pytest.raises(CompError, match=r"1 \(Unnamed: 2\); in line 2, Unnamed: 2 is '5'"):
        read_labels(write(tmp_path, "id,x,,y\na,1,5,0\n"), table)


def test_columns_that_are_no_labels_are_ignored_by_name(tmp_path: Path):
    path = write(tmp_path, "id,x,sex,y\na,1,F,0\nb,0,M,1\n")
    with pytest.raises(CompError, match=r"1 \(sex\); in line 2, sex is 'F'; labels.ignore names columns"):
        read_labels(path, LabelTable(csv=("t.csv",), id="id"))
    assert read_labels(path, LabelTable(csv=("t.csv",), id="id", ignore=("sex",))).classes == ("x", "y")
    with pytest.raises(CompError, match="no column 'age'"):
        read_labels(path, LabelTable(csv=("t.csv",), id="id", ignore=("age",)))
    for keys in ({"ignore": "id"}, {"ignore": "sex", "column": "tags"}, {"ignore": "x", "classes": ["x"]}):
        with pytest.raises(ValueError, match="labels.ignore"):
            LabelTable(**{"csv": "t.csv", "id": "id", **keys})


def test_zero_and_one_are_the_same_words_everywhere(tmp_path: Path):
    path = write(tmp_path, "id,x,y\na,1.0,False\nb,TRUE,0\nc,yes,no\n")
    ids, expected = np.array(["a", "b", "c"]), [[1, 0], [1, 0], [1, 0]]
    assert read_labels(path, LabelTable(csv=("t.csv",), id="id", empty=True)).targets.tolist() == expected
    assert read_targets(path, ids, ("x", "y")).tolist() == expected
    for word in ("", "nan", "2", "-1", "0.5"):
        write(tmp_path, f"id,x,y\na,1,0\nb,0,{word}\nc,1,1\n")
        for read in (
            lambda: read_labels(path, LabelTable(csv=("t.csv",), id="id", empty=True)),
            lambda: read_targets(path, ids, ("x", "y")),
        ):
            with pytest.raises(CompError, match=rf"than 0 and 1: 1 \(y\); in line 3, y is '{word}'"):
                read()


# --- tables of another program ------------------------------------------------------------------------------


def test_an_index_is_not_taken_for_the_ids(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    rng = np.random.default_rng(0)
    targets = rng.integers(0, 2, (30, 3))
    frame = pd.DataFrame(targets, columns=list("xyz"))
    frame.insert(0, "image", range(100, 130))
    shuffled = frame.sample(frac=1, random_state=0).reset_index(drop=True)
    shuffled.to_csv(tmp_path / "labels.csv")
    probs = frame.assign(**{name: 0.2 + 0.6 * frame[name] for name in "xyz"})
    probs.to_csv(tmp_path / "probs.csv")
    found = read_probs(tmp_path / "probs.csv")
    assert found.ids.tolist() == [str(n) for n in range(100, 130)] and found.classes == ("x", "y", "z")
    assert read_targets(tmp_path / "labels.csv", found.ids, found.classes).tolist() == targets.tolist()
    shuffled.assign(tags=[" ".join(np.array(list("xyz"))[row == 1]) for row in shuffled[list("xyz")].values])[
        ["image", "tags"]
    ].to_csv(tmp_path / "labels.csv")
    assert read_targets(tmp_path / "labels.csv", found.ids, found.classes).tolist() == targets.tolist()
    assert not capsys.readouterr().out
    pd.DataFrame(found.probs, columns=list("xyz")).to_csv(tmp_path / "probs.csv")
    assert read_probs(tmp_path / "probs.csv").classes == ("x", "y", "z")
    assert "probs.csv: its first column" in capsys.readouterr().out


def test_labels_of_probabilities_are_separated_by_anything(tmp_path: Path):
    ids = np.array(["a", "b"])
    for first in ("x big y", "x,big y", "x; big y", "x|big y", "['x', 'big y']", "'x|big y'"):
        classes = ("x", "big y") if first != "x big y" else ("x", "big", "y")
        path = write(tmp_path, f'id,tags\nb,x\na,"{first}"\n')
        expected = [[1] * len(classes), [1] + [0] * (len(classes) - 1)]
        assert read_targets(path, ids, classes).tolist() == expected


def test_what_is_no_probability_is_named_with_its_line(tmp_path: Path):
    path = write(tmp_path, "id;x;y\na;0.1;0.2\nb;0.1;0,2\n")
    with pytest.raises(CompError, match="probabilities are expected; in line 3, y is '0,2'"):
        read_probs(path)
    write(tmp_path, "id,x\n7.0,1\n", "y.csv")
    with pytest.raises(CompError, match=r"lacks ids of the probabilities: 1 \(7\); it has 1 \(7.0\)"):
        read_targets(tmp_path / "y.csv", np.array(["7"]), ("x",))


# --- labels and sample submission ---------------------------------------------------------------------------

OWN = """
[labels]
csv = "train.csv"
id = "id"
{labels}
[images]
train = "train/{{id}}.png"
test = "test/{{id}}.png"
[submission]
sample = "sample.csv"
{submission}
"""
TAGS = "id,tags\na0,red\na1,blue red\na2,blue\na3,red\n"
COLUMNS = "id,blue,red\na0,0,1\na1,1,1\na2,1,0\na3,0,1\n"


@pytest.fixture
def own(here: Path) -> Callable[..., list[str]]:
    """A competition of these tables and keys; the words that name it."""
    for split in ("train", "test"):
        (here / "src" / split).mkdir(parents=True)
        Image.new("RGB", (8, 8)).save(here / "src" / split / "a0.png")

    def make(train: str, sample: str, labels: str = "", submission: str = "") -> list[str]:
        write(here / "src", train, "train.csv"), write(here / "src", sample, "sample.csv")
        (here / "own.toml").write_text(OWN.format(labels=labels, submission=submission))
        return ["own.toml", "--from", "src"]

    return make


@pytest.mark.parametrize(
    ("train", "sample", "message", "cure"),
    [
        (TAGS, "id,labels\nt,red\n", "set submission.column = 'labels'", ("", 'column = "labels"')),
        (TAGS, "id,blue,red\nt,0,0\n", 'set submission.column = ""', ("", 'column = ""')),
        (TAGS, "name,tags\nt,red\n", "set submission.id", ("", 'id = "name"')),
        (TAGS, ",id,tags\n0,t,red\n", "remove it (to_csv(…, index=False))", None),
        (TAGS, "id,tags\nt,0\n", "labels that no image has: 1 (0)", ('classes = ["blue", "red"]', "")),
        (TAGS, "id,tags\nt,['red']\n", "labels that no image has: 1 (['red'])", None),
        (TAGS, "id,blue,red,green\nt,0,0,0\n", 'column = "" and labels.classes', None),
        (COLUMNS, "id,tags\nt,red\n", "set submission.column = 'tags'", ("", 'column = "tags"')),
        (COLUMNS, "id,blue\nt,0\n", "set labels.ignore = ['red']", ('ignore = "red"\nempty = true', "")),
        (COLUMNS, "id,blue,red,green\nt,0,0,0\n", "columns are 4 (id, blue, red, green)", None),
        (
            COLUMNS.replace("blue", "light blue"),
            "id,tags\nt,red\n",
            "set submission.column = 'tags'",
            ("", 'column = "tags"\nseparator = ";"'),
        ),
    ],
)
def test_a_sample_that_does_not_go_with_the_labels_is_said_at_download(
    here: Path, own, fails, train: str, sample: str, message: str, cure: tuple[str, str] | None
):
    given = 'column = "tags"' if train is TAGS else ""
    assert message in fails("download", *own(train, sample, given))
    assert not (here / "data" / "own" / "manifest.json").exists()
    if cure:
        assert main(["download", *own(train, sample, f"{given}\n{cure[0]}", cure[1])]) == 0


def test_names_that_hold_the_separator_of_the_submission(own, fails):
    words = own(COLUMNS.replace("blue", "light blue"), "id,tags\nt,red\n", "", 'column = "tags"')
    line = fails("download", *words)
    assert "' '" in line and "1 (light blue)" in line


def test_folds_and_train_look_again(own, fails):
    words = own(TAGS, "id,tags\nt,red\n", 'column = "tags"')
    for stage in ("download", "folds"):
        assert main([stage, *read_by(stage, [*words, "--set", "n_folds=2"])]) == 0
    own(TAGS, "id,labels\nt,red\n", 'column = "tags"')
    for stage in ("download", "folds", "train"):
        assert "set submission.column = 'labels'" in fails(
            stage, *read_by(stage, [*words, "--set", "n_folds=2"])
        )


@pytest.mark.parametrize(
    ("train", "sample"), [(COLUMNS, "id,red,blue\nt,0.5,0.5\n"), (TAGS, "id,tags\nt,0.5\n")]
)
def test_a_sample_of_probabilities_is_said(own, capsys: pytest.CaptureFixture[str], train: str, sample: str):
    words = own(train, sample, 'column = "tags"' if train is TAGS else "")
    for _ in range(2):
        assert main(["download", *words]) == 0
        (line,) = [line for line in capsys.readouterr().out.splitlines() if "contains probabilities" in line]
        assert "sample.csv" in line and "comp writes labels" in line


def test_samples_of_labels_are_not_taken_for_others(own):
    words = own(TAGS, "id,tags\nt,\nu,red\nv,green\n", 'column = "tags"')
    assert main(["download", *words]) == 0
    assert main(["download", *own(COLUMNS, "id,red,blue\nt,0,\nu,1.0,0\n")]) == 0


def test_labels_as_texts_are_submitted_as_columns(here: Path, own):
    own("id,tags\na,red\nb,nothing\n", "", 'column = "tags"\nnone = "nothing"', 'column = ""')
    competition = load_competition("own.toml")
    decisions, ids = np.array([[1, 0], [0, 0], [1, 1]], np.uint8), np.array(["t", "u", "v"])
    for header, text in (
        ("id,red,blue", "id,red,blue\nt,0,1\nu,0,0\nv,1,1\n"),
        ("id,nothing,blue,red", "id,nothing,blue,red\nt,0,1,0\nu,1,0,0\nv,0,1,1\n"),
    ):
        sample = write(here, header + "\nt,0,0,0\n"[: 2 * len(header.split(",")) + 1] + "\n", "s.csv")
        assert check_sample(sample, competition, ("blue", "red")) is None
        assert submission_text(decisions, ids, ("blue", "red"), competition, sample) == text
        found = check_submission(text, sample, competition, ("blue", "red"), ids)
        assert found.tolist() == decisions.tolist()


def test_a_drawn_competition_has_texts(here: Path, fails):
    line = fails("download", "tiny.toml", "--set", "competition.submission.column=''")
    assert (
        "tiny is synthetic with labels as texts" in line and not (here / "data" / "tiny" / "drawn").exists()
    )


def test_a_solution_of_columns_is_scored(here: Path, own):
    own(COLUMNS, "id,blue,red\na1,0,0\na0,0,0\n", "", 'solution = "solution.csv"')
    write(here / "src", "id,blue,red,Usage\na0,0,1,Public\na1,1,1,Private\n", "solution.csv")
    assert main(["download", "own.toml", "--from", "src"]) == 0
    recipe = load_recipe("own.toml")
    decisions = np.array([[0, 1], [0, 1]], np.uint8)
    scores = score_on_solution(decisions, ("blue", "red"), recipe, read_manifest(recipe.competition))
    assert scores == pytest.approx({"public": 1.0, "private": 5 / 9})


def test_stamps_do_not_know_of_new_keys(own):
    own(COLUMNS, "id,blue,red\nt,0,0\n")
    stamp = json.dumps(manifest_stamp(load_competition("own.toml"), None))
    assert "ignore" not in stamp and '"column": null' in stamp
