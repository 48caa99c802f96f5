"""Files that hold numbers rather than pictures: DICOM, .npy and .npz, and TIFFs whose bands are chosen."""

import io
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from comp.data.scaling import Limits, scale_to_uint8
from comp.errors import CompError

NPY, ZIP, TIFF = b"\x93NUMPY", b"PK\x03\x04", (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
MAX_BYTES = 1 << 32  # of an unpacked .npz
LOW, HIGH = 0.1, 99.9  # percent of a band's values that are below black and white
MAX_CLIPPED = 0.01  # share of an image's values above white that is not worth a word
N_SAMPLED = 4096  # values of a band of an image that these are found from
MAX_RATIO = 4  # bands whose ranges differ by more than this factor get a range each


class UnsuitableFile(OSError):
    """The file is whole, but the settings don't say how it becomes an image."""


class Values(NamedTuple):
    """The numbers of a file."""

    array: np.ndarray  # (H, W, bands)
    shown: tuple[float, float] | None = None  # black and white, as the file says
    own_window: bool = False  # the file has a window, and the array is seen through it
    inverted: bool = False  # low numbers are bright
    nothing: float | None = None  # the number of pixels that were not measured


def kind_of(data: bytes, bands: Sequence[int] = ()) -> str:
    """Return the kind of a file that `read_values` reads: npy, npz, dicom or, if bands of it are chosen,
    tiff; '' for other files."""
    if data[128:132] == b"DICM":
        return "dicom"
    if data.startswith(NPY):
        return "npy"
    if data.startswith(ZIP):
        return "npz"
    return "tiff" if bands and data.startswith(TIFF) else ""


def read_values(data: bytes, kind: str, *, windowed: bool = True) -> Values:
    """Return the numbers of a file of this kind. A DICOM file's are rescaled and, if `windowed`, seen through
    its own window. Raise CompError where the library for it is missing, UnsuitableFile for what is no single
    image, and nearly anything for a damaged file."""
    if kind == "dicom":
        return _read_dicom(data, windowed)
    if kind == "tiff":
        return _read_tiff(data)
    return Values(_bands_last(_read_npz(data) if kind == "npz" else _read_npy(data)))


def choose_bands(array: np.ndarray, bands: Sequence[int], *, grey: bool) -> np.ndarray:
    """Return (H, W, n): these bands of (H, W, bands), counted from 1. Without `bands` all of them, if there
    is one or, unless `grey` is wanted, three. Raise UnsuitableFile for others."""
    n = array.shape[-1]
    if bands:
        if max(bands) > n:
            raise UnsuitableFile(f"{n} bands, but images.bands names band {max(bands)}")
        return array[..., [band - 1 for band in bands]]
    if n != 1 and (grey or n != 3):
        raise UnsuitableFile(too_many(n, 1 if grey else 3))
    return array


def too_many(n: int, known: int, what: str = "bands") -> str:
    """Return the message for a file with more bands or pages than are read."""
    return (
        f"{n} {what}, but only {known} would be read: list in images.bands those that become channels, such "
        f"as [1, 2]; {n} means the first {n}"
    )


def to_uint8(
    values: Values, bands: Sequence[int], limits: Limits | None, *, grey: bool
) -> tuple[np.ndarray, bool]:
    """Return (H, W, len(bands)) uint8 or, without bands, (H, W, 3), or (H, W) if `grey` is wanted; and
    whether many values are above white. Without limits black and white are as the file says, or else the ends
    of its type."""
    array = choose_bands(values.array, bands, grey=grey)
    above = False
    if array.dtype == np.bool_:
        array = array.astype(np.uint8) * 255
    elif array.dtype != np.uint8:
        whole = array.dtype.kind in "iu"
        usual = (0, int(np.iinfo(array.dtype).max) if whole else 255)
        limits = limits or Limits(*(values.shown or usual))
        above = bool((array > np.asarray(limits.high)).mean() > MAX_CLIPPED)
        if values.nothing is not None:
            array = np.where(array == values.nothing, np.nan, array)
        array = scale_to_uint8(array, limits)
    if values.inverted:
        array = 255 - array
    if bands:
        return np.ascontiguousarray(array), above
    return array[..., 0] if grey else np.broadcast_to(array, (*array.shape[:2], 3)).copy(), above


def find_array_limits(by_channel: Sequence[Sequence[Path]], bands: Sequence[int]) -> Limits | None:
    """Return what becomes black and white in files that `read_values` reads: the same for all channels, or
    by channel if they differ widely; None where files say it themselves, and for 8 bits.

    `by_channel` are some files of each channel, or with `bands` some files. A range leaves out a thousandth
    of the values at each end."""
    samples: dict[int, list[np.ndarray]] = {}
    n_files = n_own = 0
    for channel, paths in enumerate(by_channel):
        for path in paths:
            try:
                data = path.read_bytes()
                values = read_values(data, kind_of(data, bands))
                array = choose_bands(values.array, bands, grey=False)
            except CompError:
                raise
            except Exception:  # noqa: S112  # reported with all other files when the cache is built
                continue
            n_files, n_own = n_files + 1, n_own + values.own_window
            if array.dtype in (np.uint8, np.bool_):
                continue
            flat = array.reshape(-1, array.shape[-1])[:: max(1, array.shape[0] * array.shape[1] // N_SAMPLED)]
            for band, column in enumerate(flat.T.astype(np.float64)):
                kept = column[np.isfinite(column) & (column != values.nothing)]
                samples.setdefault(channel + band if bands else channel, []).append(kept)
    joined = [np.concatenate(parts) for _, parts in sorted(samples.items())]
    if 2 * n_own > n_files or not joined or not all(map(len, joined)):
        return None
    pairs = [tuple(float(f"{v:.6g}") for v in np.percentile(column, [LOW, HIGH])) for column in joined]
    pairs = [(low, high if high > low else low + 1) for low, high in pairs]
    widths = [high - low for low, high in pairs]
    if max(widths) <= MAX_RATIO * min(widths):
        pairs = [(min(low for low, _ in pairs), max(high for _, high in pairs))]
    return Limits.of_pairs(pairs, f"{HIGH - LOW:g} % of the training images' values")


# --- arrays -------------------------------------------------------------------------------------------------


def _read_npy(data: bytes) -> np.ndarray:
    array = np.load(io.BytesIO(data), allow_pickle=False)
    if array.dtype.kind not in "biuf":
        raise UnsuitableFile(f"an array of {array.dtype}; numbers are expected")
    return array


def _read_npz(data: bytes) -> np.ndarray:
    with zipfile.ZipFile(io.BytesIO(data)) as archive:
        members = archive.infolist()
        if len(members) != 1:
            raise UnsuitableFile(f"{len(members)} arrays in one file; one is expected")
        if members[0].file_size > MAX_BYTES:
            raise UnsuitableFile(f"{members[0].file_size / 1e9:.0f} GB in one array")
        return _read_npy(archive.read(members[0]))


def _bands_last(array: np.ndarray) -> np.ndarray:
    """Return (H, W, bands) for an array (H, W), (H, W, bands) or (bands, H, W): bands are the fewest."""
    if array.ndim == 2 and array.size:
        return array[..., None]
    if array.ndim != 3 or not array.size or array.shape[0] == array.shape[2]:
        raise UnsuitableFile(
            f"an array of {array.shape}; (height, width), (height, width, bands) or (bands, height, width) "
            "is expected, with fewer bands than pixels"
        )
    return np.moveaxis(array, 0, -1) if array.shape[0] < array.shape[2] else array


def _read_tiff(data: bytes) -> Values:
    try:
        import tifffile
    except ImportError as error:
        raise CompError(_lacks("a TIFF whose bands are chosen", "tifffile", "tiff")) from error
    with tifffile.TiffFile(io.BytesIO(data)) as file:
        series = file.series[0]
        first: Any = file.pages[0]
        nothing = first.tags.get(42113)  # GDAL's tag
        try:
            array, axes = series.asarray(), series.axes
        except ValueError as error:
            if "imagecodecs" in str(error):
                raise CompError(_lacks("a TIFF compressed in this way", "imagecodecs", "tiff")) from error
            raise
    more = [k for k, axis in enumerate(axes) if axis not in "YX"]
    if len(more) > 1 and (long := [k for k in more if array.shape[k] > 1]) != more:
        array = array.squeeze(tuple(k for k in more if k not in long))
        axes = "".join(axis for k, axis in enumerate(axes) if k not in more or k in long)
        more = [k for k, axis in enumerate(axes) if axis not in "YX"]
    if len(more) > 1 or array.ndim != 2 + len(more):
        raise UnsuitableFile(f"a TIFF of {array.shape} ({axes}); one image with bands is expected")
    array = np.moveaxis(array, more[0], -1) if more else array[..., None]
    try:
        return Values(array, nothing=None if nothing is None else float(str(nothing.value).strip("\0 ")))
    except ValueError:
        return Values(array)


# --- DICOM --------------------------------------------------------------------------------------------------


def _read_dicom(data: bytes, windowed: bool) -> Values:
    """Return the image of a DICOM file: stored values rescaled by the modality's slope and intercept or
    table, then, if `windowed`, seen through the first window or table of the file (DICOM PS3.3 C.11)."""
    try:
        import pydicom
        from pydicom import pixels
    except ImportError as error:
        raise CompError(_lacks("a DICOM file", "pydicom", "dicom")) from error
    file = pydicom.dcmread(io.BytesIO(data))
    if (n_frames := int(file.get("NumberOfFrames") or 1)) > 1:
        raise UnsuitableFile(f"a DICOM file of {n_frames} frames; write each to a file of its own")
    colours = file.get("PhotometricInterpretation", "MONOCHROME2")
    try:
        stored = file.pixel_array  # YBR becomes RGB
    except (RuntimeError, NotImplementedError) as error:
        name = getattr(file.file_meta.TransferSyntaxUID, "name", "an unknown way")
        if "missing dependencies" in str(error):
            raise CompError(_lacks(f"a DICOM file compressed as {name}", "python-gdcm", "dicom")) from error
        raise OSError(f"pixels compressed as {name} can't be decoded") from error
    if colours == "PALETTE COLOR":
        stored = pixels.apply_color_lut(stored, file)
    if stored.ndim == 3:
        return Values(stored, (0, np.iinfo(stored.dtype).max))
    array: Any = pixels.apply_modality_lut(stored, file)
    inverted, nothing = colours == "MONOCHROME1", _padding(file, pixels, stored)
    if windowed and "VOILUTSequence" in file:
        bits = int(file.VOILUTSequence[0].LUTDescriptor[2])
        seen = pixels.apply_voi_lut(array.astype(stored.dtype), file)
        return Values(seen[..., None], (0, 2**bits - 1), True, inverted)
    if windowed and file.get("WindowWidth") is not None and file.get("WindowCenter") is not None:
        ends = pixels.apply_windowing(np.array([-1e9, 1e9]), file)
        seen = pixels.apply_windowing(array, file)
        return Values(seen[..., None], (float(ends[0]), float(ends[1])), True, inverted)
    if "ModalityLUTSequence" in file:
        shown = (0.0, 2.0 ** int(file.ModalityLUTSequence[0].LUTDescriptor[2]) - 1)
    else:
        ends = pixels.apply_modality_lut(np.array(_stored_range(file)), file)
        shown = float(ends.min()), float(ends.max())
    return Values(array[..., None], shown, False, inverted, nothing)


def _stored_range(file: Any) -> tuple[int, int]:
    """Return the lowest and highest stored value of a DICOM file, by its bits."""
    n = int(file.BitsStored)
    return (-(2 ** (n - 1)), 2 ** (n - 1) - 1) if file.PixelRepresentation else (0, 2**n - 1)


def _padding(file: Any, pixels: Any, stored: np.ndarray) -> float | None:
    """Return the rescaled value of a DICOM file's pixels outside of the picture; None if it has no such."""
    value = file.get("PixelPaddingValue")
    if value is None or "ModalityLUTSequence" in file or stored.dtype.kind not in "iu":
        return None
    return float(pixels.apply_modality_lut(np.array([int(value)]), file)[0])


def _lacks(what: str, package: str, extra: str) -> str:
    return f"{what} needs {package}: pip install 'kaggle-comp[{extra}]'"
