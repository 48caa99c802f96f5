"""What the values of an image file mean, and which files are refused."""

import io
import struct
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from PIL import Image

from comp.artifacts.stamps import read_stamp
from comp.cli.main import main
from comp.config.competition import Images
from comp.data.decoding import Limits, decode, find_limits, scale_to_uint8
from comp.data.image_cache import build_caches
from comp.data.image_files import ImageSet, resize
from comp.deadline import NEVER
from comp.errors import CompError
from comp.models.network import ModelSpec, create, load, save

RNG = np.random.default_rng(0)
NATURAL = np.stack(np.mgrid[0:160, 0:160][[0, 1, 0]], -1) + 20 + RNG.normal(0, 8, (160, 160, 3))
NATURAL = NATURAL.clip(1, 254).astype(np.uint8)


def written(path: Path, data: bytes) -> Path:
    path.write_bytes(data)
    return path


def bytes_of(image: Image.Image, kind: str, **settings) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **settings)
    return buffer.getvalue()


def set_of(paths: list[Path], limits: Limits | None = None) -> ImageSet:
    return ImageSet("train", np.array([p.stem for p in paths]), tuple((p,) for p in paths), (), limits)


def tiff(values: np.ndarray, photometric: int, extra: tuple[int, ...] = ()) -> bytes:
    """An uncompressed TIFF of (H, W, bands)."""
    height, width, n = values.shape
    tags = {256: [width], 257: [height], 258: [values.itemsize * 8] * n, 259: [1], 262: [photometric]}
    tags |= {273: [0], 277: [n], 278: [height], 279: [values.nbytes]}
    tags |= {339: [{"u": 1, "i": 2, "f": 3}[values.dtype.kind]] * n, **({338: list(extra)} if extra else {})}
    where, table, behind = 8 + 2 + 12 * len(tags) + 4, b"", b""
    tags[273] = [where + sum(4 * len(v) for v in tags.values() if len(v) > 1)]
    for tag, listed in sorted(tags.items()):
        packed = struct.pack(f"<{len(listed)}I", *listed)
        place = packed if len(listed) == 1 else struct.pack("<I", where + len(behind))
        behind += b"" if len(listed) == 1 else packed
        table += struct.pack("<HHI", tag, 4, len(listed)) + place
    return b"II*\0" + struct.pack("<IH", 8, len(tags)) + table + bytes(4) + behind + values.tobytes()


# --- more than 8 bits ---------------------------------------------------------------------------------------


def test_values_are_scaled_by_the_bits_that_the_set_uses(tmp_path: Path):
    values = np.linspace(0, 4095, 256).astype(np.uint16).reshape(16, 16)
    paths = []
    for i, brightest in enumerate((4095, 900, 300)):  # one scale: the dark ones stay dark
        paths.append(tmp_path / f"{i}.png")
        Image.fromarray(np.minimum(values, brightest)).save(paths[-1])
    limits = find_limits(paths)
    assert limits == (0, 4095, "12 bits of 16")
    for path, brightest in zip(paths, (4095, 900, 300)):
        found = decode([path], joined=False, limits=limits)
        assert np.array_equal(found[..., 1], np.minimum(values, brightest) >> 4)


@pytest.mark.parametrize(
    ("values", "limits"),
    [
        (np.uint16([[0, 65535]]), None),  # as ever
        (np.uint16([[0, 40000]]), None),
        (np.uint16([[7, 200]]), (0, 255)),
        (np.int32([[0, 1]]), (0, 1)),
        (np.int32([[0, 255]]), (0, 255)),
        (np.int32([[0, 100_000]]), (0, 131071)),
        (np.float32([[0, 0.94]]), (0, 1)),
        (np.float32([[0, 0.2]]), (0, 0.25)),
        (np.float32([[0, 250]]), None),
        (np.float32([[0, 9000]]), (0, 16383)),
        (np.float32([[-1, 2, np.nan]]), (-1, 2)),
        (np.uint8([[0, 9]]), None),
        (np.float32([[0, 0]]), None),
    ],
)
def test_limits_are_what_the_values_use(tmp_path: Path, values: np.ndarray, limits: tuple | None):
    Image.fromarray(values).save(tmp_path / "a.tif")
    found = find_limits([tmp_path / "a.tif"])
    assert (found and found[:2]) == limits


