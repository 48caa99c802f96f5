"""DICOM files, arrays and bands: each written by the library of its format, and seen as it says."""

from pathlib import Path

import numpy as np
import pytest

from comp.config.competition import Images
from comp.data.arrays import find_array_limits
from comp.data.decoding import decode
from comp.data.image_cache import build_caches, probe
from comp.data.image_files import find_images
from comp.data.scaling import Limits
from comp.deadline import NEVER
from comp.errors import CompError

RAMP = np.linspace(0, 4000, 24 * 20).reshape(24, 20).astype(np.uint16)
PLACES = {"train": "a/{id}", "test": "b/{id}"}


def dicom(path: Path, values: np.ndarray, colours: str = "MONOCHROME2", bits: int = 12, **tags) -> Path:
    """Write a DICOM file of these stored values."""
    pydicom = pytest.importorskip("pydicom")
    from pydicom.dataset import FileDataset, FileMetaDataset
    from pydicom.uid import ExplicitVRLittleEndian, SecondaryCaptureImageStorage, generate_uid

    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = (
        SecondaryCaptureImageStorage,
        generate_uid(),
    )
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = FileDataset(str(path), {}, file_meta=meta, preamble=bytes(128))
    file.SOPClassUID, file.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    file.Rows, file.Columns = values.shape[-2:] if values.ndim == 2 else values.shape[:2]
    file.SamplesPerPixel = 3 if values.ndim == 3 else 1
    if values.ndim == 3:
        file.PlanarConfiguration = 0
    file.PhotometricInterpretation, file.BitsStored = colours, bits
    file.BitsAllocated, file.HighBit = 8 * values.itemsize, bits - 1
    file.PixelRepresentation = int(values.dtype.kind == "i")
    for name, value in tags.items():
        setattr(file, name, value)
    file.PixelData = values.tobytes()
    pydicom.dcmwrite(path, file)
    return path


def grey(path: Path, **settings) -> np.ndarray:
    found = decode([path], joined=False, **settings)
    assert found.shape[-1] == 3 and (found == found[..., :1]).all()
    return found[..., 0].astype(int)


# --- DICOM --------------------------------------------------------------------------------------------------


def test_a_dicom_file_is_seen_through_its_window(tmp_path: Path):
    path = dicom(
        tmp_path / "a.dcm", RAMP, WindowCenter=[1000, 7], WindowWidth=[401, 9],
        RescaleSlope=1, RescaleIntercept=-1024,
    )  # fmt: skip
    hounsfield = RAMP.astype(float) - 1024
    expected = ((hounsfield - 999.5) / 400 + 0.5).clip(0, 1) * 255  # PS3.3 C.11.2.1.2.1
    assert np.abs(grey(path) - expected).max() <= 0.51
    assert find_array_limits([[path]], ()) is None  # the file says it itself
    own = grey(path, limits=Limits(-1024, 2976))
    assert np.abs(own - (hounsfield + 1024) / 4000 * 255).max() <= 0.51


def test_low_values_of_monochrome1_are_bright(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP, "MONOCHROME1")
    assert np.array_equal(grey(path), 255 - (RAMP >> 4))
    assert np.array_equal(grey(path, limits=Limits(0, 4095)), 255 - (RAMP >> 4))


def test_without_a_window_the_range_of_the_set_counts_and_padding_does_not(tmp_path: Path):
    values = RAMP.astype(np.int16)
    values[0] = -2000
    path = dicom(
        tmp_path / "a.dcm", values, bits=16, PixelPaddingValue=-2000, RescaleSlope=2, RescaleIntercept=10
    )
    limits = find_array_limits([[path]], ())
    assert limits and limits.low > 10 and limits.high > 7900
    assert (grey(path, limits=limits)[0] == 0).all() and grey(path, limits=limits).max() == 255


def test_colours_of_a_dicom_file_are_rgb(tmp_path: Path):
    colours = np.random.default_rng(0).integers(0, 256, (8, 9, 3), dtype=np.uint8)
    path = dicom(tmp_path / "a.dcm", colours, "RGB", bits=8)
    assert np.array_equal(decode([path], joined=False), colours)
    from pydicom.pixels import convert_color_space

    path = dicom(tmp_path / "b.dcm", convert_color_space(colours, "RGB", "YBR_FULL"), "YBR_FULL", bits=8)
    assert np.abs(decode([path], joined=False).astype(int) - colours).max() <= 3


def test_several_frames_are_refused(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP, NumberOfFrames=5)
    with pytest.raises(OSError, match="5 frames; write each to a file of its own"):
        decode([path], joined=False)


