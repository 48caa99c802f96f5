"""Names from outside are shown as plain text on a terminal, in pictures, pages and tables; passwords not."""

import csv
import io
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import matplotlib
import numpy as np
import optuna
import pytest
from matplotlib.cbook import is_math_text
from matplotlib.figure import Figure
from matplotlib.text import Text
from PIL import Image
from rich.cells import cell_len

import comp
from comp.cli import main as cli
from comp.cli.main import main
from comp.commands import ledger as ledger_stage
from comp.commands import tune
from comp.commands.compare import show_classes
from comp.config.loading import load_recipe
from comp.console import ProgressBars, info, table
from comp.data.duplicate_groups import Member, groups_csv
from comp.data.duplicates import read_groups
from comp.decisions.class_scores import OwnScores
from comp.decisions.decide import decide
from comp.decisions.metrics import FBeta
from comp.decisions.rules import FittedRule
from comp.errors import CompError, summarize
from comp.evaluation import duplicates_page
from comp.evaluation.explanation import Explanation, Query
from comp.kaggle import client as kaggle_api
from comp.kaggle import ledger
from comp.kaggle.submission_file import submission_text
from comp.plots import adversarial, comparison, explanation, lr_finder, style, thresholds, tuning
from comp.plots import decision as decision_plot
from comp.plots import ledger as ledger_plot
from comp.safe_text import escape_cell, unescape_cell, visible, without_secrets
from comp.tracking.clients import first_line
from comp.training.log_columns import LogColumns
from comp.tuning import study as studies
from comp.tuning.pruning import make_pruner
from comp.tuning.study import SharedStudy, open_storage, storage_name

PASSWORD = "sEcr3tword"
HOSTILE = (
    *(
        r"$\frac{$",
        "$5 to $10",
        r"a\$b",
        "[red]x[/red]",
        "[/]",
        ":smile:",
        "<b>&amp;",
        "=1+1",
        "a\nb",
        "a\tb",
    ),
    *("\x1b[31mred\x1b[0m", "\x9b2J", "abc\u202efed", "a\u2066b", "a\u2028b", "x\x00y", "é" * 100_000),
)


class Screen(io.StringIO):
    """A terminal that keeps what is printed."""

    def isatty(self) -> bool:
        return True

    def text(self) -> str:
        """Return what is printed, without escape sequences."""
        return re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", self.getvalue())


@pytest.fixture
def screen(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Screen]:
    def with_columns(n: int) -> Screen:
        made = Screen()
        monkeypatch.setenv("COLUMNS", str(n))
        monkeypatch.setattr(sys, "stdout", made)
        return made

    return with_columns


# --- terminal


@pytest.mark.parametrize("name", HOSTILE, ids=range(len(HOSTILE)))
def test_a_name_is_one_line_of_characters_that_print(name: str, capsys, screen):
    assert visible(name).isprintable() and len(visible(name)) < 2100
    assert visible("\x1b[2J\u202e\nü 剪刀") == r"\x1b[2J\u202e\nü 剪刀"
    info(f"class {name}, with 3 images")
    said = capsys.readouterr().out
    assert said.endswith("with 3 images\n") and said[:-1].isprintable()
    listed = summarize([name, "other"])
    assert listed.startswith("2 (") and listed.endswith(", other)") and len(listed) < 330
    seen = screen(80)
    table(["class", "score"], [[name, "0.9375"]])
    with ProgressBars() as bars:
        bars.update(name, 1, 2)
        bars.live.refresh()
        bars.update(name, 2, 2)
    title, row, *_ = seen.text().splitlines()
    assert title.split() == ["class", "score"] and row.endswith("  0.9375") and len(row) <= 80
    for text in (row, *(line for line in seen.text().splitlines() if "of 2" in line)):
        assert visible(name, 60)[:3] in text
    assert all(line.isprintable() for line in seen.text().replace("\r", "\n").splitlines())


