"""nvJPEG decodes what the CPU would decode alike, and nothing else."""

import io
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torchvision  # noqa: F401  # its operators
from PIL import Image

from comp.benchmarks import check_rates, speed
from comp.benchmarks.check_inputs import Bench, Skipped
from comp.cli.main import main
from comp.compute.devices import Device
from comp.config.loading import load_recipe
from comp.data.gpu_decoding import GpuDecoder, read_jpeg
from comp.data.image_cache import build_caches
from comp.data.image_files import ImageSet
from comp.deadline import NEVER
from comp.errors import CompError, TimeIsUp
from comp.training.model_stamp import stamped_settings
from tests.conftest import TINY
from tests.pretend_cuda import PretendCuda, plainly

pytestmark = pytest.mark.filterwarnings("ignore:The image decoding")  # Python hides it by default
SIDE, SIZE = 160, 32  # pixels of the files and of the cache: reduced by 4


class Nvjpeg:
    """Stands for torchvision's operator on a pretended device; the CPU decodes."""

    def __init__(self, gpu: PretendCuda):
        self.gpu = gpu
        self.n_decoded = 0
        self.broken: set[bytes] = set()  # files that it can't decode
        self.max_files, self.full = 1000, ""  # that its memory holds at once, and what it says beyond
        self.given: list[weakref.ref[torch.Tensor]] = []

    def __call__(self, files: list[torch.Tensor], mode: int, device: torch.device) -> list[torch.Tensor]:
        if any(image() is not None for image in self.given):
            raise AssertionError("memory is written that work on an earlier image still reads")
        if len(files) > self.max_files:
            raise RuntimeError(self.full)
        with plainly():
            if any(file.numpy().tobytes() in self.broken for file in files):
                raise RuntimeError("Error while decoding JPEG images: Failed to decode batch: 8")
            images = [torch.from_numpy(repeat_chroma(file.numpy().tobytes())) for file in files]
        for image in images:
            self.gpu.marks.add(image, "cuda")
        self.given = [weakref.ref(image) for image in images]
        self.n_decoded += len(images)
        return images


