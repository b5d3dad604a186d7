"""ifvit/data/images.py"""

import errno
import os
import subprocess
import sys
import threading
import time
import weakref
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from PIL._util import DeferredError

from ifvit.config.errors import UserError
from ifvit.data import images as images_module
from ifvit.data.coco import CaptionedImage
from ifvit.data.images import BadImageError, load_pixels


def loaded(path: Path, size: int = 16) -> torch.Tensor:
    return load_pixels(CaptionedImage(42, path, ("a caption",)), size)


def saved(image: Image.Image, path: Path, **options) -> Path:
    image.save(path, **options)
    return path


def noise_image(width: int, height: int) -> Image.Image:
    blocks = np.random.default_rng(0).integers(0, 256, (9, 9, 3), dtype=np.uint8)
    return Image.fromarray(blocks).resize((width, height), Image.Resampling.BICUBIC)


@pytest.mark.parametrize("width, height", [(91, 64), (64, 91), (64, 64), (33, 20)])
def test_crop_to_the_shorter_side_then_resize(tmp_path: Path, width: int, height: int) -> None:
    """The baseline's own lines, on the array; resizing first would give other pixels."""
    path = saved(noise_image(width, height), tmp_path / "image.png")
    array = np.array(Image.open(path))
    crop = min(array.shape[:2])
    array = array[
        (array.shape[0] - crop) // 2 : (array.shape[0] + crop) // 2,
        (array.shape[1] - crop) // 2 : (array.shape[1] + crop) // 2,
    ]
    resized = np.array(Image.fromarray(array).resize((16, 16), resample=Image.LANCZOS)).astype(np.float32)
    expected = torch.from_numpy((resized / 127.5 - 1.0).transpose(2, 0, 1).copy())
    torch.testing.assert_close(loaded(path), expected, rtol=0, atol=0)
    if width != height:
        squashed = np.asarray(Image.open(path).resize((16, 16), Image.LANCZOS), np.float32) / 127.5 - 1
        assert (loaded(path) - torch.from_numpy(squashed).permute(2, 0, 1)).abs().mean() > 0.05


def test_range_and_layout(tmp_path: Path) -> None:
    array = np.zeros((20, 20, 3), np.uint8)
    array[:10, :, 0] = 255  # red above, black below
    pixels = loaded(saved(Image.fromarray(array), tmp_path / "image.png"), 20)
    assert pixels.shape == (3, 20, 20)
    assert pixels.dtype == torch.float32
    assert (pixels[0, 0, 0], pixels[0, -1, 0], pixels[1, 0, 0]) == (1, -1, -1)


def color(pixels: torch.Tensor) -> list[int]:
    return ((pixels.mean((1, 2)) + 1) * 127.5).round().int().tolist()


def paletted() -> Image.Image:
    image = Image.new("P", (20, 20), 1)
    image.putpalette([0, 0, 0, 10, 200, 30])
    return image


@pytest.mark.parametrize(
    "image, name, options, expected",
    [
        (Image.new("L", (20, 20), 77), "image.png", {}, [77, 77, 77]),
        (Image.new("1", (20, 20), 1), "image.png", {}, [255, 255, 255]),
        (Image.new("LA", (20, 20), (0, 0)), "image.png", {}, [255, 255, 255]),
        (Image.new("LA", (20, 20), (77, 255)), "image.png", {}, [77, 77, 77]),
        (Image.new("RGBA", (20, 20), (255, 0, 0, 128)), "image.png", {}, [255, 127, 127]),
        (Image.new("RGBA", (20, 20), (9, 9, 9, 0)), "image.png", {}, [255, 255, 255]),
        (paletted(), "image.png", {}, [10, 200, 30]),
        (paletted(), "image.png", {"transparency": 1}, [255, 255, 255]),
        (Image.new("CMYK", (20, 20), (0, 255, 255, 0)), "image.jpg", {"quality": 100}, [254, 0, 0]),
        (Image.fromarray(np.full((20, 20), 257 * 77, np.uint16)), "image.png", {}, [77, 77, 77]),
        (Image.fromarray(np.full((20, 20), 65535, np.uint16)), "image.tif", {}, [255, 255, 255]),
    ],
    ids=["L", "1", "LA clear", "LA", "RGBA half", "RGBA clear", "P", "P clear", "CMYK", "16 bit", "16 bit tiff"],
)
def test_modes(tmp_path: Path, image: Image.Image, name: str, options: dict, expected: list[int]) -> None:
    assert color(loaded(saved(image, tmp_path / name, **options))) == pytest.approx(expected, abs=1)