def test_an_error_about_a_name_is_one_line(here: Path, fails):
    (here / "data").mkdir()
    (here / "p.csv").write_text('id,"a\n\x1b[31mb",c\n1,0.5,0.5\n')
    (here / "l.csv").write_text("id,tags\n1,\u202ed e\n")
    line = fails("decide", "--probs", "p.csv", "--labels", "l.csv")
    assert r"a\n\x1b[31mb" in line and r"\u202ed" in line and line.isprintable()


TABLES: dict[str, tuple[list[str], list[list[str]], int]] = {
    "compare": (
        ["run", "score", "95 %", "minus A", "95 %", "beats A", "mAP", "rule"],
        [
            [
                "A planet-convnext-tiny-384",
                "0.9312",
                "0.9299 0.9340",
                "",
                "",
                "",
                "0.8123",
                "shrunk+exclusive",
            ],
            [
                "B b",
                "0.9324",
                "0.9301 0.9351",
                "+0.0012",
                "-0.0003 +0.0020",
                "97%",
                "0.8241",
                "per-class+limits",
            ],
        ],
        0,
    ),
    "ledger": (
        ["submission", "cross-fitted", "public", "private", "status", "written (UTC)", "message"],
        [
            [
                "planet32-ab12cd34",
                "0.9312",
                "0.9299",
                "0.9301",
                "complete",
                "2024-01-01 10:00",
                "one more " * 9,
            ]
        ],
        6,
    ),
    "decide": (
        ["class", "images", "AP", "threshold", "± folds", "F2"],
        [["Microtubule organizing center", "21,234", "0.9876", "0.123", "0.004", "0.8765"]],
        0,
    ),
    "tune": (
        ["trial", "mAP", "phases.0.lr", "augment", "phases.0.batch_size"],
        [["3 (as it is)", "0.1234", "0.003111", '{"extends": "satellite", "turn": 45}', "16"]],
        0,
    ),
}


@pytest.mark.parametrize("columns", [80, 60, 40])
@pytest.mark.parametrize("name", TABLES)
def test_no_number_of_a_table_is_cut_on_a_narrow_screen(name: str, columns: int, screen):
    seen = screen(columns)
    titles, rows, shortened = TABLES[name]
    table(titles, rows, shortened=shortened)
    printed = seen.text()
    assert max(map(cell_len, printed.splitlines())) <= columns
    for row in rows:
        for number in (cell for cell in row[1:] if re.match(r"[+-]?\d", cell)):
            assert re.search(rf"(?<!\S){re.escape(number)}(?!\S)", printed), number
    for block in printed.strip().split("\n\n"):  # each says whose its numbers are
        assert block.count(rows[0][0][:8]) == 1


def test_a_table_that_fits_is_as_wide_as_its_cells(screen):
    seen = screen(80)
    table(["class", "images", "F2"], [["blow_down", "98", "0.5"], ["water", "7,411", "0.75"]])
    assert [line.rstrip() for line in seen.text().splitlines()] == [
        "class      images    F2",
        "blow_down      98   0.5",
        "water       7,411  0.75",
    ]


@pytest.mark.parametrize("n_runs", [3, 5])
def test_every_score_of_compared_classes_is_there_at_60_columns(n_runs: int, screen):
    seen = screen(60)
    rng = np.random.default_rng(0)
    values = rng.uniform(0.1, 0.9, (2, n_runs, 2))
    labels = SimpleNamespace(classes=("selective_logging_of_everything", "剪刀" * 30))
    joined: Any = SimpleNamespace(labels=labels, targets=np.ones((4, 2)), scorer=FBeta())
    per_class = [OwnScores("F2", 1, of_run) for of_run in values[1]]
    result: Any = SimpleNamespace(precisions=list(values[0]), per_class=per_class)
    show_classes(joined, result, "ABCDE"[:n_runs])
    for value in values.ravel():
        assert f"{value:.4f}" in seen.text()


# --- pictures