def test_floats_of_64_bits_and_of_three_colours_are_read(tmp_path: Path):
    colours = np.linspace(0, 1, 48).reshape(4, 4, 3).astype(np.float32)
    path = written(tmp_path / "a.tif", tiff(colours, 2))
    assert np.array_equal(decode([path], joined=False, limits=find_limits([path])), np.rint(colours * 255))
    grey = np.linspace(0, 1, 16).reshape(4, 4, 1)
    path = written(tmp_path / "b.tif", tiff(grey, 1))
    assert np.array_equal(decode([path], joined=True, limits=find_limits([path])), np.rint(grey * 255))


@pytest.mark.parametrize("n", [3, 4])
def test_colours_of_16_bits_are_scaled_too(tmp_path: Path, n: int):
    values = RNG.integers(0, 4096, (8, 9, n), dtype=np.uint16)
    values[0, 0], values[..., 3:] = 4095, 65535  # opaque
    cv2.imwrite(str(tmp_path / "a.png"), values)
    limits = find_limits([tmp_path / "a.png"])
    assert limits == (0, 4095, "12 bits of 16")
    found = decode([tmp_path / "a.png"], joined=False, limits=limits)
    assert np.array_equal(found, values[..., 2::-1] >> 4)


def test_a_scale_clips_and_nan_is_black():
    assert scale_to_uint8(np.array([-5, 0, 5, 10, 99, np.nan]), Limits(0, 10)).tolist() == [
        0,
        0,
        128,
        255,
        255,
        0,
    ]
    assert scale_to_uint8(np.array([-1000, 1000, 3000]), Limits(-1000, 3000)).tolist() == [0, 128, 255]


def test_values_beyond_the_limits_are_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    for i, top in enumerate((100, 4095, 9000)):
        values = np.linspace(0, top, 256).astype(np.uint16).reshape(16, 16)
        Image.fromarray(values).save(tmp_path / f"{i}.png")
    images = set_of(sorted(tmp_path.glob("*.png")), Limits(0, 4095, "12 bits of 16"))
    paths = build_caches({"train": (images, [16])}, tmp_path / "cache", "s", NEVER, 16)
    said = " ".join(capsys.readouterr().out.split())
    assert "12 bits of 16: 0 … 4,095 become black … white" in said and "clipped: 1 (" in said
    other = ImageSet(images.name, images.ids, images.paths, (), Limits(0, 255))
    assert build_caches({"train": (other, [16])}, tmp_path / "cache", "s", NEVER, 16) != paths


def test_the_key_range_is_two_values_or_the_upper_one():
    places = {"train": "a/{id}", "test": "b/{id}"}
    assert Images(**places, range=4095).range == (0, 4095)
    assert Images(**places, range=[-1000, 3000]).range == (-1000, 3000)
    assert "range" not in Images(**places).model_dump()  # as in older stamps
    for wrong in ([3, 1], [0, float("nan")], 0):
        with pytest.raises(ValueError, match="black below white|finite number"):
            Images(**places, range=wrong)


# --- transparency, orientation, bands -----------------------------------------------------------------------


@pytest.mark.parametrize("kind", ["PNG", "WEBP", "TIFF"])
def test_transparent_parts_are_white(tmp_path: Path, kind: str):
    image = Image.fromarray(NATURAL)
    alpha = np.full((160, 160), 255, np.uint8)
    image.putalpha(Image.fromarray(alpha))
    settings = {"lossless": True} if kind == "WEBP" else {}
    opaque = written(tmp_path / "a", bytes_of(image, kind, **settings))
    assert np.array_equal(decode([opaque], joined=False), NATURAL)
    alpha[:40] = 0
    image.putalpha(Image.fromarray(alpha))
    found = decode([written(tmp_path / "b", bytes_of(image, kind, **settings))], joined=False)
    assert (found[:40] == 255).all() and np.array_equal(found[40:], NATURAL[40:])


def test_a_drawing_in_the_alpha_channel_alone_is_seen(tmp_path: Path):
    drawing = NATURAL[..., 0]
    image = Image.new("RGBA", (160, 160), (0, 0, 0, 0))
    image.putalpha(Image.fromarray(drawing))
    image.save(tmp_path / "a.png")
    assert np.array_equal(decode([tmp_path / "a.png"], joined=False), np.stack([255 - drawing] * 3, -1))


