import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from comp.artifacts.resumable import GrowingArray
from comp.data import image_cache
from comp.data.decoding import decode
from comp.data.image_cache import build_caches
from comp.data.image_files import find_images
from comp.deadline import NEVER
from comp.errors import CompError


def picture(size: int = 32) -> np.ndarray:
    """A smooth RGB picture, uint8."""
    y, x = np.mgrid[0:size, 0:size] / (size - 1)
    return (np.stack([x, y, 1 - x], -1) * 200 + 25).astype(np.uint8)


def folder_of(path: Path, n: int = 12, size: int = 32) -> tuple[np.ndarray, list[tuple[Path, str]]]:
    path.mkdir()
    for i in range(n):
        Image.fromarray(np.roll(picture(size), i, 0)).save(path / f"im{i}.png")
    return np.array([f"im{i}" for i in range(n)]), [(path, "{id}.png")]


def build(ids, folders, sizes: list[int], folder: Path) -> dict[int, Path]:
    images = find_images("train", ids, folders, [])
    return build_caches({"train": (images, sizes)}, folder / "cache", "s", NEVER, max(sizes))["train"]


@pytest.mark.parametrize("mode", ["RGB", "CMYK", "P", "RGBA", "L"])
def test_every_kind_of_file_comes_out_as_rgb(tmp_path: Path, mode: str):
    path = tmp_path / ("x.jpg" if mode == "CMYK" else "x.png")
    image = Image.fromarray(picture()).convert(mode, palette=Image.Palette.ADAPTIVE)
    image.save(path, quality=98)
    found = np.asarray(decode([path], joined=False)).astype(int)
    assert np.abs(found - np.asarray(image.convert("RGB"))).mean() < 2
    assert mode == "L" or np.abs(found - picture()).mean() < 5


def test_16_bit_greys_are_scaled_and_not_clipped(tmp_path: Path):
    values = np.linspace(0, 65535, 256, dtype=np.uint16).reshape(16, 16)
    Image.fromarray(values).save(tmp_path / "x.png")
    found = np.asarray(decode([tmp_path / "x.png"], joined=False))
    assert found.shape == (16, 16, 3)
    assert np.abs(found[..., 0].astype(int) - (values >> 8)).max() <= 1


def test_a_rotation_noted_by_the_camera_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise to see it upright
    Image.fromarray(picture()).save(tmp_path / "x.png", exif=exif)
    assert np.array_equal(np.asarray(decode([tmp_path / "x.png"], joined=False)), np.rot90(picture(), -1))


def jpeg(image: Image.Image, path: Path, **settings) -> Path:
    image.save(path, "JPEG", quality=90, **settings)
    return path


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_comes_out_as_pillow_gives_it(tmp_path: Path, mode: str):
    path = jpeg(Image.fromarray(picture(96)).convert(mode), tmp_path / "x.jpg")
    expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
    found = decode([path], joined=False).astype(int)
    assert np.abs(found - expected).max() <= (1 if mode == "CMYK" else 0)  # two ways to round


def test_four_colours_that_are_not_inverted_are_told_from_those_that_are(tmp_path: Path):
    data = jpeg(Image.fromarray(picture()).convert("CMYK"), tmp_path / "x.jpg").read_bytes()
    at = data.index(b"\xff\xee")  # Adobe's marker
    (tmp_path / "x.jpg").write_bytes(data[:at] + data[at + 2 + int.from_bytes(data[at + 2 : at + 4]) :])
    expected = np.asarray(Image.open(tmp_path / "x.jpg").convert("RGB")).astype(int)
    assert np.abs(decode([tmp_path / "x.jpg"], joined=False).astype(int) - expected).max() <= 1


def test_a_rotation_noted_in_a_jpeg_is_applied(tmp_path: Path):
    exif = Image.Exif()
    exif[0x0112] = 6
    path = jpeg(Image.fromarray(picture()), tmp_path / "x.jpg", exif=exif)
    upright = np.rot90(np.asarray(Image.open(path)), -1).astype(int)
    assert np.abs(decode([path], joined=False).astype(int) - upright).max() <= 1


