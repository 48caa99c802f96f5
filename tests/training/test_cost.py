"""What a recipe costs: counted operations, published rates, the disk, Kaggle's limits."""

import math
from pathlib import Path

import numpy as np
import pytest

from comp.cli.main import main
from comp.commands import plan
from comp.config.loading import load_recipe
from comp.config.recipe import Recipe
from comp.data.disk_plan import ImageCounts, cached_parts, count_images
from comp.kaggle.limits import DISK_BYTES, T4_BYTES, check_kernel
from comp.training.cost import (
    KAGGLE_T4,
    SPEEDS,
    Machine,
    count_network,
    count_sizes,
    gpu_bytes,
    image_seconds,
    known_machine,
    launched_images,
    run_time,
)

RTX_3090 = Machine("RTX 3090", 1.0)


def recipe_of(backbone: str, **settings: object) -> Recipe:
    given = [f"{key}={value}" for key, value in {"backbone": backbone, **settings}.items()]
    return load_recipe("planet", given)


@pytest.mark.parametrize(
    ("backbone", "billions", "millions"), [("resnet18", 1.82, 11.2), ("resnet50", 4.11, 23.5)]
)
def test_operations_and_parameters_are_those_that_are_published(
    backbone: str, billions: float, millions: float
):
    cost = count_network(recipe_of(backbone), [224])[224]
    assert cost.flops / 2e9 == pytest.approx(billions, rel=0.01)
    assert cost.n_parameters / 1e6 == pytest.approx(millions, rel=0.01)


@pytest.mark.parametrize(
    ("backbone", "rate"),
    [("resnet18", 3481.8), ("resnet50", 1218.0), ("convnext_tiny", 819.2), ("vit_small_patch16_224", 1057.9)],
)
def test_the_estimated_rate_is_near_that_of_timm_s_table(backbone: str, rate: float):
    estimated = 1 / image_seconds(count_network(recipe_of(backbone), [224])[224], RTX_3090)
    assert abs(math.log(estimated / rate)) < 0.2