def test_an_alpha_channel_that_hides_everything_is_not_meant(tmp_path: Path):
    image = Image.fromarray(NATURAL)
    image.putalpha(0)
    image.save(tmp_path / "a.png")
    assert np.array_equal(decode([tmp_path / "a.png"], joined=False), NATURAL)


def test_a_transparent_colour_of_a_palette_is_white(tmp_path: Path):
    image = Image.new("P", (4, 4), 1)
    image.putpalette([0, 0, 0, 90, 60, 30])
    image.putpixel((0, 0), 0)
    image.save(tmp_path / "a.png", transparency=0)
    found = decode([tmp_path / "a.png"], joined=False)
    assert found[0, 0].tolist() == [255] * 3 and found[1, 1].tolist() == [90, 60, 30]


@pytest.mark.parametrize("exif", [None, 1, 6])
def test_an_orientation_in_xmp_counts_where_exif_has_none(tmp_path: Path, exif: int | None):
    xmp = b'<x:xmpmeta xmlns:x="adobe:ns:meta/"><a tiff:Orientation="3"/></x:xmpmeta>'
    settings = {"xmp": xmp}
    if exif:
        settings["exif"] = Image.Exif()
        settings["exif"][0x0112] = exif
    data = bytes_of(Image.fromarray(NATURAL), "JPEG", quality=95, **settings)
    upright = np.asarray(Image.open(io.BytesIO(data)))
    upright = np.rot90(upright, {None: 2, 1: 0, 6: -1}[exif])
    assert np.array_equal(decode([written(tmp_path / "a.jpg", data)], joined=False), upright)


@pytest.mark.parametrize(
    ("n", "photometric", "extra"),
    [(4, 2, (0,)), (5, 2, (0, 0)), (4, 2, (2,)), (2, 1, (0,)), (4, 1, (0,) * 3), (8, 1, (0,) * 7)],
)
def test_a_tiff_with_more_bands_than_are_read_is_refused(
    tmp_path: Path, n: int, photometric: int, extra: tuple[int, ...]
):
    values = RNG.integers(1, 255, (16, 16, n), dtype=np.uint8)
    path = written(tmp_path / "a.tif", tiff(values, photometric, extra))
    with pytest.raises(OSError, match=f"{n} bands"):
        decode([path], joined=False)


def test_a_tiff_of_several_pages_is_refused_and_one_with_smaller_copies_is_not(tmp_path: Path):
    image = Image.fromarray(NATURAL)
    image.save(tmp_path / "a.tif", save_all=True, append_images=[image, image])
    with pytest.raises(OSError, match="3 pages"):
        decode([tmp_path / "a.tif"], joined=False)
    image.save(tmp_path / "b.tif", save_all=True, append_images=[image.resize((80, 80))])
    assert np.array_equal(decode([tmp_path / "b.tif"], joined=False), NATURAL)


@pytest.mark.parametrize("n", [5, 8, 9])
@pytest.mark.parametrize("size", [8, 20, 80, 192])
def test_any_number_of_channels_is_resized_as_each_alone(n: int, size: int):
    image = RNG.integers(0, 255, (40, 96, n), dtype=np.uint8)
    found = resize(image, size)
    assert found.shape == (size, size, n)
    for k in range(n):
        assert np.array_equal(found[..., k : k + 1], resize(image[..., k : k + 1], size))


# --- damage -------------------------------------------------------------------------------------------------


