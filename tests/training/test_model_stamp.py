"""A model's stamp holds every key of a recipe, except keys named as changing no weights."""

from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.training.model_stamp import ALWAYS_IN_STAMP, IN_STAMP, NOT_IN_STAMP, stamped_settings


def test_each_key_of_a_recipe_is_in_the_stamp_or_named_as_left_out():
    keys = frozenset(Recipe.model_fields)
    assert keys == IN_STAMP | NOT_IN_STAMP and not IN_STAMP & NOT_IN_STAMP
    assert ALWAYS_IN_STAMP <= IN_STAMP


def test_a_key_that_is_not_listed_is_in_the_stamp_where_it_differs_from_its_default():
    assert set(stamped_settings(load_recipe("demo"))) == ALWAYS_IN_STAMP
    assert stamped_settings(load_recipe("demo", ["swa_epochs=2"]))["swa_epochs"] == 2
    assert "views" not in stamped_settings(load_recipe("demo", ["views=flips"]))