@pytest.mark.parametrize(
    "name", ["MR_small_jp2klossless.dcm", "MR_small_RLE.dcm", "MR_small_jpeg_ls_lossless.dcm"]
)
def test_compressed_pixels_are_those_of_the_plain_file(name: str):
    pytest.importorskip("gdcm")
    data = pytest.importorskip("pydicom.data")
    plain, packed = (Path(data.get_testdata_file(n)) for n in ("MR_small.dcm", name))
    assert np.array_equal(grey(packed), grey(plain)) and grey(plain).std() > 10


def test_a_cut_dicom_file_is_refused(tmp_path: Path):
    path = dicom(tmp_path / "a.dcm", RAMP)
    path.write_bytes(path.read_bytes()[:-200])
    with pytest.raises(OSError, match="less than expected"):
        decode([path], joined=False)


@pytest.mark.parametrize(("package", "extra"), [("pydicom", "dicom"), ("tifffile", "tiff")])
def test_a_library_that_is_not_installed_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, package: str, extra: str
):
    pytest.importorskip(package)
    path = dicom(tmp_path / "a.dcm", RAMP) if package == "pydicom" else bands_tiff(tmp_path / "a.tif")[0]
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(CompError, match=rf"needs {package}: pip install 'kaggle-comp\[{extra}\]'"):
        decode([path], joined=False, bands=(1,))


# --- arrays -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["(H, W, bands)", "(bands, H, W)", "(H, W)"])
def test_an_array_is_read_in_any_order_of_its_axes(tmp_path: Path, form: str):
    bands = np.stack([RAMP, RAMP[::-1], RAMP[:, ::-1]], -1)
    stored = {"(H, W)": RAMP, "(H, W, bands)": bands, "(bands, H, W)": np.moveaxis(bands, -1, 0)}[form]
    np.save(tmp_path / "a.npy", stored)
    found = decode([tmp_path / "a.npy"], joined=False, limits=Limits(0, 4095))
    assert np.array_equal(found, (np.stack([RAMP] * 3, -1) if form == "(H, W)" else bands) >> 4)


def test_one_array_of_an_npz_is_read_and_several_are_refused(tmp_path: Path):
    np.savez_compressed(tmp_path / "a.npz", (RAMP >> 4).astype(np.uint8))
    assert np.array_equal(grey(tmp_path / "a.npz"), RAMP >> 4)
    np.savez(tmp_path / "b.npz", RAMP, RAMP)
    with pytest.raises(OSError, match="2 arrays in one file; one is expected"):
        decode([tmp_path / "b.npz"], joined=False)


@pytest.mark.parametrize(
    ("array", "says"),
    [
        (np.array([{}, []], object), "allow_pickle|Object arrays"),
        (np.array(["a"]), "numbers are expected"),
        (np.zeros((4, 5, 4)), r"an array of \(4, 5, 4\)"),
        (np.zeros(7), r"an array of \(7,\)"),
        (np.zeros((9, 9, 2)), "2 bands, but only 3 would be read: list in images.bands"),
    ],
)
def test_an_array_that_is_no_image_is_refused(tmp_path: Path, array: np.ndarray, says: str):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(OSError, match=says):
        decode([tmp_path / "a.npy"], joined=False)


def test_a_cut_array_is_refused(tmp_path: Path):
    np.save(tmp_path / "a.npy", RAMP)
    data = (tmp_path / "a.npy").read_bytes()
    (tmp_path / "a.npy").write_bytes(data[:-100])
    with pytest.raises(OSError, match="reshape|EOF|read"):
        decode([tmp_path / "a.npy"], joined=False)


def test_arrays_that_are_files_of_channels_each_have_their_range(tmp_path: Path):
    values = RAMP / 4000
    for name, low, high in (("hh", -40, -10), ("hv", 0.0, 300.0)):
        np.save(tmp_path / f"x_{name}.npy", low + (high - low) * values)
    images = find_images("train", np.array(["x"]), [(tmp_path, "{id}_{channel}.npy")], ["hh", "hv"])
    limits = find_array_limits([[path] for path in images.paths[0]], ())
    assert limits and [round(low) for low, _ in limits.pairs()] == [-40, 0]
    found = decode(images.paths[0], joined=True, limits=limits)
    assert np.abs(found[..., 0].astype(int) - found[..., 1]).max() <= 1 and found.std() > 60


# --- bands --------------------------------------------------------------------------------------------------