def losses(data: bytes) -> dict[str, bytes]:
    half, third = len(data) // 2, len(data) // 3
    return {
        "half": data[:half] + b"\xff\xd9",
        "gap": data[:third] + data[third + third // 2 :],
        "zeros": data[:half] + bytes(len(data) - half),
        "zeros and end": data[:half] + bytes(len(data) - half - 2) + data[-2:],
        "hole": data[:half] + bytes(1024) + data[half + 1024 :],
    }


WAYS = {
    "plain": {},
    "progressive": {"progressive": True},
    "optimized": {"optimize": True},
    "restarts": {"restart_marker_rows": 1},
}


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_a_jpeg_that_lost_a_part_is_refused(tmp_path: Path, mode: str, way: str):
    data = bytes_of(Image.fromarray(NATURAL).convert(mode), "JPEG", quality=90, **WAYS[way])
    for name, lost in losses(data).items():
        for joined in (False, True):
            with pytest.raises(OSError):
                decode([written(tmp_path / f"{name}.jpg", lost)], joined=joined)


@pytest.mark.parametrize("way", WAYS)
@pytest.mark.parametrize("below", [0, 128, 255, None])
def test_whole_jpegs_with_more_behind_them_or_flat_parts_are_taken(
    tmp_path: Path, way: str, below: int | None, capfd: pytest.CaptureFixture
):
    pixels = NATURAL.copy()
    if below is not None:
        pixels[40:] = below
    exif = Image.Exif()
    exif[0x0112] = 3
    for mode in ("RGB", "L", "CMYK"):
        image = Image.fromarray(pixels).convert(mode)
        data = bytes_of(image, "JPEG", exif=exif, icc_profile=bytes(300), **WAYS[way])
        thumbnail = data[:2] + b"\xff\xe1" + struct.pack(">H", len(data) + 8) + b"other\0" + data + data[2:]
        for k, whole in enumerate((data, data + bytes(500), data + b"x" * 9 + data, thumbnail)):
            path = written(tmp_path / f"{mode}{k}.jpg", whole)
            expected = np.rot90(np.asarray(Image.open(path).convert("RGB")), 2).astype(int)
            assert np.abs(decode([path], joined=False).astype(int) - expected).max() <= (mode == "CMYK")
            decode([path], joined=True, max_size=20)
    assert "Corrupt" not in capfd.readouterr().err


@pytest.mark.parametrize(
    ("kind", "settings"),
    [
        ("WEBP", {}),
        ("WEBP", {"lossless": True}),
        ("BMP", {}),
        ("PPM", {}),
        ("TIFF", {}),
        ("TGA", {}),
        ("PNG", {}),
        ("GIF", {}),
    ],
)
def test_files_with_zeros_in_place_of_a_part_are_refused(tmp_path: Path, kind: str, settings: dict):
    for pixels in (NATURAL, NATURAL[..., 0]):
        data = bytes_of(Image.fromarray(pixels), kind, **settings)
        whole = decode([written(tmp_path / "a", data)], joined=False)
        assert whole.shape == (160, 160, 3)
        for at in (len(data) // 2, len(data) // 3):
            filled = data[:at] + bytes(len(data) - at)
            with pytest.raises(OSError):
                decode([written(tmp_path / "a", filled)], joined=False)


@pytest.mark.parametrize("kind", ["WEBP", "BMP", "PPM", "TIFF", "TGA", "PNG", "JPEG"])
def test_black_areas_are_no_damage(tmp_path: Path, kind: str):
    circle = np.hypot(*(np.mgrid[0:160, 0:160] - 80)) < 40
    right = (slice(None), slice(50, None))
    for black in (slice(60, None), slice(None, 30), slice(30, 60), right, ~circle, ...):
        pixels = NATURAL.copy()
        pixels[black] = 0
        data = bytes_of(Image.fromarray(pixels), kind)
        assert decode([written(tmp_path / "a", data)], joined=False).shape == (160, 160, 3)


def test_damaged_files_of_all_kinds_are_named_together(tmp_path: Path):
    whole = bytes_of(Image.fromarray(NATURAL), "JPEG", quality=90)
    paths = [written(tmp_path / f"{i}.jpg", whole) for i in range(4)]
    written(paths[1], whole[:-200])
    written(paths[3], losses(whole)["gap"])
    with pytest.raises(CompError, match=r"can't be read: 2 \(.*1\.j.*3\.j.*coded pixels"):
        build_caches({"train": (set_of(paths), [32])}, tmp_path / "cache", "s", NEVER, 32)


@pytest.mark.parametrize("value", [0, 255])
def test_a_set_that_is_nearly_all_blank_is_an_error_and_some_nights_are_not(tmp_path: Path, value: int):
    paths = [tmp_path / f"{i:02}.png" for i in range(40)]
    for path in paths:
        Image.new("RGB", (16, 16), (value,) * 3).save(path)
    Image.fromarray(NATURAL[:16, :16]).save(paths[7])
    with pytest.raises(CompError, match="39 of 40 train images are blank"):
        build_caches({"train": (set_of(paths), [16])}, tmp_path / "cache", "s", NEVER, 16)
    assert not list((tmp_path / "cache").glob("*np*"))
    for path in paths[:5]:
        Image.fromarray(NATURAL[:16, :16]).save(path)
    build_caches({"train": (set_of(paths), [16])}, tmp_path / "cache", "s", NEVER, 16)


# --- whole stages -------------------------------------------------------------------------------------------

RECIPE = """
competition = "c.toml"
backbone = "test_resnet"
pretrained = false
n_folds = 2
n_trials = 1
views = "identity"
phases = [{ size = 32, epochs = 1, lr = 3e-3, batch_size = 4 }]
"""
COMPETITION = """
[labels]
csv = "train.csv"
id = "id"
column = "tags"
[images]
train = "train/{id}.tif"
test = "test/{id}.tif"
[submission]
sample = "sample.csv"
"""


def competition(here: Path, n: int) -> None:
    (here / "c.toml").write_text(COMPETITION)
    (here / "r.toml").write_text(RECIPE)
    for split, count in (("train", n), ("test", 3)):
        (here / "src" / split).mkdir(parents=True)
        for i in range(count):
            values = np.linspace(0, 1000 if split == "test" else 4095, 1024).astype(np.uint16)
            Image.fromarray(np.roll(values, 99 * i).reshape(32, 32)).save(here / "src" / split / f"{i}.tif")
    tags = "".join(f"{i},{'a b' if i % 2 else 'b'}\n" for i in range(n))
    (here / "src" / "train.csv").write_text(f"id,tags\n{tags}")
    (here / "src" / "sample.csv").write_text("id,tags\n0,a\n1,a\n2,a\n")


def test_test_images_have_the_scale_of_training_in_all_stages(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    competition(tmp_path, 8)
    assert main(["download", "r.toml", "--from", "src"]) == 0
    for stage in ("folds", "train", "predict", "blend", "decide"):
        assert main([stage, "r.toml"]) == 0
    caches = {path.name.split("-")[0]: np.load(path) for path in Path("data/c/cache").glob("*.npy")}
    assert len(caches) == 2 and caches["train"].max() == 255 and caches["test"].max() == 1000 >> 4
    assert main(["infer", "r.toml", "--from", "src", "--to", "inferred.csv"]) == 0
    assert main(["explain", "r.toml", "src/test/1.tif"]) == 0
    both = list(Path("data/c/cache").glob("test-*.npy"))
    assert len(both) == 2 and all(np.load(path).max() == 1000 >> 4 for path in both)
    text = Path("c.toml").read_text().replace("[images]", "[images]\nrange = 1000")
    Path("c.toml").write_text(text)
    assert main(["download", "r.toml", "--from", "src"]) == 1
    assert "images.range" in " ".join(capsys.readouterr().err.split())


def test_a_fold_that_leaves_one_image_is_named_before_training(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
):
    monkeypatch.chdir(tmp_path)
    competition(tmp_path, 3)
    Path("folds").mkdir()
    Path("folds/c-k2-s42.csv").write_text("id,fold\n0,0\n1,0\n2,1\n")
    assert main(["download", "r.toml", "--from", "src"]) == 0
    assert main(["train", "r.toml"]) == 1
    assert "fold 0 leaves 1 training image; at least 2" in capsys.readouterr().err
    assert main(["train", "r.toml", "--set", "phases.0.accumulate=2"]) == 1
    said = capsys.readouterr().err
    assert "at least 4" in said
    assert not list(tmp_path.rglob("*.npy"))


def test_equal_models_are_equal_files(tmp_path: Path):
    spec = ModelSpec("test_resnet", ("a", "é"), 3, 32, (0.5,) * 3, (0.5,) * 3)
    model, path = create(spec, pretrained=False), tmp_path / "m.safetensors"
    files = set()
    for _ in range(12):  # its writer orders texts by chance, each time anew
        save(path, model, spec, {"fold": 1})
        files.add(path.read_bytes())
    assert len(files) == 1
    again, found = load(path)
    assert found == spec and read_stamp(path) == {"fold": 1}
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), again.state_dict().values()))