@pytest.mark.parametrize(
    ("max_size", "side"), [(None, 256), (200, 256), (128, 128), (100, 128), (64, 64), (20, 32)]
)
def test_a_jpeg_is_decoded_in_no_more_detail_than_is_needed(tmp_path: Path, max_size: int | None, side: int):
    path = jpeg(Image.fromarray(picture(256)), tmp_path / "x.jpg")
    found = decode([path], joined=False, max_size=max_size)
    assert found.shape == (side, side, 3)
    boxes = picture(256).reshape(side, 256 // side, side, 256 // side, 3).mean((1, 3))
    assert np.abs(found - boxes).mean() < 2


def test_a_cut_jpeg_is_refused(tmp_path: Path):
    path = jpeg(Image.fromarray(picture(256)), tmp_path / "x.jpg")
    path.write_bytes(path.read_bytes()[:-400])
    with pytest.raises(OSError, match="truncated"):
        decode([path], joined=False)


def test_the_real_chips_are_those_of_pillow(shared: Path):
    for path in sorted((shared / "planet256" / "train-jpg").iterdir())[:8]:
        expected = np.asarray(Image.open(path).convert("RGB")).astype(int)
        assert np.abs(decode([path], joined=False).astype(int) - expected).max() <= 1


def test_one_file_a_channel_is_joined_in_order(tmp_path: Path):
    for value, name in enumerate(("red", "green", "blue", "yellow")):
        Image.new("L", (20, 20), value * 50).save(tmp_path / f"a_{name}.png")
    images = find_images(
        "train", np.array(["a"]), [(tmp_path, "{id}_{channel}.png")], ["yellow", "red", "blue", "green"]
    )
    assert np.asarray(decode(images.paths[0], joined=True))[3, 3].tolist() == [150, 0, 100, 50]


def test_the_real_protein_images_have_four_channels(shared: Path):
    channels = ["red", "green", "blue", "yellow"]
    images = find_images(
        "train", np.array(["800_A6_1"]), [(shared / "hpa" / "rgby", "{id}_{channel}.png")], channels
    )
    joined = np.asarray(decode(images.paths[0], joined=True))
    assert joined.shape == (512, 512, 4)
    green = np.asarray(Image.open(shared / "hpa" / "rgby" / "800_A6_1_green.png").convert("L"))
    assert np.array_equal(joined[..., 1], green)


def test_missing_images_are_named_all_at_once(tmp_path: Path):
    ids, folders = folder_of(tmp_path / "a")
    with pytest.raises(CompError, match=r"no image for 2 \(x, y\) of the 14 train ids"):
        find_images("train", np.array([*ids, "x", "y"]), folders, [])


@pytest.mark.parametrize("name", ["../a/im0", "..\\a\\im0", "/im0", "\\im0"])
def test_an_id_can_not_lead_out_of_its_folder(tmp_path: Path, name: str):
    _, folders = folder_of(tmp_path / "a")
    with pytest.raises(CompError, match="points outside the image folder"):
        find_images("train", np.array([name]), folders, [])


def test_damaged_images_are_named_all_at_once_and_leave_no_cache(tmp_path: Path):
    ids, folders = folder_of(tmp_path / "a")
    whole = io.BytesIO()
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(whole, "PNG")
    (tmp_path / "a" / "im3.png").write_bytes(whole.getvalue()[:4000])
    (tmp_path / "a" / "im7.png").write_bytes(b"not an image")
    (tmp_path / "a" / "im9.png").write_bytes(b"")
    with pytest.raises(CompError, match=r"can't be read: 3 \(.*im3.png.*im7.png.*im9.png"):
        build(ids, folders, [16], tmp_path)
    assert not list((tmp_path / "cache").glob("*.npy"))
    folder_of(tmp_path / "b")
    for name in ("im3.png", "im7.png", "im9.png"):
        (tmp_path / "b" / name).replace(tmp_path / "a" / name)
    path = build(ids, folders, [16], tmp_path)[16]
    assert np.load(path).shape == (12, 16, 16, 3)  # mended, it goes on
    assert not list((tmp_path / "cache").glob(".*npy*"))


def test_the_cache_holds_every_size_and_never_enlarges(tmp_path: Path):
    ids, folders = folder_of(tmp_path / "a")
    paths = build(ids, folders, [16, 64], tmp_path)
    assert np.load(paths[16]).shape == (12, 16, 16, 3)
    assert np.load(paths[64]).shape == (12, 32, 32, 3)
    assert np.array_equal(np.load(paths[64])[5], np.roll(picture(), 5, 0))


def test_a_filled_row_is_not_filled_again_after_a_kill(tmp_path: Path):
    first = GrowingArray(tmp_path / "x.npy", (4, 2), "float32", {"of": 1})
    first.put(np.array([0, 2]), np.ones((2, 2)))
    again = GrowingArray(tmp_path / "x.npy", (4, 2), "float32", {"of": 1})
    assert again.missing().tolist() == [1, 3]
    other = GrowingArray(tmp_path / "x.npy", (4, 2), "float32", {"of": 2})
    assert other.missing().tolist() == [0, 1, 2, 3]


def test_one_grey_channel_stays_one(tmp_path: Path):
    Image.new("L", (20, 20), 70).save(tmp_path / "a_g.png")
    images = find_images("train", np.array(["a"]), [(tmp_path, "{id}_{channel}.png")], ["g"])
    path = build_caches({"train": (images, [16])}, tmp_path / "cache", "s", NEVER, 16)["train"][16]
    assert np.load(path).shape == (1, 16, 16, 1)


def test_too_little_space_for_all_caches_is_said_before_any_is_built(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    ids, folders = folder_of(tmp_path / "a")  # 12 images of 32 px
    needed = 12 * 3 * (16**2 + 32**2)
    monkeypatch.setattr(image_cache, "free_bytes", lambda _: needed - 1)
    with pytest.raises(CompError, match=r'train 16 px .*train 32 px .*COMP_DATA, set cache = "largest"'):
        build(ids, folders, [16, 32], tmp_path)
    assert not list(tmp_path.rglob("*.npy")) and not list(tmp_path.rglob("*.partial"))
    monkeypatch.setattr(image_cache, "free_bytes", lambda _: needed)
    build(ids, folders, [16, 32], tmp_path)
    monkeypatch.setattr(image_cache, "free_bytes", lambda _: 0)
    build(ids, folders, [16, 32], tmp_path)  # nothing is absent
