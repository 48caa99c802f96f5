"""The reference of all keys, the resolved recipe with its origins, and "did you mean" on the command line."""

from pathlib import Path

import pytest

from comp.cli.main import main
from comp.config.loading import load_recipe, shipped
from comp.config.origins import describe_recipe
from comp.config.reference import list_keys, markdown

ROOT = Path(__file__).parents[2]


def test_every_key_has_a_line_and_the_page_of_keys_is_up_to_date():
    keys = list_keys()
    assert [key.name for key in keys if not key.text] == []
    found = {key.name: (key.type, key.value, key.note) for key in keys}
    assert found["phases.0.epochs"] == ("whole number ≥ 1", "", "required")
    assert found["augment.zoom"] == ("number ≥ 0, < 1", "0", "")
    assert found["competition.labels.classes"] == ("list of texts", "[]", "")
    assert found["name"] == ("text", "", "the file's name")
    page = (ROOT / "KEYS.md").read_text(encoding="utf-8")
    assert page == markdown(keys), "write it again: comp keys --markdown > KEYS.md"


def test_keys_are_found_by_a_word_and_a_wrong_word_is_corrected(here: Path, fails, capsys):
    assert main(["keys", "restarts"]) == 0
    lines = capsys.readouterr().out
    assert "phases.0.cycles = 1" in lines and "phases.0.lr" not in lines
    assert "did you mean 'separator'?" in fails("keys", "seperator")


@pytest.mark.parametrize("name", shipped("recipes"))
def test_the_shown_recipe_is_the_recipe(here: Path, name: str):
    (here / "shown.toml").write_text(describe_recipe(name))
    assert load_recipe("shown.toml") == load_recipe(name)


def test_each_value_is_shown_with_where_it_comes_from(here: Path, capsys):
    (here / "base.toml").write_text('extends = "planet"\nseed = 7\nbackbone = "resnet18"\n')
    mine = 'extends = "base.toml"\nseed = 8\naugment = { zoom = 0.3 }\n[competition.metric]\nbeta = 1\n'
    (here / "mine.toml").write_text(
        mine + "[[members]]\nclip_norm = 2.0\nname = 'a'\n[[members]]\nname = 'b'\n"
    )
    assert main(["show", "mine.toml", "--set", "phases.1.epochs=2"]) == 0
    shown = capsys.readouterr().out
    found = dict(line.split("  # ") for line in shown.splitlines() if "  # " in line)
    found = {line.strip(): origin for line, origin in found.items()}
    assert {
        'name = "mine"': "the file's name", "seed = 8": "mine.toml", 'backbone = "resnet18"': "base.toml",
        "n_folds = 5": "default", "zoom = 0.3": "mine.toml", "beta = 1.0": "mine.toml", "epochs = 2": "--set",
        'average = "samples"': "competition planet", "size = 256": "recipe planet",
        "clip_norm = 2.0": "mine.toml", "# weights is unset": "default",
    }.items() <= found.items()  # fmt: skip
    (here / "shown.toml").write_text(shown)
    recipe = load_recipe("mine.toml", ["phases.1.epochs=2"])
    assert load_recipe("shown.toml") == recipe


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["trian", "demo"], "invalid choice: 'trian'; did you mean 'train'?"),
        (["kernel", "psuh", "demo"], "did you mean 'push'?"),
        (["train", "demo", "--flods", "0"], "no option --flods; did you mean --folds?"),
        (["train", "demo", "--epochs", "3"], "--epochs is a key of the recipe: --set phases.0.epochs=3"),
        (["blend", "demo", "x", "--batch-size=8"], "--set phases.0.batch_size=8"),
        (["train", "demo", "--epoch", "3"], "no option --epoch; did you mean --set phases.0.epochs=3?"),
        (["decide", "--phases.1.lr", "0.1"], "--set phases.1.lr=0.1"),
        (["train", "demo", "--zzz"], "unrecognized arguments: --zzz"),
    ],
)
def test_what_was_probably_meant_is_named(arguments: list[str], message: str, capsys):
    with pytest.raises(SystemExit) as stop:
        main(arguments)
    assert stop.value.code == 2
    assert message in capsys.readouterr().err
