from pathlib import Path

import pytest

from comp.config.loading import load_competition, load_recipe, shipped
from comp.config.schema import current_rule, warn_of_old_name
from comp.errors import CompError

MINIMAL = """
[labels]
csv = "train.csv"
id = "id"
column = "tags"
[images]
train = "train/{id}.png"
test = "test/{id}.png"
[submission]
sample = "sample.csv"
"""


@pytest.mark.parametrize("name", shipped("recipes"))
def test_shipped_recipes_are_valid(name: str):
    assert load_recipe(name).name == name


def test_planet_and_hpa_are_as_on_kaggle():
    planet, hpa = load_competition("planet"), load_competition("hpa")
    assert (len(planet.labels.classes), planet.metric.beta, planet.metric.average) == (17, 2, "samples")
    assert (len(hpa.labels.classes), hpa.metric.average, len(hpa.images.channels)) == (28, "macro", 4)


def test_a_recipe_holds_only_what_differs_and_set_overrides_it(here: Path):
    (here / "base.toml").write_text('competition = "planet"\nbackbone = "resnet50"\nseed = 7\n')
    (here / "mine.toml").write_text('extends = "base.toml"\nseed = 8\n[[phases]]\nsize = 64\nepochs = 1\n')
    recipe = load_recipe("mine.toml", ["phases.0.epochs=3", "backbone=resnet18", "views=['identity']"])
    assert (recipe.name, recipe.seed, recipe.backbone) == ("mine", 8, "resnet18")
    assert (recipe.phases[0].epochs, recipe.views) == (3, ("identity",))


def test_a_competition_file_is_a_recipe_with_the_defaults(here: Path):
    (here / "mine.toml").write_text(MINIMAL)
    recipe = load_recipe("mine.toml", ["competition.metric.beta=1", "phases.1.lr=1e-4"])
    assert (recipe.competition.name, recipe.competition.metric.beta, recipe.phases[1].lr) == ("mine", 1, 1e-4)


def test_paths_in_a_recipe_are_relative_to_it(here: Path):
    (here / "deep").mkdir()
    (here / "deep" / "data.toml").write_text(MINIMAL)
    (here / "deep" / "mine.toml").write_text('competition = "data.toml"\nweights = "w"\n')
    recipe = load_recipe("deep/mine.toml")
    assert (recipe.competition.name, recipe.weights) == ("data", "deep/w")


def test_a_recipe_may_change_the_competition_of_what_it_extends(here: Path):
    (here / "mine.toml").write_text('extends = "demo"\n[competition.drawn]\nn_train = 90')
    mine, demo = load_recipe("mine.toml").competition, load_recipe("demo").competition
    assert mine.drawn and demo.drawn
    assert mine == demo.model_copy(update={"drawn": demo.drawn.model_copy(update={"n_train": 90})})
    assert mine == load_recipe("demo", ["competition.drawn.n_train=90"]).competition


def test_what_follows_from_a_key_of_the_competition_follows_from_one_that_is_changed(here: Path):
    (here / "data.toml").write_text(MINIMAL)
    recipe = load_recipe("data.toml", ["competition.labels.single=true"])
    assert (str(recipe.competition.metric), recipe.loss) == ("accuracy", "groups")
    assert load_recipe("data.toml", ["competition.labels.none='nothing'"]).competition.labels.empty


@pytest.mark.parametrize(
    ("text", "sets", "message"),
    [
        ('competition = "demo"\nepocs = 3', [], "unknown key 'epocs'"),
        ('competition = "demo"\nbackbon = "x"', [], "unknown key 'backbon'; did you mean 'backbone'?"),
        ('extends = "demo"', ["phases.0.epocs=3"], "unknown key 'phases.0.epocs'; did you mean 'epochs'?"),
        ('extends = "demo"', ["competition.labels.colum='x'"], "did you mean 'column'?"),
        ('extends = "demo"', ["phases.9.epochs=3"], "there is no 'phases.9.epochs'"),
        ('extends = "demo"', ["seed"], "expected KEY=VALUE"),
        ('extends = "demo"', ["n_folds=1"], "'n_folds': input should be greater than or equal to 2, found 1"),
        ('extends = "demo"', ["phases.0.head_epochs=99"], "head_epochs = 99 is more than epochs"),
        ('extends = "demo"', ["name=../x"], "'name'"),
        ('extends = "dmo"', [], "did you mean 'demo'?"),
        ('extends = "bad.toml"', [], "extends itself"),
        ('extends = "demo"', ["views=[]"], "'views': tuple should have at least 1 item"),
        ('extends = "demo"', ["external={csv='x.csv',images='x.jpg'}"], "'x.jpg' lacks {id}"),
        ('extends = "hpa"', ["external={csv='x.csv',images='x/{id}.png'}"], "{channel} and `channels` go"),
        ('extends = "demo"', ["pseudo=bad"], "pseudo names the recipe itself"),
        ("seed = 1", [], "no competition"),
        ("seed = ", [], "is not TOML"),
        (MINIMAL.replace("{id}", "x"), [], "lacks {id}"),
        (MINIMAL.replace("test/{id}", "test/{id}_{channel}"), [], "go together"),
        (MINIMAL.replace('id = "id"\n', ""), [], "'labels.id' is missing"),
        (MINIMAL + "exclusive = 3", [], "unknown key 'submission.exclusive'"),
    ],
)
def test_what_is_wrong_is_said_in_one_line(here: Path, text: str, sets: list[str], message: str):
    (here / "bad.toml").write_text(text)
    with pytest.raises(CompError) as error:
        load_recipe("bad.toml", sets)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_old_names_are_read_with_one_line_of_warning(here: Path, capsys: pytest.CaptureFixture[str]):
    warn_of_old_name.cache_clear()
    labels = MINIMAL.replace("[images]", "empty = true\n[images]")
    (here / "old.toml").write_text(labels + "[metric]\nempty = 1\n")
    (here / "mine.toml").write_text('competition = "old.toml"\nrule = "drawn+limits"\n')
    for _ in range(2):
        recipe = load_recipe("mine.toml")
        assert (recipe.rule, recipe.competition.metric.zero_division) == ("shrunk+limits", 1)
    first, second = capsys.readouterr().out.splitlines()
    assert "metric.empty" in first and "metric.zero_division" in first
    assert "drawn" in second and "shrunk" in second
    assert load_recipe("mine.toml", ["rule=drawn"]).rule == "shrunk"
    assert [current_rule(name) for name in ("auto", "shrunk", "drawnx", "drawn+exclusive")] == [
        *("auto", "shrunk", "drawnx", "shrunk+exclusive")
    ]
    assert not capsys.readouterr().out