def test_exif_orientation_is_respected(tmp_path: Path) -> None:
    array = np.zeros((20, 20, 3), np.uint8)
    array[:10] = 255
    image = Image.fromarray(array)
    exif = image.getexif()
    exif[0x0112] = 6  # rotate by 90 degrees clockwise to show
    pixels = loaded(saved(image, tmp_path / "image.png", exif=exif), 20)
    assert pixels[:, :, -1].mean() > 0.9
    assert pixels[:, :, 0].mean() < -0.9


@pytest.mark.parametrize("size", [(1, 1), (1, 20_000), (3000, 2)])
def test_odd_sizes(tmp_path: Path, size: tuple[int, int]) -> None:
    assert color(loaded(saved(Image.new("RGB", size, (1, 2, 3)), tmp_path / "image.png"))) == [1, 2, 3]


def test_of_an_animation_the_first_picture(tmp_path: Path) -> None:
    frames = [Image.new("RGB", (20, 20), name) for name in ("red", "blue")]
    path = saved(frames[0], tmp_path / "image.gif", save_all=True, append_images=frames[1:])
    assert color(loaded(path)) == [255, 0, 0]


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-600])


def replace_by(make):
    def damage(path: Path) -> None:
        path.unlink()
        make(path)

    return damage


def postscript(path: Path) -> None:
    """PIL would start Ghostscript, which runs programs, on such a file of any name."""
    path.write_bytes(b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\nshowpage\n%%EOF\n")
    with Image.open(path) as image:
        assert image.format == "EPS"


@pytest.mark.parametrize(
    "damage, message",
    [
        (truncate, "cannot be decoded .*truncated"),
        (lambda path: path.write_text("this is text"), "is no image in one of the formats JPEG, PNG"),
        (lambda path: path.write_bytes(b""), "has 0 bytes"),
        (lambda path: Image.fromarray(np.zeros((20, 20), np.float32)).save(path, "TIFF"), "has PIL's mode F"),
        (Path.unlink, "cannot be opened .No such file"),
        (replace_by(os.mkdir), "is no regular file"),
        (replace_by(os.mkfifo), "is no regular file"),
        (replace_by(lambda path: path.symlink_to(path)), "cannot be opened .Too many"),
        (postscript, "is no image in one of the formats"),
    ],
)
def test_a_bad_file_is_named_with_its_id(tmp_path: Path, damage, message: str) -> None:
    path = saved(noise_image(64, 64), tmp_path / "image.jpg")
    damage(path)
    with pytest.raises(BadImageError, match=rf"^image 42: .*image\.jpg: {message}"):
        loaded(path)


def test_what_an_image_says_is_printed_escaped(tmp_path: Path) -> None:
    path = tmp_path / "\x1b[31m\u202e.jpg"
    path.write_text("text")
    with pytest.raises(BadImageError) as caught:
        loaded(path)
    assert str(caught.value).isprintable()
    assert "\\x1b[31m\\u202e.jpg" in str(caught.value)


def test_storage_that_fails_is_not_the_fault_of_the_image(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(noise_image(64, 64), tmp_path / "image.png")

    def failing(*_: object, **__: object) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr(os, "open", failing)
    with pytest.raises(UserError, match=r"^image 42: .*reading it fails .*Input/output error") as caught:
        loaded(path)
    assert not isinstance(caught.value, BadImageError)
    monkeypatch.undo()
    monkeypatch.setattr(images_module, "centre_square", failing)
    with pytest.raises(UserError, match="reading it fails") as caught:
        loaded(path)
    assert not isinstance(caught.value, BadImageError)


@pytest.mark.parametrize("name", ["image.png", "image.jpg", "image.webp", "image.tif", "image.gif"])
def test_a_member_of_a_tar_is_read_where_it_lies(tmp_path: Path, name: str) -> None:
    alone = saved(noise_image(64, 40), tmp_path / name)
    content = alone.read_bytes()
    around = tmp_path / "around.tar"
    around.write_bytes(b"before" * 100 + content + b"after" * 100)
    inside = CaptionedImage(42, around, ("a caption",), (600, len(content)))
    torch.testing.assert_close(load_pixels(inside, 16), loaded(alone), rtol=0, atol=0)


def test_a_member_ends_where_it_ends(tmp_path: Path) -> None:
    content = saved(noise_image(64, 40), tmp_path / "image.jpg").read_bytes()
    around = tmp_path / "around.tar"
    around.write_bytes(content)
    with pytest.raises(BadImageError, match=r"around\.tar at byte 0: cannot be decoded .*truncated"):
        load_pixels(CaptionedImage(42, around, (), (0, len(content) - 600)), 16)
    with pytest.raises(BadImageError, match=r"around\.tar at byte 7: has 0 bytes"):
        load_pixels(CaptionedImage(42, around, (), (7, 0)), 16)


@pytest.mark.fault(
    "F22",
    injected="images of 64 to 196 megapixels in a few KB",
    detected="refused by their header, not decoded",
    recovered="quarantined",
    lost="the image, counted",
)
@pytest.mark.parametrize("side", [8001, 10_000, 14_000])
def test_a_bomb_is_refused_before_it_is_decoded(
    tmp_path: Path, side: int, monkeypatch: pytest.MonkeyPatch, recwarn: pytest.WarningsRecorder
) -> None:
    path = saved(Image.new("1", (side, side)), tmp_path / "image.png")
    monkeypatch.setattr(Image.Image, "load", lambda self: pytest.fail("decoded"))
    monkeypatch.setattr(images_module, "centre_square", lambda *_: pytest.fail("decoded"))
    with pytest.raises(UserError, match=r"^image 42: .*more than 64000000"):
        loaded(path)


@pytest.mark.fault(
    "F22",
    injected="the worst images one after the other",
    detected="memory is measured",
    recovered="less than 400 MB over the baseline",
    lost="the quarantined images, counted",
)
def test_memory_stays_small_for_the_worst_images(tmp_path: Path) -> None:
    """Fault F22: less than 400 MB over the baseline, in a process that does nothing else."""
    saved(Image.new("1", (13_000, 13_000)), tmp_path / "bomb.png")
    saved(Image.new("1", (9_000, 9_000)), tmp_path / "smaller bomb.png")  # PIL would not even warn
    saved(Image.new("RGB", (1, 20_000)), tmp_path / "tall.png")
    saved(Image.new("RGBA", (3000, 2000)), tmp_path / "rgba.png")
    saved(Image.new("CMYK", (2500, 2500)), tmp_path / "cmyk.jpg")
    saved(Image.fromarray(np.zeros((2000, 3000), np.uint16)), tmp_path / "deep.png")
    frames = [Image.new("P", (1000, 1000), color) for color in range(20)]
    saved(frames[0], tmp_path / "animated.gif", save_all=True, append_images=frames[1:])
    code = f"""
import resource
from pathlib import Path
from ifvit.data.coco import CaptionedImage
from ifvit.data.images import BadImageError, load_pixels, refuse_bombs
refuse_bombs()
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
refused = set()
for path in sorted(Path({str(tmp_path)!r}).iterdir()):
    try:
        load_pixels(CaptionedImage(1, path, ()), 32)
    except BadImageError as error:
        refused.add((path.stem, error.reason))
assert refused == {{("bomb", "too many pixels"), ("smaller bomb", "too many pixels")}}, refused
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1024)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < 400


def saved_at_the_cap(folder: Path, kind: str) -> None:
    """An image of MAX_PIXELS, of a kind for which more than its pixels was in memory once."""
    folder.mkdir()
    path, size = folder / kind, (8000, 8000)
    if kind == "rgba.png":
        Image.new("RGBA", size, (1, 2, 3, 4)).save(path, compress_level=1)
    elif kind == "deep.png":
        Image.fromarray(np.zeros(size, np.uint16)).save(path, compress_level=1)
    elif kind == "truncated.png":
        Image.new("RGB", size).save(path, compress_level=1)
        path.write_bytes(path.read_bytes()[:-600])
    else:
        image = Image.new("RGB", size)
        exif = image.getexif()
        exif[0x0112] = 6
        image.save(path, exif=exif, progressive=kind == "progressive.jpg")


@pytest.mark.fault(
    "F22",
    injected="a queue of images at the cap of 64 megapixels",
    detected="memory is measured",
    recovered="large images are decoded one at a time",
    lost="nothing",
)
@pytest.mark.parametrize(
    "kind, megabytes",
    [
        ("rgba.png", 400),
        ("deep.png", 400),
        ("truncated.png", 400),
        ("rotated.jpg", 400),
        ("progressive.jpg", 512),  # coefficients and pixels: 7 bytes a pixel, more without subsampling
    ],
)
def test_memory_stays_small_for_a_queue_of_images_at_the_cap(tmp_path: Path, kind: str, megabytes: int) -> None:
    """Fault F22 with the threads that decode, in a process that does nothing else."""
    saved_at_the_cap(tmp_path / "images", kind)
    code = f"""
import resource
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from ifvit.data.coco import CaptionedImage
from ifvit.data.images import BadImageError, load_pixels
path, = Path({str(tmp_path / "images")!r}).iterdir()
def outcome(_):
    try:
        return load_pixels(CaptionedImage(1, path, ()), 32)
    except BadImageError as error:
        return error
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
with ThreadPoolExecutor(4) as pool:
    outcomes = list(pool.map(outcome, range(4)))
assert all(isinstance(each, BadImageError) == (path.stem == "truncated") for each in outcomes), outcomes
print((resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before) // 1000)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert int(done.stdout) < megabytes


@pytest.mark.parametrize("limit", ["LARGE_PIXELS", "LARGE_BYTES"])
def test_one_large_image_at_a_time(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    path = saved(noise_image(64, 64), tmp_path / "image.png")
    monkeypatch.setattr(images_module, limit, 64 * 64 - 1 if limit == "LARGE_PIXELS" else 100)
    decoding, most = 0, 0
    counting = threading.Lock()

    def slow(image: Image.Image, size: int) -> Image.Image:
        nonlocal decoding, most
        with counting:
            decoding += 1
            most = max(most, decoding)
        time.sleep(0.05)
        with counting:
            decoding -= 1
        return image.resize((size, size))

    monkeypatch.setattr(images_module, "centre_square", slow)
    with ThreadPoolExecutor(4) as pool:
        list(pool.map(loaded, [path] * 8))
    assert most == 1


def test_an_error_that_is_kept_holds_no_pixels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = saved(noise_image(64, 64), tmp_path / "image.png")
    held: list[weakref.ref] = []

    def failing(image: Image.Image, size: int) -> None:
        image.load()
        pixels = np.asarray(image).copy()
        held.extend([weakref.ref(pixels), weakref.ref(image)])
        raise ValueError("broken")

    monkeypatch.setattr(images_module, "centre_square", failing)
    with pytest.raises(BadImageError, match="broken") as caught:
        loaded(path)
    assert caught.value.__traceback__ is not None
    pixels, image = (reference() for reference in held)
    assert pixels is None
    assert image is None or isinstance(image._im, DeferredError)  # closed