def bands_tiff(path: Path, n: int = 13, kind: type = np.uint16, **settings) -> tuple[Path, np.ndarray]:
    """Write a TIFF of n bands, each a ramp that is turned further and brighter."""
    tifffile = pytest.importorskip("tifffile")
    bands = np.stack([np.roll(RAMP, k, 0) // 4 + 1 + 100 * k for k in range(n)], -1).astype(kind)
    planar = settings.get("planarconfig") == "separate"
    stored = np.moveaxis(bands, -1, 0) if planar or settings.pop("pages", False) else bands
    tifffile.imwrite(path, stored, photometric="minisblack", **settings)
    return path, bands


@pytest.mark.parametrize(
    "settings",
    [
        {"planarconfig": "contig"},
        {"planarconfig": "separate"},
        {"pages": True},
        {"planarconfig": "contig", "compression": "zlib", "tile": (16, 16)},
        {"kind": np.float32, "planarconfig": "contig"},
        {"n": 2, "planarconfig": "contig"},
    ],
)
def test_chosen_bands_of_a_tiff_are_its_channels(tmp_path: Path, settings: dict):
    path, bands = bands_tiff(tmp_path / "a.tif", **settings)
    for chosen in ((2, 1), tuple(range(1, bands.shape[-1] + 1))):
        found = decode([path], joined=True, bands=chosen, limits=Limits(0, 4095))
        expected = bands[..., [k - 1 for k in chosen]].astype(int) >> 4
        assert np.array_equal(found, expected)
    with pytest.raises(OSError, match=f"{bands.shape[-1]} bands, but images.bands names band 14"):
        decode([path], joined=True, bands=(1, 14))


def test_bands_that_differ_widely_have_a_range_each(tmp_path: Path):
    tifffile = pytest.importorskip("tifffile")
    values = np.stack([RAMP * 2.0, RAMP / 50], -1).astype(np.float32)
    values[:2] = -9999
    nodata = [(42113, "s", 0, "-9999", True)]
    tifffile.imwrite(
        tmp_path / "a.tif", values, photometric="minisblack", planarconfig="contig", extratags=nodata
    )
    limits = find_array_limits([[tmp_path / "a.tif"]], (2, 1))
    assert limits and limits.low[0] > 0 and 70 < limits.high[0] < 81 and 7900 < limits.high[1] < 8001
    found = decode([tmp_path / "a.tif"], joined=True, bands=(2, 1), limits=limits)
    assert (found[:2] == 0).all() and found[3:, :, 0].std() > 50 and found[3:, :, 1].std() > 50
    same = find_array_limits([[bands_tiff(tmp_path / "b.tif", 3, planarconfig="contig")[0]]], (1, 2, 3))
    assert same and len(same.pairs()) == 1


def test_a_cache_of_thirteen_bands_is_as_large_as_its_images(tmp_path: Path):
    for i in range(4):
        bands_tiff(tmp_path / f"{i}.tif", planarconfig="contig")
    images = find_images(
        "train", np.array(list("0123")), [(tmp_path, "{id}.tif")], list(map(str, range(1, 14)))
    )
    assert images.bands == tuple(range(1, 14)) and probe(images)[0] == 24
    paths = build_caches({"train": (images, [16])}, tmp_path / "cache", "s", NEVER, 16)["train"]
    cached = np.load(paths[16])
    assert cached.shape == (4, 16, 16, 13) and cached.std((1, 2)).min() > 0


def test_a_channel_of_one_value_is_named(tmp_path: Path, capsys: pytest.CaptureFixture):
    for i in range(3):
        np.save(tmp_path / f"{i}.npy", np.stack([RAMP, RAMP * 0 + 9], -1))
    images = find_images("train", np.array(list("012")), [(tmp_path, "{id}.npy")], ["1", "2"])
    build_caches({"train": (images, [16])}, tmp_path / "cache", "s", NEVER, 16)
    assert "train images have one value in channel 2: 3 (0, 1, 2)" in capsys.readouterr().out


def test_bands_and_their_ranges_fit_together():
    assert Images(**PLACES, bands=3).bands == (1, 2, 3)
    assert "bands" not in Images(**PLACES).model_dump()  # as in older stamps
    assert Images(**PLACES, bands=[4, 2], range=[[0, 9], [-1, 1]]).range == ((0, 9), (-1, 1))
    for wrong, says in (
        ({"bands": [0]}, "different numbers from 1"),
        ({"bands": [2, 2]}, "different numbers from 1"),
        ({"bands": 2, "range": [[0, 1]]}, "1 pairs for 2 bands"),
        ({"range": [[0, 1], [0, 1]]}, "2 pairs for 0 bands"),
        ({"bands": 2, "range": [[0, 1], [1, 0]]}, "black below white"),
    ):
        with pytest.raises(ValueError, match=says):
            Images(**PLACES, **wrong)
    channels = {"train": "a/{id}_{channel}", "test": "b/{id}_{channel}", "channels": ["x", "y"]}
    with pytest.raises(ValueError, match="remove one of the two keys"):
        Images(**channels, bands=2)