def test_memory_is_near_what_was_found_and_grows_with_the_micro_batch():
    recipe = load_recipe("planet")
    phase = recipe.phases[-1]
    cost = count_sizes(recipe)[phase.size]
    assert gpu_bytes(cost, phase) == pytest.approx(5.5e9, rel=0.1)
    halved = gpu_bytes(cost, phase.model_copy(update={"accumulate": 2}))
    assert halved == gpu_bytes(cost, phase, phase.batch_size // 2) < gpu_bytes(cost, phase)


def test_networks_run_in_rounds_and_measured_steps_count_as_they_are():
    recipe = load_recipe("planet", ["n_folds=5", "views=identity"])
    counts = ImageCounts(1000, 100, 256, 0, "")
    costs = count_sizes(recipe)
    measured = dict.fromkeys(costs, 0.01)
    one, two = (run_time(recipe, counts, Machine("m", 1.0, n), costs, measured) for n in (1, 2))
    assert one.train == pytest.approx(5 * one.fold) and two.train == pytest.approx(3 * one.fold)
    # 8 epochs of 800 images, and of 200 held-out ones at a third of the price
    assert one.phases[2] == pytest.approx(8 * (800 + 200 / 3) * 0.01)
    # of its 5 epochs one trains the head alone
    assert one.phases[0] == pytest.approx((4 + 1 / 3) * 800 * 0.01 + 5 * 200 / 3 * 0.01)
    assert one.predict == pytest.approx((1000 + 5 * 100) * 0.01 / 3) and one.decode is None


def test_small_images_wait_for_launches_and_plan_names_the_batch_that_takes_as_long(capsys):
    recipe = load_recipe("planet")
    costs, a100 = count_sizes(recipe), Machine("A100", SPEEDS["A100"])
    batch = launched_images(costs[64], a100)
    seconds = batch * image_seconds(costs[64], a100)
    assert batch > 128 and seconds == pytest.approx(a100.launch * costs[64].n_operators, rel=0.01)
    plan._print_small_batches(recipe, costs, [a100])
    lines = capsys.readouterr().out.splitlines()
    said = f"at 64 px a GPU waits for launches: steps take as long for batches up to {batch}"
    assert len(lines) == 1 and said in lines[0]


def test_only_gpus_of_a_known_kind_get_an_estimate():
    assert known_machine(["Tesla T4", "Tesla T4"]) == Machine("Tesla T4 ×2", SPEEDS["T4"], 2)
    assert known_machine([]) is None and known_machine(["Tesla T4", "Some Other"]) is None


@pytest.mark.parametrize("name", ["planet", "planet-convnext", "hpa", "hpa-convnext"])
def test_the_shipped_recipes_fit_a_kernel_on_two_t4(name: str, here: Path):
    recipe = load_recipe(name)
    counts, costs = count_images(recipe), count_sizes(recipe)
    assert check_kernel(recipe, counts, costs, run_time(recipe, counts, KAGGLE_T4, costs)) == []


def test_a_recipe_that_does_not_fit_gets_settings_that_do(here: Path):
    recipe = load_recipe("hpa", ["cache=each", "phases.1.epochs=60", "phases.1.batch_size=256"])
    counts, costs = count_images(recipe), count_sizes(recipe)
    time = run_time(recipe, counts, KAGGLE_T4, costs)
    long, memory = check_kernel(recipe, counts, costs, time)
    assert "sessions" in long and "--resume" in long
    changed = load_recipe("hpa", [memory.rpartition("set ")[2]])
    phase = recipe.phases[1].model_copy(update={"accumulate": changed.phases[1].accumulate})
    assert gpu_bytes(costs[512], phase) <= T4_BYTES
    more = ImageCounts(2 * counts.n_train, 2 * counts.n_test, 512, 0, "")
    disk = next(reason for reason in check_kernel(recipe, more, costs, time) if "resized" in reason)
    assert 'cache = "largest" (90.1 GB, still too much), and phases of at most' in disk
    size = int(disk.rpartition("at most ")[2].split()[0])
    smaller = load_recipe("hpa", [f"phases.1.size={size}"])
    assert sum(cached_parts(smaller, more).values()) < DISK_BYTES


def test_the_disk_is_counted_by_the_caches_that_are_built(here: Path, capsys: pytest.CaptureFixture[str]):
    assert main(["download", "tiny.toml"]) == main(["folds", "tiny.toml"]) == 0
    recipe = load_recipe("tiny.toml")
    parts = cached_parts(recipe, count_images(recipe))
    assert main(["train", "tiny.toml", "--folds", "0"]) == 0
    assert "about 4 steps for each of 2 networks" in capsys.readouterr().out
    for name, n_bytes in parts.items():
        split, side, _ = name.split()
        for path in (here / "data/tiny/cache").glob(f"{split}-{side}-*.npy"):
            assert np.load(path).nbytes == n_bytes
    assert len(list((here / "data/tiny/cache").glob("*.npy"))) == 3


def test_plan_prints_disk_and_time_and_writes_nothing(
    here: Path, capsys: pytest.CaptureFixture[str], fails, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(plan, "PIXELS_ON_CPU", 16 * 16 * 4)
    assert main(["plan", "tiny.toml"]) == 0
    printed = capsys.readouterr().out
    assert "90 training and 60 test images of 32 px (to be drawn)" in printed
    assert "resized images, train 16 px" in printed and "a fold: 1 epochs at 32 px" in printed
    assert "a kernel on two T4 does it" in printed
    assert [path.name for path in here.iterdir()] == ["tiny.toml"]
    text = (here / "tiny.toml").read_text()
    (here / "other.toml").write_text(text.replace("drawn = { n_train = 90, n_test = 60, size = 32 }", ""))
    assert "how many images tiny has is not known; run `comp download`" in fails("plan", "other.toml")
