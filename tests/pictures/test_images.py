"""Pictures of every kind that a data set holds, and files that are none."""

import io
import pickle
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest
from PIL import Image, PngImagePlugin

from pictures.images import PictureCache, read_image, read_size, read_values, resize_image

RED, BLUE = (200, 30, 40), (20, 60, 210)


def two_halves(width: int = 48, height: int = 32) -> np.ndarray:
    """Left red, right blue, the upper left quarter darker: no rotation or mirror leaves it the same."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[:, : width // 2], picture[:, width // 2 :] = RED, BLUE
    picture[: height // 2, : width // 2] //= 2
    return picture


def assert_near(actual: np.ndarray, expected: np.ndarray, tolerance: float = 6) -> None:
    """Equal but for JPEG's losses, which are largest along edges: compared in the middle of each quarter."""
    assert actual.dtype == np.uint8
    assert actual.shape == expected.shape
    height, width = expected.shape[:2]
    for y in (height // 4, 3 * height // 4):
        for x in (width // 4, 3 * width // 4):
            difference = np.abs(actual[y, x].astype(int) - expected[y, x].astype(int)).max()
            assert difference <= tolerance, f"at {x}, {y}: {actual[y, x]}, expected {expected[y, x]}"


@pytest.mark.parametrize("suffix", ["png", "jpg", "webp", "bmp", "gif", "tif"])
def test_colour_pictures_are_read_as_rgb(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"picture.{suffix}"
    Image.fromarray(two_halves()).save(path, quality=95)
    image = read_image(path)
    assert_near(image, two_halves(), tolerance=10)
    assert image.flags.writeable
    assert image.flags.c_contiguous


@pytest.mark.parametrize("suffix", ["png", "jpg"])
def test_grey_pictures_get_three_equal_channels(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"grey.{suffix}"
    Image.fromarray(two_halves()).convert("L").save(path)
    image = read_image(path)
    assert image.shape == (32, 48, 3)
    assert (image[..., 0] == image[..., 1]).all()
    assert (image[..., 0] == image[..., 2]).all()
    assert image[24, 12, 0] == pytest.approx(0.299 * 200 + 0.587 * 30 + 0.114 * 40, abs=2)


def test_cmyk_jpeg_has_its_colours(tmp_path: Path) -> None:
    path = tmp_path / "cmyk.jpg"
    Image.fromarray(two_halves()).convert("CMYK").save(path, quality=95)
    with Image.open(path) as stored:
        assert stored.mode == "CMYK"
    assert_near(read_image(path), two_halves())


@pytest.mark.parametrize(
    ("orientation", "upright"),
    [
        (1, lambda stored: stored),
        (2, lambda stored: stored[:, ::-1]),
        (3, lambda stored: stored[::-1, ::-1]),
        (4, lambda stored: stored[::-1]),
        (5, lambda stored: stored.transpose(1, 0, 2)),
        (6, lambda stored: np.rot90(stored, k=-1)),
        (7, lambda stored: stored[::-1, ::-1].transpose(1, 0, 2)),
        (8, lambda stored: np.rot90(stored, k=1)),
    ],
)
def test_exif_orientation_is_undone(
    tmp_path: Path, orientation: int, upright: Callable[[np.ndarray], np.ndarray]
) -> None:
    path = tmp_path / "turned.jpg"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.fromarray(two_halves()).save(path, quality=95, exif=exif)
    assert_near(read_image(path), upright(two_halves()))


def test_damaged_exif_does_not_hide_a_whole_picture(tmp_path: Path) -> None:
    path = tmp_path / "odd.jpg"
    Image.fromarray(two_halves()).save(path, quality=95, exif=b"Exif\x00\x00MM\x00*\x00\x00\xff\xff junk")
    assert_near(read_image(path), two_halves())


def test_alpha_is_dropped(tmp_path: Path) -> None:
    alpha = np.full((32, 48, 1), 90, np.uint8)
    Image.fromarray(np.concatenate([two_halves(), alpha], axis=2)).save(tmp_path / "clear.png")
    np.testing.assert_array_equal(read_image(tmp_path / "clear.png"), two_halves())
    grey = np.concatenate([two_halves()[..., :1], alpha], axis=2)
    Image.fromarray(grey).save(tmp_path / "grey.png")
    np.testing.assert_array_equal(read_image(tmp_path / "grey.png"), np.repeat(grey[..., :1], 3, axis=2))


def test_palette_pictures_also_with_transparency(tmp_path: Path) -> None:
    picture = Image.fromarray(two_halves()).quantize(3)
    picture.save(tmp_path / "plain.png")
    picture.save(tmp_path / "clear.png", transparency=bytes([0, 128, 255]))
    for name in ("plain.png", "clear.png"):
        with Image.open(tmp_path / name) as stored:
            assert stored.mode == "P"
        assert_near(read_image(tmp_path / name), two_halves())


def test_sixteen_bits_keep_the_high_byte(tmp_path: Path) -> None:
    values = np.array([[0, 255, 256, 4096], [32768, 65279, 65280, 65535]], np.uint16)
    expected = np.array([[0, 0, 1, 16], [128, 254, 255, 255]], np.uint8)
    for suffix in ("png", "tif"):
        path = tmp_path / f"deep.{suffix}"
        Image.fromarray(values).save(path)
        np.testing.assert_array_equal(read_image(path), np.repeat(expected[..., None], 3, axis=2))


def test_one_bit_pictures_are_black_and_white(tmp_path: Path) -> None:
    Image.fromarray(np.array([[0, 255], [255, 0]], np.uint8)).convert("1").save(tmp_path / "bits.png")
    assert read_image(tmp_path / "bits.png")[..., 0].tolist() == [[0, 255], [255, 0]]


def test_floats_and_wide_integers_are_refused(tmp_path: Path) -> None:
    Image.fromarray(np.full((4, 4), 0.5, np.float32)).save(tmp_path / "floats.tif")
    with pytest.raises(ValueError, match=r"floats\.tif.*floating point.*8 or 16 bits"):
        read_image(tmp_path / "floats.tif")
    Image.fromarray(np.full((4, 4), 70000, np.int32)).save(tmp_path / "wide.tif")
    with pytest.raises(ValueError, match=r"wide\.tif.*32-bit"):
        read_image(tmp_path / "wide.tif")


def one_line(error: BaseException, path: Path) -> str:
    """The message, which must be one line that names the file."""
    message = str(error)
    assert str(path) in message
    assert "\n" not in message
    return message


def read_or_one_line(path: Path) -> np.ndarray | None:
    """The picture, or None where it is refused in one line; any other error fails the test."""
    try:
        return read_image(path)
    except ValueError as error:
        one_line(error, path)
        return None


def test_files_that_are_no_pictures(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError) as caught:
        read_image(tmp_path / "missing.jpg")
    assert "no picture at" in one_line(caught.value, tmp_path / "missing.jpg")
    with pytest.raises(ValueError, match="folder"):
        read_image(tmp_path)
    for name, contents, reason in (
        ("empty.jpg", b"", "empty"),
        ("text.jpg", b"these are words, not pixels\n" * 30, "no known picture format"),
        ("page.png", b"<!DOCTYPE html><html></html>", "no known picture format"),
    ):
        (tmp_path / name).write_bytes(contents)
        with pytest.raises(ValueError, match=reason) as caught:
            read_image(tmp_path / name)
        one_line(caught.value, tmp_path / name)


@pytest.mark.parametrize(
    ("suffix", "options"), [("jpg", {}), ("jpg", {"progressive": True}), ("png", {}), ("webp", {})]
)
def test_a_cut_file_is_refused_wherever_it_is_cut(tmp_path: Path, suffix: str, options: dict[str, bool]) -> None:
    noise = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(noise).save(buffer, "jpeg" if suffix == "jpg" else suffix, **options)
    whole = buffer.getvalue()
    path = tmp_path / f"cut.{suffix}"
    path.write_bytes(whole)
    complete = read_image(path)
    refused = 0
    for length in [*range(1, len(whole), max(1, len(whole) // 60)), len(whole) - 2, len(whole) - 1]:
        path.write_bytes(whole[:length])
        image = read_or_one_line(path)
        refused += image is None
        if image is not None:  # only the end mark is gone: every pixel is there
            np.testing.assert_array_equal(image, complete)
    assert refused >= 60


def test_flipped_bytes_never_crash_and_never_say_more_than_a_line(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    Image.fromarray(two_halves()).save(buffer, "png")
    whole = buffer.getvalue()
    rng = np.random.default_rng(11)
    refused = 0
    for trial in range(150):
        damaged = bytearray(whole)
        damaged[int(rng.integers(len(whole)))] ^= int(rng.integers(1, 256))
        path = tmp_path / f"{trial}.png"
        path.write_bytes(damaged)
        refused += read_or_one_line(path) is None
    assert refused > 50


def test_resize_averages_when_it_shrinks() -> None:
    stripes = np.zeros((8, 8, 3), np.uint8)
    stripes[:, ::4] = 200
    assert (resize_image(stripes, (2, 2)) == 50).all()  # samples between the stripes would give 0
    assert resize_image(stripes, (12, 20)).shape == (12, 20, 3)
    assert resize_image(stripes, (8, 8)) is stripes


@pytest.mark.parametrize("size", [(320, 320), (480, 480), (100, 90), (60, 640)])
def test_a_quarter_or_less_has_no_more_noise_than_averages_have(size: tuple[int, int]) -> None:
    noise = np.random.default_rng(0).integers(64, 192, (720, 1280, 3), dtype=np.uint8)
    exact = cv2.resize(noise, size[::-1], interpolation=cv2.INTER_AREA)
    resized = resize_image(noise, size)
    assert resized.shape == (*size, 3)
    assert abs(resized.mean() - noise.mean()) < 1  # each pass rounds
    assert resized.std() < 1.25 * exact.std() < noise.std()
    smooth = cv2.GaussianBlur(noise, (0, 0), 20)
    assert abs(resize_image(smooth, size).astype(int) - cv2.resize(smooth, size[::-1])).max() <= 2


def test_less_shrinking_is_the_exact_average_and_odd_sides_are_taken() -> None:
    picture = np.random.default_rng(0).integers(0, 256, (99, 77, 3), dtype=np.uint8)
    assert (resize_image(picture, (60, 50)) == cv2.resize(picture, (50, 60), interpolation=cv2.INTER_AREA)).all()
    for size in ((1, 1), (49, 38), (3, 76)):
        shrunk = resize_image(picture, size)
        assert shrunk.shape == (*size, 3)
        assert abs(shrunk.mean() - picture.mean()) < 10


def test_cache_gives_back_what_was_put_and_nothing_else() -> None:
    cache = PictureCache([(4, 6), (2, 2)])
    assert cache.get(0) is None
    first = np.arange(72, dtype=np.uint8).reshape(4, 6, 3)
    cache.put(0, first)
    found = cache.get(0)
    assert found is not None
    np.testing.assert_array_equal(found, first)
    assert not found.flags.writeable
    assert cache.get(1) is None
    copy = pickle.loads(pickle.dumps(cache))
    assert copy.get(0) is None
    copy.put(1, np.full((2, 2, 3), 9, np.uint8))
    assert cache.get(1) is None


def test_cache_says_how_much_memory_it_lacks() -> None:
    with pytest.raises(OSError, match=r"1 pictures, \d+\.\d GiB"):
        PictureCache([(10**7, 10**9)])


def test_stored_values_are_places_in_the_palette_and_no_colours(tmp_path):
    values = np.arange(24, dtype=np.uint8).reshape(4, 6)
    palette = Image.frombytes("P", (6, 4), values.tobytes())
    palette.putpalette([9, 9, 9] * 256)
    palette.save(tmp_path / "palette.png")
    Image.fromarray(values).save(tmp_path / "grey.png")
    Image.fromarray(values.repeat(3).reshape(4, 6, 3)).save(tmp_path / "three_channels.png")
    Image.fromarray(values.astype(np.uint16)).save(tmp_path / "sixteen_bits.png")
    for path in sorted(tmp_path.iterdir()):
        np.testing.assert_array_equal(read_values(path), values)
        assert read_values(path).dtype == np.uint8
    Image.fromarray(values > 11).save(tmp_path / "one_bit.png")
    np.testing.assert_array_equal(read_values(tmp_path / "one_bit.png"), values > 11)


@pytest.mark.parametrize(
    ("values", "name", "message"),
    [
        (np.full((4, 6), 256, np.uint16), "wide.png", "values from 256 to 256; expected whole numbers 0..255"),
        (np.full((4, 6), 0.5, np.float32), "floats.tif", "expected whole numbers"),
        (np.arange(72, dtype=np.uint8).reshape(4, 6, 3), "colours.png", r"colours \(RGB\); expected one value a pixel"),
        (np.zeros((4, 6, 4), np.uint8), "see_through.png", r"colours \(RGBA\)"),
        (np.zeros((4, 6), np.uint8), "lossy.jpg", "a JPEG, which does not keep values"),
    ],
)
def test_pictures_that_hold_no_values(tmp_path, values, name, message):
    Image.fromarray(values).save(tmp_path / name)
    with pytest.raises(ValueError, match=rf"{name} is not a readable picture: .*{message}"):
        read_values(tmp_path / name)


@pytest.mark.parametrize("suffix", [".jpg", ".png", ".webp", ".tif"])
@pytest.mark.parametrize("orientation", [1, 3, 6, 8])
def test_the_size_from_the_head_is_that_of_the_upright_picture(tmp_path, orientation, suffix):
    path = tmp_path / f"turned{suffix}"
    exif = Image.Exif()
    exif[0x0112] = orientation
    Image.new("RGB", (6, 4)).save(path, exif=exif)
    assert read_size(path) == read_image(path).shape[:2]
    with pytest.raises(FileNotFoundError, match="no picture at"):
        read_size(tmp_path / "none.jpg")


def behind_pixels(path: Path, kind: bytes, body: bytes) -> None:
    """A PNG with one more chunk before its end mark."""
    Image.new("RGB", (6, 4)).save(path)
    chunk = struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body))
    content = path.read_bytes()
    path.write_bytes(content[:-12] + chunk + content[-12:])


def quarter_turn() -> bytes:
    exif = Image.Exif()
    exif[0x0112] = 6
    return exif.tobytes()


@pytest.mark.parametrize(
    ("kind", "body"),
    [
        (b"eXIf", quarter_turn().removeprefix(b"Exif\0\0")),
        (b"tEXt", b"Raw profile type exif\0\nexif\n%8d\n%s\n" % (len(quarter_turn()), quarter_turn().hex().encode())),
        (b"iTXt", b'XML:com.adobe.xmp\0\0\0\0\0<x:xmpmeta tiff:Orientation="6"/>'),
    ],
)
def test_the_size_of_a_png_that_says_behind_its_pixels_how_it_is_turned(tmp_path, kind, body):
    behind_pixels(tmp_path / "turned.png", kind, body)
    assert read_size(tmp_path / "turned.png") == read_image(tmp_path / "turned.png").shape[:2] == (6, 4)


def test_the_size_of_a_png_is_read_without_its_pixels(tmp_path, monkeypatch):
    Image.new("RGB", (6, 4)).save(tmp_path / "bare.png")
    behind_pixels(tmp_path / "dated.png", b"tEXt", b"date:create\0today")
    known = Image.Exif()
    known[0x0112] = 6
    Image.new("RGB", (6, 4)).save(tmp_path / "turned.png", exif=known)
    monkeypatch.setattr(PngImagePlugin.PngImageFile, "load", lambda _: pytest.fail("it was decoded"))
    sizes = [read_size(tmp_path / name) for name in ("bare.png", "dated.png", "turned.png")]
    assert sizes == [(4, 6), (4, 6), (6, 4)]


@pytest.mark.parametrize("start", ["pixels", "end"])
def test_a_damaged_png_has_a_size_where_it_can_be_read(tmp_path, start):
    """Bytes changed, or all that follows cut off."""
    noise = np.random.default_rng(3).integers(0, 256, (40, 56, 3), dtype=np.uint8)
    Image.fromarray(noise).save(tmp_path / "whole.png")
    whole = (tmp_path / "whole.png").read_bytes()
    rng = np.random.default_rng(11)
    refused = 0
    for trial in range(100):
        place = int(rng.integers(whole.index(b"IDAT") if start == "pixels" else len(whole) - 20, len(whole)))
        change = bytes([whole[place] ^ int(rng.integers(1, 256))]) + whole[place + 1 :] if trial % 2 else b""
        path = tmp_path / f"{trial}.png"
        path.write_bytes(whole[:place] + change)
        image = read_or_one_line(path)
        refused += image is None
        if image is not None:
            assert read_size(path) == image.shape[:2]
        else:
            with pytest.raises(ValueError, match="not a readable picture"):
                read_size(path)
    assert refused >= (50 if start == "pixels" else 1)


@pytest.mark.parametrize("bits", [1, 2, 4, 8])
def test_values_of_few_bits_are_as_stored(tmp_path, bits):
    row = list(range(min(2**bits, 16)))
    digits = "".join(f"{value:0{bits}b}" for value in row)
    packed = bytes(int(digits[at : at + 8].ljust(8, "0"), 2) for at in range(0, len(digits), 8))
    header = struct.pack(">IIBBBBB", len(row), 1, bits, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(b"\0" + packed)), (b"IEND", b""))
    content = b"".join(
        struct.pack(">I", len(body)) + kind + body + struct.pack(">I", zlib.crc32(kind + body)) for kind, body in chunks
    )
    (tmp_path / "few.png").write_bytes(b"\x89PNG\r\n\x1a\n" + content)
    assert read_values(tmp_path / "few.png").tolist() == [row]


def test_a_side_that_shrinks_much_is_averaged_though_the_other_grows():
    panorama = np.zeros((30, 400, 3), np.uint8)
    panorama[:, ::10] = 255
    assert abs(resize_image(panorama, (60, 40)).mean() - panorama.mean()) < 1
    assert resize_image(panorama.transpose(1, 0, 2), (40, 60)).shape == (40, 60, 3)