@pytest.fixture
def pictures(here: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Callable[[tuple[str, ...]], None]]:
    """Functions that draw each picture of comp with the given names of classes, runs, images and choices."""
    rng = np.random.default_rng(0)
    targets = (rng.random((40, 3)) < 0.5).astype(np.uint8)
    probs = np.clip(0.6 * targets + 0.4 * rng.random((40, 3)), 0.01, 0.99)
    Image.fromarray(np.zeros((8, 8, 3), np.uint8)).save("image.png")
    recipe = load_recipe("tiny.toml")

    def finder(names: tuple[str, ...]) -> None:
        rates = np.geomspace(1e-6, 1, 30)
        losses = 1 + np.linspace(-1, 1, 30) ** 2
        content = {"rates": rates, "losses": losses, "smooth": losses, "phase": 0} | {
            "suggested": 1e-3,
            "lowest": 1e-2,
        }
        lr_finder.draw(recipe.model_copy(update={"name": names[0]}), content, Path("find-lr-0.png"))

    def tuner(names: tuple[str, ...]) -> None:
        space = {
            "phases.0.lr": optuna.distributions.FloatDistribution(1e-4, 1e-2, log=True),
            "weights": optuna.distributions.CategoricalDistribution(names),
        }
        study = SharedStudy("tune.log", "a-1", space, seed=0, pruner=make_pruner(), folder=Path("t"))
        for name, rate in zip(names, (1e-4, 1e-3, 1e-2)):
            params = {"phases.0.lr": rate, "weights": name}
            study.study.add_trial(
                optuna.trial.create_trial(params=params, distributions=space, value=0.5 + 10 * rate)
            )
        tuning.draw(Path("tune.png"), study, 0.55, LogColumns.of(recipe.competition.metric, single=False))

    def decider(names: tuple[str, ...]) -> None:
        decision = decide(probs, targets, rule="global")
        decision_plot.draw(decision, probs, targets, names, Path("decision.png"))

    def confusion(names: tuple[str, ...]) -> None:
        single = np.eye(3, dtype=np.uint8)[rng.integers(3, size=40)]
        figure = thresholds.new_confusion(single, np.roll(single, 1, 0), names, np.arange(3))
        style.save(figure, Path("confusion.png"))

    def comparer(names: tuple[str, ...]) -> None:
        resamples, correlation = 0.9 + 0.01 * rng.random((50, 3)), 0.5 + 0.5 * np.eye(3)
        comparison.draw(
            Path("c.png"), names, [0.9, 0.91, 0.905], resamples, correlation, names[0], "samples F2"
        )

    def explainer(names: tuple[str, ...]) -> None:
        rule = FittedRule(np.full(3, 0.5))
        query = Query(names[0], (Path("image.png"),), np.zeros((8, 8, 3), np.uint8), rule)
        answer = Explanation(
            query, 1, np.array([0.9, 0.4, 0.1]), np.array([1, 0, 0]), [0, 1, 2], np.ones((2, 2, 2))
        )
        explanation.draw([answer], names, names[1], Path("explain.png"))

    def ledgers(names: tuple[str, ...]) -> None:
        rows = [
            {
                "competition": names[0],
                "name": name,
                "cross_fitted": f"0.9{i}",
                "public": f"0.8{i}",
                "private": "",
            }
            for i, name in enumerate(names)
        ]
        Path("submissions").mkdir()
        ledger_plot.draw(rows)

    def adversary(names: tuple[str, ...]) -> None:
        p, images = rng.random(40), [np.zeros((8, 8, 3), np.uint8)] * 3
        adversarial.draw(names[0], p, p, [("first", images, names, [0.5] * 3)], Path("adversarial.png"))

    return {
        "find-lr": finder, "tune": tuner, "decision": decider, "confusion": confusion, "compare": comparer,
        "explain": explainer, "ledger": ledgers, "adversarial": adversary,
    }  # fmt: skip


PICTURES = ("find-lr", "tune", "decision", "confusion", "compare", "explain", "ledger", "adversarial")


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[Figure]:
    """The figures that are saved."""
    found, savefig = [], Figure.savefig

    def saved(self: Figure, *arguments: Any, **settings: Any) -> None:
        savefig(self, *arguments, **settings)
        found.append(self)

    monkeypatch.setattr(Figure, "savefig", saved)
    return found