def repeat_chroma(data: bytes) -> np.ndarray:
    """Return (3, H, W) uint8: a JPEG decoded as nvJPEG does it, each pixel of chroma repeated. libjpeg gives
    chroma as stored where it reduces a 4:2:0 file by 2."""
    with Image.open(io.BytesIO(data)) as image:
        width, height = image.size
        halved = image.layer[0][1:3] == (2, 2)
        image.draft("YCbCr", None)
        pixels = np.array(image)
    if halved:
        with Image.open(io.BytesIO(data)) as image:
            image.draft("YCbCr", (width // 2, height // 2))
            chroma = np.asarray(image)[..., 1:]
        pixels[..., 1:] = chroma.repeat(2, 0).repeat(2, 1)[:height, :width]
    return np.array(Image.fromarray(pixels, "YCbCr").convert("RGB")).transpose(2, 0, 1).copy()


@pytest.fixture
def nvjpeg(gpu: Any, monkeypatch: pytest.MonkeyPatch) -> Iterator[Nvjpeg | None]:
    """What decodes; None on a real GPU."""
    stand_in = None if gpu.real else Nvjpeg(gpu)
    if stand_in:
        monkeypatch.setattr(torch.ops.image, "decode_jpegs_cuda", stand_in)
    yield stand_in


def draw(seed: int) -> Image.Image:
    """An image of strong colours with sharp edges, and noise."""
    rng = np.random.default_rng(seed)
    colours = rng.integers(0, 2, (8, 8, 3)) * 180 + 40
    pixels = colours.repeat(SIDE // 8, 0).repeat(SIDE // 8, 1) + rng.normal(0, 8, (SIDE, SIDE, 3))
    return Image.fromarray(pixels.clip(1, 254).astype(np.uint8))


def jpeg(image: Image.Image, **settings: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", **{"quality": 90, **settings})
    return buffer.getvalue()


def set_of(folder: Path, files: list[bytes]) -> ImageSet:
    folder.mkdir(exist_ok=True)
    paths = [folder / f"{i}.jpg" for i in range(len(files))]
    for path, data in zip(paths, files, strict=True):
        path.write_bytes(data)
    return ImageSet("train", np.array([path.stem for path in paths]), tuple((path,) for path in paths), ())


def cached(images: ImageSet, folder: Path, decode: str, size: int = SIZE) -> np.ndarray:
    path = build_caches({"train": (images, [size])}, folder, "s", NEVER, size, decode=decode)["train"][size]
    return np.load(path)


def differing(a: np.ndarray, b: np.ndarray) -> tuple[float, int]:
    """Return the mean and the greatest difference of two arrays of pixels."""
    difference = np.abs(a.astype(int) - b)
    return float(difference.mean()), int(difference.max())


@pytest.mark.parametrize("subsampling", ["4:4:4", "4:2:0"])
@pytest.mark.parametrize("size", [16, 32, 80])
def test_pixels_are_those_of_a_cpu_up_to_rounding(
    nvjpeg: Nvjpeg | None, tmp_path: Path, subsampling: str, size: int
):
    images = set_of(tmp_path / "a", [jpeg(draw(i), subsampling=subsampling) for i in range(5)])
    found = [cached(images, tmp_path / "cache", decode, size) for decode in ("cpu", "gpu")]
    mean, most = differing(*found)
    assert 0 < mean < 1 and most <= 20
    assert len(list((tmp_path / "cache").glob("*.npy"))) == 2  # one doesn't stand for the other
    assert nvjpeg is None or nvjpeg.n_decoded == 1 + 5  # one for the check


def test_odd_sides_become_as_long_as_on_a_cpu(nvjpeg: Nvjpeg | None, tmp_path: Path):
    paths = [tmp_path / f"{side}.jpg" for side in (128, 129, 130, 131, 133, 141)]
    for path in paths:
        side = int(path.stem)
        path.write_bytes(jpeg(draw(0).crop((0, 0, side, side + 7))))
    images = ImageSet("train", np.array([path.stem for path in paths]), tuple((path,) for path in paths), ())
    mean, most = differing(*(cached(images, tmp_path / "cache", decode) for decode in ("cpu", "gpu")))
    assert mean < 1.5 and most <= 30


UNUSUAL: dict[str, Callable[[], bytes]] = {
    "png": lambda: _png(draw(0)),
    "small": lambda: jpeg(draw(0).resize((63, 63))),
    "narrow": lambda: jpeg(draw(0).crop((0, 0, SIDE, 63))),
    "grey": lambda: jpeg(draw(0).convert("L")),
    "4:2:2": lambda: jpeg(draw(0), subsampling="4:2:2"),
    "cmyk": lambda: jpeg(draw(0).convert("CMYK")),
    "rgb": lambda: jpeg(draw(0), keep_rgb=True),
    "progressive": lambda: jpeg(draw(0), progressive=True),
    "turned": lambda: jpeg(draw(0), exif=_exif(6)),
    "truncated": lambda: jpeg(draw(0))[:-900],
    "a hole of zeros": lambda: _with_hole(jpeg(draw(0))),
    "a restart is missing": lambda: _without_restart(jpeg(draw(0), restart_marker_rows=1)),
    "empty": lambda: b"",
    "a header alone": lambda: jpeg(draw(0))[:400],
}


def _png(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "PNG")
    return buffer.getvalue()


def _exif(orientation: int) -> bytes:
    exif = Image.Exif()
    exif[0x0112] = orientation
    return exif.tobytes()


def _with_hole(data: bytes) -> bytes:
    at = len(data) // 2
    return data[:at] + bytes(200) + data[at + 200 :]


def _without_restart(data: bytes) -> bytes:
    at = data.index(b"\xff\xd3")
    return data[:at] + data[data.index(b"\xff\xd4") :]


@pytest.mark.parametrize("kind", UNUSUAL)
def test_what_nvjpeg_may_read_otherwise_is_left_to_the_cpu(tmp_path: Path, kind: str):
    path = tmp_path / "a.jpg"
    path.write_bytes(UNUSUAL[kind]())
    assert read_jpeg(path, SIZE) is None
    path.write_bytes(jpeg(draw(0), exif=_exif(1)))
    assert read_jpeg(path, SIZE).coarser == 4


@pytest.mark.parametrize("kind", ["truncated", "a hole of zeros", "a restart is missing", "cut"])
def test_damaged_files_are_refused_as_on_a_cpu(nvjpeg: Nvjpeg | None, tmp_path: Path, kind: str):
    whole = jpeg(draw(0))
    damaged = whole[:-3000] + whole[-2:] if kind == "cut" else UNUSUAL[kind]()
    images = set_of(tmp_path / "a", [whole, damaged, whole])
    lines = []
    for decode in ("cpu", "gpu"):
        with pytest.raises(CompError, match="can't be read") as raised:
            cached(images, tmp_path / "cache", decode)
        lines.append(str(raised.value))
    assert lines[0] == lines[1] and "1.jpg" in lines[0]


def test_files_that_nvjpeg_cannot_decode_are_decoded_by_the_cpu_and_named(
    nvjpeg: Nvjpeg | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    if nvjpeg is None:
        pytest.skip("which files a real nvJPEG can't decode is not known")
    files = [jpeg(draw(i)) for i in range(7)]
    nvjpeg.broken = {files[2], files[5]}
    images = set_of(tmp_path / "a", files)
    cpu, gpu = (cached(images, tmp_path / "cache", decode) for decode in ("cpu", "gpu"))
    same = [bool((a == b).all()) for a, b in zip(cpu, gpu, strict=True)]
    assert same == [False, False, True, False, False, True, False]
    assert differing(cpu, gpu)[0] < 1
    told = " ".join(capsys.readouterr().out.split())
    assert "nvJPEG decoded 5 of 7 train images" in told and "2 failed (first: " in told and "2.jpg" in told


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (
            "CUDA error: an illegal memory access",
            "the GPU failed at .*0.jpg and 2 other JPEGs",
        ),
        ("Error while decoding JPEG images: CUDA out of memory. Tried", "no memory left to decode .*0.jpg"),
        ("Error while decoding JPEG images: Failed to decode jpeg: 5", "no memory left to decode .*0.jpg"),
    ],
)
def test_a_gpu_that_fails_is_no_reason_to_decode_on_the_cpu(
    nvjpeg: Nvjpeg | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, reason: str, line: str
):
    if nvjpeg is None:
        pytest.skip("a real GPU is not made to fail")
    decoder, images = GpuDecoder(SIZE), set_of(tmp_path / "a", [jpeg(draw(i)) for i in range(3)])
    nvjpeg.max_files, nvjpeg.full = 0, reason
    with pytest.raises(CompError, match=line):
        list(decoder.decode([path for (path,) in images.paths]))
    assert not decoder.refused
    with pytest.raises(CompError, match="needs a torchvision that decodes JPEGs on this GPU, but it answers"):
        cached(images, tmp_path / "cache", "gpu")
    assert not (tmp_path / "cache").exists()


def test_images_with_a_last_block_of_one_colour_are_the_cpus_and_counted(
    nvjpeg: Nvjpeg | None, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    dark = draw(0)
    dark.paste((0, 0, 0), (SIDE - 24, SIDE - 24, SIDE, SIDE))
    images = set_of(tmp_path / "a", [jpeg(dark), jpeg(draw(1))])
    cpu, gpu = (cached(images, tmp_path / "cache", decode) for decode in ("cpu", "gpu"))
    assert [bool((a == b).all()) for a, b in zip(cpu, gpu, strict=True)] == [True, False]
    told = " ".join(capsys.readouterr().out.split())
    assert "decoded 1 of 2 train images, the CPU the others; the last block of 1 has one" in told


def test_nothing_is_decoded_after_the_deadline(nvjpeg: Nvjpeg | None, tmp_path: Path):
    images = set_of(tmp_path / "a", [jpeg(draw(i)) for i in range(40)])
    with pytest.raises(TimeIsUp, match="0 of 40"):
        build_caches({"train": (images, [SIZE])}, tmp_path / "cache", "s", 0.0, SIZE, decode="gpu")
    assert nvjpeg is None or nvjpeg.n_decoded == 1  # the check's


def test_memory_that_runs_out_takes_fewer_files_at_once(nvjpeg: Nvjpeg | None, tmp_path: Path):
    if nvjpeg is None:
        pytest.skip("needs a GPU with little memory")
    images = set_of(tmp_path / "a", [jpeg(draw(i)) for i in range(5)])
    whole = cached(images, tmp_path / "whole", "gpu")
    nvjpeg.max_files, nvjpeg.full = (
        2,
        "Error while decoding JPEG images: CUDA out of memory. Tried to allocate",
    )
    assert (cached(images, tmp_path / "cache", "gpu") == whole).all()


def test_threads_decode_one_after_the_other(nvjpeg: Nvjpeg | None, tmp_path: Path):
    images = set_of(tmp_path / "a", [jpeg(draw(i)) for i in range(8)])
    decoder, paths = GpuDecoder(SIZE), [path for (path,) in images.paths]
    alone = list(decoder.decode(paths))
    with ThreadPoolExecutor(4) as pool:
        for _ in range(5):
            for found in pool.map(lambda _: list(decoder.decode(paths)), range(8)):
                assert all((a == b).all() for a, b in zip(alone, found, strict=True))


def test_images_of_too_many_pixels_are_decoded_in_several_turns(
    nvjpeg: Nvjpeg | None, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    images = set_of(tmp_path / "a", [*(jpeg(draw(i)) for i in range(4)), UNUSUAL["grey"](), jpeg(draw(9))])
    at_once = cached(images, tmp_path / "whole", "gpu")
    monkeypatch.setattr("comp.data.gpu_decoding.MAX_PIXELS", int(2.5 * SIDE * SIDE))
    if nvjpeg:
        nvjpeg.max_files, nvjpeg.full = 2, "CUDA error: too many files"
    assert (cached(images, tmp_path / "cache", "gpu") == at_once).all()


def test_small_images_say_that_the_cpu_decodes_them(
    gpu: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    images = set_of(tmp_path / "a", [jpeg(draw(0).resize((40, 40))), UNUSUAL["cmyk"]()])
    assert (cached(images, tmp_path / "c", "gpu") == cached(images, tmp_path / "d", "cpu")).all()
    assert "changes nothing for train images" in " ".join(capsys.readouterr().out.split())
    cached(images, tmp_path / "c", "gpu")  # the cache is there
    assert "changes nothing for train images" in " ".join(capsys.readouterr().out.split())


def test_the_check_and_the_bench_measure_it(
    nvjpeg: Nvjpeg | None, gpu: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys
):
    monkeypatch.setattr(check_rates, "JPEG_SIDES", (256, 512))
    monkeypatch.setattr(check_rates, "JPEG_SIZE", 128)
    monkeypatch.setattr(check_rates, "N_JPEGS", 20)
    bench = Bench(load_recipe("demo"), Device("cuda:0", 1), 1, tmp_path, NEVER)
    outcome = check_rates.jpeg_decoding(bench)
    assert outcome.verdict == "ok" and [row["side"] for row in outcome.numbers["sizes"]] == [256, 512]
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Skipped, match="needs a GPU"):
        patch.setattr(torch.cuda, "is_available", lambda: False)
        check_rates.jpeg_decoding(bench)
    if nvjpeg:
        assert nvjpeg.n_decoded == 1 + 2 * (8 + 4 * 16)
        monkeypatch.setattr(check_rates, "JPEG_SIDES", (96,))  # not reduced
        monkeypatch.setattr(check_rates, "check_gpu_decoder", lambda: None)
        assert check_rates.jpeg_decoding(bench).found == "nvJPEG decodes 0 of 8 JPEGs of 96 px"
    capsys.readouterr()
    images = set_of(tmp_path / "a", [jpeg(draw(i)) for i in range(4)])
    speed._measure_files(images, tmp_path, gpu.device)
    lines = capsys.readouterr().out.splitlines()
    rates = {row[0]: row[2:] for row in map(str.split, lines) if len(row) > 1 and row[1] == "px"}
    assert [len(rates[size]) for size in ("64", "128", "256")] == [4, 3, 3]
    assert max(map(len, lines)) <= 80


def test_without_a_gpu_it_is_refused_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    images = set_of(tmp_path / "a", [jpeg(draw(0))])
    with pytest.raises(CompError, match='decode = "gpu" needs a GPU, and torch sees none here'):
        cached(images, tmp_path / "cache", "gpu")
    assert not (tmp_path / "cache").exists()


def test_a_torchvision_without_nvjpeg_is_refused(
    pretended: PretendCuda, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.delattr(torchvision.io, "decode_jpeg")
    with pytest.raises(CompError, match='needs a torchvision .* Set decode = "cpu"'):
        cached(set_of(tmp_path / "a", [jpeg(draw(0))]), tmp_path / "cache", "gpu")
    assert not (tmp_path / "cache").exists()


def test_all_commands_share_the_caches_that_a_gpu_made(
    nvjpeg: Nvjpeg | None, here: Path, capsys: pytest.CaptureFixture[str]
):
    if nvjpeg is None:
        pytest.skip("how often a real nvJPEG decodes is not counted")
    text = TINY[: TINY.index("[[phases]]")].replace("size = 32 }", "size = 64 }")
    phase = "[[phases]]\nsize = 32\nepochs = 1\nlr = 3e-3\nbatch_size = 16\n"
    (here / "tiny.toml").write_text('decode = "gpu"\nprecision = "fp32"\nviews = ["flips"]\n' + text + phase)
    counts = []
    for command in ("download", "folds", "train", "look", "predict", "blend", "decide", "adversarial"):
        assert main([command, "tiny.toml"]) == 0, command
        counts.append(nvjpeg.n_decoded)
    assert set(counts[:2]) == {0}
    assert set(counts[2:]) == {1 + 90 + 60}  # each image once, by train
    assert main(["infer", "tiny.toml", "--force"]) == 0
    assert nvjpeg.n_decoded == counts[-1] + 1 + 60  # from a folder of its own


def test_the_key_is_in_the_models_stamp_and_not_for_images_with_channels_of_their_own():
    assert stamped_settings(load_recipe("planet", ["decode=gpu"]))["decode"] == "gpu"
    assert "decode" not in stamped_settings(load_recipe("planet"))
    with pytest.raises(CompError, match="decode = 'gpu' needs RGB images; hpa has the channels"):
        load_recipe("hpa", ["decode=gpu"])