def read(text: Text) -> str:
    """Return the text of a picture; formulas as matplotlib reads them, without their marks."""
    content = text.get_text()
    if not is_math_text(content):
        return content.replace(r"\$", "$")
    assert text.get_parse_math(), content
    return re.sub(r"\\mathdefault|[${}]", "", content)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", PICTURES)
def test_pictures_show_names_as_they_are_and_rates_as_numbers(name: str, pictures, drawn: list[Figure]):
    before = dict(matplotlib.rcParams)
    names = (r"$\frac{$", "$5 or $10", "a\nb\x1b[31m\u202e")
    pictures[name](names)
    assert dict(matplotlib.rcParams) == before
    (figure,) = drawn
    seen = [read(text) for text in figure.findobj(Text) if text.get_text() and text.get_visible()]
    assert any(r"$\frac{$" in text for text in seen)
    if name not in ("find-lr", "explain"):  # which name a recipe and one image
        assert any("$5 or $10" in text for text in seen)
        assert any(r"a\nb\x1b[31m\u202e" in text for text in seen)
    ticks = [
        read(label)
        for axes in figure.axes
        for label in (*axes.get_xticklabels(), *axes.get_yticklabels(), *axes.get_xticklabels(minor=True))
    ]
    hostile = [text for text in ticks if any(mark in text for mark in "$\\{}")]
    assert {text for text in hostile if not any(visible(name) in text for name in names)} == set()
    if name in ("find-lr", "tune"):
        assert {"0.0001", "0.001", "0.01"} <= set(ticks)
    elif name != "confusion":
        assert any(re.fullmatch(r"−?\d(\.\d+)?", text) for text in ticks)


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("name", ["decision", "explain"])
def test_names_that_no_font_here_has_are_one_line_and_no_warnings(
    name: str, pictures, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", list)
    pictures[name](("剪刀", "止血钳", "镜子"))
    (line,) = capsys.readouterr().out.splitlines()
    assert "boxes" in line and "Noto Sans CJK" in line and ("剪" in line or "刀" in line)


def test_names_are_drawn_by_an_installed_font_that_has_them(
    pictures, drawn: list[Figure], here: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    from fontTools.fontBuilder import FontBuilder
    from fontTools.pens.ttGlyphPen import TTGlyphPen

    def glyph(is_blank: bool = False) -> Any:
        pen = TTGlyphPen(None)
        if not is_blank:
            pen.moveTo((0, 0))
            for point in ((0, 700), (700, 700), (700, 0)):
                pen.lineTo(point)
            pen.closePath()
        return pen.glyph()

    def font(family: str, characters: str, is_blank: bool = False) -> str:
        builder = FontBuilder(1000, isTTF=True)
        builder.setupGlyphOrder([".notdef", *(f"g{i}" for i in range(len(characters)))])
        builder.setupCharacterMap({ord(c): f"g{i}" for i, c in enumerate(characters)})
        builder.setupGlyf({name: glyph(is_blank) for name in builder.font.getGlyphOrder()})
        builder.setupHorizontalMetrics(dict.fromkeys(builder.font.getGlyphOrder(), (800, 0)))
        builder.setupHorizontalHeader(ascent=800, descent=-200)
        builder.setupNameTable({"familyName": family, "styleName": "Regular", "psName": family})
        builder.setupOS2()
        builder.setupPost()
        builder.save(here / f"{family}.ttf")
        return str(here / f"{family}.ttf")

    (here / "broken.ttf").write_bytes(b"no font")
    fonts = [
        str(here / "broken.ttf"),
        font("CompLastResort", "剪刀止血钳"),
        font("ABlankOne", "剪刀止血钳", is_blank=True),
        font("CompTestSans", "剪刀止血"),
    ]
    monkeypatch.setattr("matplotlib.font_manager.findSystemFonts", lambda: fonts)
    pictures["decision"](("剪刀", "止血钳", "ä"))
    assert "1 (钳)" in capsys.readouterr().out
    (text, *_) = [text for text in drawn[-1].findobj(Text) if text.get_text().startswith("剪刀")]
    assert text.get_fontfamily()[-1] == "CompTestSans" and len(drawn) == 2
    pictures["confusion"](("剪刀", "止血", "ä"))
    assert not capsys.readouterr().out


def test_long_names_leave_room_for_the_picture(pictures, drawn: list[Figure]):
    long = tuple(letter * 100_000 for letter in "abc")
    for name in ("decision", "confusion", "explain"):
        pictures[name](long)
        assert all(len(text.get_text()) < 300 for text in drawn[-1].findobj(Text))
    panel = drawn[1].axes[0].get_window_extent()
    assert panel.width > 80 and panel.height > 80


# --- tables


@pytest.mark.parametrize(
    "text",
    [
        "=1+1",
        "+cmd|' /C calc'!A0",
        "-2+3",
        "@SUM(A1)",
        "\t=1",
        "\r=1",
        "＝1+1",
        "'=1",
        "''-x",
        "'plain",
        "plain",
        "",
    ],
)
def test_no_cell_for_people_begins_a_formula_and_all_are_read_back(text: str):
    assert not re.match(r"[=+\-@\t\r＝]", escape_cell(text)) and unescape_cell(escape_cell(text)) == text
    assert (escape_cell(text) == text) == (text in ("'plain", "plain", ""))


def test_numbers_are_no_formulas():
    assert [escape_cell(text) for text in ("-5", "+0.5", "-1e-3", "0.9")] == ["-5", "+0.5", "-1e-3", "0.9"]


def test_the_ledger_keeps_scores_whole_and_messages_harmless(here: Path):
    ledger.add({"time": ledger.now(), "name": "a", "cross_fitted": 0.88855, "public": 2 / 3, "message": ""})
    row = ledger.update(ledger.read()[0], message="=cmd()", public=0.1 + 0.2)
    assert row["message"] == "=cmd()" and ledger.read() == [row]
    assert float(row["public"]) == 0.1 + 0.2 and float(row["cross_fitted"]) == 0.88855
    assert "'=cmd()" in (here / "submissions/ledger.csv").read_text()


@pytest.mark.parametrize("score", [0.88855, 0.888549, 0.8885499, 0.12345, 0.00005])
def test_the_ledger_shows_the_score_that_submit_showed(score: float, here: Path, capsys):
    from comp.commands.submit import show_scores

    ledger.add({"time": ledger.now(), "name": "a", "competition": "c", "cross_fitted": score})
    show_scores(load_recipe("tiny.toml").competition, {"cross_fitted": score})
    shown = capsys.readouterr().out.split()[-1]
    assert ledger_stage._line(ledger.read()[0])[1] == shown == f"{score:.4f}"


def test_ids_in_the_duplicates_are_read_back_whatever_they_are(here: Path):
    ids = ["=1+1", "-abc", "a,b", 'a"b', "'=x", "plain"]
    images: Any = SimpleNamespace(name="train", ids=np.array(ids))
    rows = [Member(images, row, None, 1.0) for row in range(len(ids))]
    Path("folds").mkdir()
    Path("folds/tiny-duplicates.csv").write_text(groups_csv([rows]))
    assert set(read_groups("tiny")) == {("train", name) for name in ids}
    cells = [
        cell for row in csv.reader(Path("folds/tiny-duplicates.csv").read_text().splitlines()) for cell in row
    ]
    assert not [cell for cell in cells if re.match(r"[=+\-@]", cell)]


def test_the_submission_has_the_names_that_kaggle_has(here: Path):
    classes = ("=1+1", "-x", "[red]")
    (here / "sample.csv").write_text("image_name,tags\n")
    competition = load_recipe("tiny.toml").competition
    text = submission_text(
        np.eye(3, dtype=int), np.array(["-a", "=b", "c"]), classes, competition, here / "sample.csv"
    )
    assert text == "image_name,tags\n-a,=1+1\n=b,-x\nc,[red]\n"


# --- pages


def test_pages_hold_names_as_text(here: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(duplicates_page, "thumbnail", lambda *_: np.zeros((4, 4, 3), np.uint8))
    images: Any = SimpleNamespace(name="train", ids=np.array(["<script>", "a\u202eb", "x" * 100_000]))
    group = [Member(images, row, frozenset(["<i>", "\u2066c"]), 1.0) for row in range(3)]
    text = duplicates_page.render_page([group], 3, "t")
    assert "<script>" not in text and "<i>" not in text and len(text) < 20_000
    assert r"a\u202eb" in text and r"\u2066c" in text and "\u202e" not in text


def test_the_suspects_of_a_report_are_no_formulas():
    if not (node := shutil.which("node")):
        pytest.skip("node is not installed")
    script = (Path(comp.__file__).parent / "pages/assets/base.js").read_text()
    lines = script[script.index("const escapeFormula") :]
    cells = ["=1+1", "-abc", "a,b", "'=x", "-5", "plain", "+a\rb"]
    lines += f"console.log(JSON.stringify({json.dumps(cells)}.map(csvCell)))"
    answer = subprocess.run([node, "-e", lines], capture_output=True, text=True, check=True)
    read_back = next(csv.reader(io.StringIO(",".join(json.loads(answer.stdout)), newline="")))
    assert read_back == ["'=1+1", "'-abc", "a,b", "''=x", "-5", "plain", "'+a\rb"]


# --- passwords

P = PASSWORD
ADDRESSES = (
    *(f"postgresql://u:{P}@h/db", f"postgresql+psycopg2://u:{P}@h:5432/db", f"POSTGRESQL://u:{P}@h/db"),
    *(f"postgres://u:{P}@h/db", f"postgresql://u:a%40{P}%2F@h/db", f"postgresql://u:a@{P}@h/db"),
    *(f"postgresql://u:a/{P}@h/db", f"postgresql://u:a?{P}@h/db", f"postgresql://u:a#{P}@h/db"),
    *(
        f"postgresql://u:a {P}@h/db",
        f"postgresql://u:{P}@/db",
        f"postgresql://u:{P}",
        f"postgresql://u:{P}/db",
    ),
    *(f"postgresql://:{P}@h/db", f"postgresql://u:{P}@[::1]:5432/db", f"postgresql://u:{P}@[::1/db"),
    *(f"postgresql:///db?host=/var/run/postgresql&user=u&password={P}", f"postgresql://h/db?password=a@{P}"),
    *(f"postgresql://u:{P}@%2Fvar%2Frun/db", f"mysql+pymysql://u:{P}@h/db?unix_socket=/x.sock"),
    *(f"postgresql://u:{P}@h:port/db", f"postgresql://u:{P}@h1:1,h2:2/db", f"postgresql://u:a@b/{P}@h/db"),
    *(f"u:{P}@h/db", f"//u:{P}@h/db", f"postgresql:/u:{P}@h/db", f"postgresql//u:{P}@h/db"),
    *(f"postgresql:u:{P}@h/db", f"host=h user=u password={P} dbname=d", f" postgresql://u:{P}@h/db"),
    *(f"sqlite:///no/where.db?key={P}", f"sqlite:///x.db?timeout={P}", f"sqlite+pysqlcipher://:{P}@/x.db"),
    *(f"http://u:{P}@h/db", f"://u:{P}@h/db", f"jdbc:postgresql://u:{P}@h/db", f"redis://:{P}@h"),
    *(f"mssql+pyodbc:///?odbc_connect=UID%3Du%3BPWD%3D{P}", f"postgresql://u:{P}\n@h/db"),
)


@pytest.mark.filterwarnings("ignore::sqlalchemy.exc.SAWarning")
@pytest.mark.parametrize("address", ADDRESSES)
def test_no_form_of_a_storage_address_tells_its_password(
    address: str, here: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    before = sorted(here.iterdir())
    with pytest.raises(CompError) as error:
        open_storage(address)
    assert PASSWORD not in str(error.value) and PASSWORD not in storage_name(address)
    assert sorted(here.iterdir()) == before


@pytest.mark.parametrize(
    "path", ["tune.log", "some where/tune.log", "/abs/a@b.log", r"C:\runs\tune.log", "a=b.log"]
)
def test_paths_of_studies_are_no_addresses(path: str):
    assert not studies.ADDRESS_LIKE.search(path) and storage_name(path) == path


@pytest.mark.parametrize("error", [RuntimeError, TypeError, optuna.exceptions.StorageInternalError])
def test_what_a_driver_says_of_an_address_is_told_without_its_password(
    error: type[Exception], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(studies.time, "sleep", lambda seconds: None)
    address = f"sqlite+a://u:a%20{PASSWORD}@h/db?option={PASSWORD}x"

    def refuse(*_: Any, **__: Any) -> None:
        raise error(f"cannot reach {address}: invalid option '{PASSWORD}x', password 'a {PASSWORD}'")

    monkeypatch.setattr("optuna.storages.RDBStorage", refuse)
    with pytest.raises(CompError) as raised:
        open_storage(address)
    assert PASSWORD not in str(raised.value) and "cannot reach" in str(raised.value)


def test_an_address_with_a_password_does_not_stay_in_the_list_of_processes(monkeypatch: pytest.MonkeyPatch):
    address, started = f"postgresql://u:{PASSWORD}@h/db", []
    for given in (["--storage", address], [f"--storage={address}"], ["--stor", address]):
        arguments = ["tune", "nothing.toml", *given]
        monkeypatch.setattr(sys, "argv", ["comp", *arguments])
        monkeypatch.setattr(sys, "orig_argv", ["python", "-m", "comp", *arguments])
        monkeypatch.setattr(cli.os, "execv", lambda program, argv: started.append((program, argv)))
        assert main() == 1
        program, argv = started.pop()
        assert program == sys.executable and argv[:5] == ["python", "-m", "comp", "tune", "nothing.toml"]
        assert PASSWORD not in " ".join(argv) and os.environ["COMP_STORAGE"] == address
        assert tune._resolve("$COMP_STORAGE") == address
        monkeypatch.delenv("COMP_STORAGE")
    monkeypatch.setattr(sys, "argv", ["comp", "tune", "nothing.toml", "--storage", "tune.log"])
    assert main() == 1 and not started
    with pytest.raises(CompError, match="no such variable"):
        tune._resolve("$COMP_STORAGE")


@pytest.mark.parametrize(
    "text",
    [
        f"API request to http://u:{PASSWORD}@host/api failed",
        f"Failed to parse: http://user:{PASSWORD}#x@host:8080",
        f"Failed to parse: http://user:a@{PASSWORD}/x@host:8080",
        f"https://{PASSWORD}@github.com/a/b is refused",
        f"GET /x?access_token={PASSWORD}&a=1, GET /y?a=1&X-Goog-Signature={PASSWORD}",
        f"Invalid header value b'Bearer {PASSWORD}\\n'",
        f"the key {PASSWORD} is wrong",
        f"proxy user:{PASSWORD}%21@proxy:8080",
    ],
)
def test_messages_lose_the_secrets_of_addresses_and_of_the_environment(
    text: str, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setenv("WANDB_API_KEY", f"{PASSWORD}\n")
    monkeypatch.setenv("HTTPS_PROXY", f"user:{PASSWORD}%21@proxy:8080")
    info(text)
    said = capsys.readouterr().out
    assert PASSWORD not in said and "…" in said
    assert PASSWORD not in first_line(ValueError(text.replace("://u:", f"://u:{'x' * 180}")))


def test_other_addresses_stay_as_they_are():
    for text in (
        "see https://www.kaggle.com/@somebody/x?page=2",
        "mail a@b.org",
        "sqlite:///FILE",
        "10:30 @ home",
    ):
        assert without_secrets(text) == text


@pytest.mark.parametrize("token", ["KGAT_sEcr3tword\nx", "KGAT_sEcr3tword x\r"])
def test_a_token_that_cannot_be_sent_is_refused_without_it(
    token: str, kaggle: Any, monkeypatch: pytest.MonkeyPatch
):
    for name in ("KAGGLE_USERNAME", "KAGGLE_KEY"):
        monkeypatch.delenv(name)
    monkeypatch.setenv("KAGGLE_API_TOKEN", token)
    with pytest.raises(CompError) as error:
        kaggle_api.Kaggle()
    assert PASSWORD not in str(error.value)
