"""Images: whatever comes in, the network gets the same 8-bit upright RGB pixels the published processor would."""

import io
import struct
import threading
import warnings
import zlib

import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageCms

from openflorence.errors import BadConfig, BadImage
from openflorence.model.images import FORMATS, read_image, to_batch, to_pixels
from openflorence.model.sources import ImageLimits

RED, GREEN, BLUE, WHITE = (255, 0, 0), (0, 255, 0), (0, 0, 255), (255, 255, 255)


def colours(image: Image.Image) -> list[tuple[int, ...]]:
    """Every pixel, row by row."""
    return [tuple(map(int, pixel)) for pixel in np.asarray(image).reshape(-1, 3)]


def encoded(image: Image.Image, kind: str = "PNG", **options: object) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def drawn(width: int = 7, height: int = 5) -> Image.Image:
    """A picture in which no two pixels are equal."""
    rows, columns = np.mgrid[:height, :width]
    pixels = np.stack([columns * 255 // width, rows * 255 // height, (columns + width * rows) % 256], axis=-1)
    return Image.fromarray(pixels.astype(np.uint8))


def two_by_one(mode: str, first: object, second: object) -> Image.Image:
    image = Image.new(mode, (2, 1))
    image.putpixel((0, 0), first)
    image.putpixel((1, 0), second)
    return image


# ---- every kind of input --------------------------------------------------------------------------------------------


def test_one_picture_is_the_same_through_every_door(tmp_path):
    picture = drawn()
    array = np.asarray(picture)
    path = tmp_path / "picture.png"
    path.write_bytes(encoded(picture))
    tensor = torch.from_numpy(array.copy())
    doors = {
        "path": path,
        "string": str(path),
        "bytes": path.read_bytes(),
        "bytearray": bytearray(path.read_bytes()),
        "memory": memoryview(path.read_bytes()),
        "file": io.BytesIO(path.read_bytes()),
        "PIL": picture,
        "PIL, not yet decoded": Image.open(path),
        "array": array,
        "array of floats": array / 255,
        "array of half floats": (array / 255).astype(np.float16),
        "array of 16 bits": array.astype(np.uint16) * 257,
        "array, mirrored memory": array[:, ::-1][:, ::-1],
        "tensor, channels last": tensor,
        "tensor, channels first": tensor.permute(2, 0, 1),
        "tensor of floats": tensor.permute(2, 0, 1) / 255,
        "tensor with a gradient": (tensor.permute(2, 0, 1) / 255).requires_grad_(),
        "tensor of bfloat16 floats": (tensor // 255 * 255).permute(2, 0, 1).to(torch.bfloat16) / 255,
    }
    for door, source in doors.items():
        read = read_image(source)
        wanted = picture if "bfloat16" not in door else Image.fromarray(array // 255 * 255)
        assert (read.mode, read.size) == ("RGB", (7, 5)), door
        assert colours(read) == colours(wanted), door


def test_a_home_folder_is_expanded(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "picture.png").write_bytes(encoded(drawn()))
    assert colours(read_image("~/picture.png")) == colours(drawn())


def test_the_source_is_left_as_it_was():
    picture = drawn()
    read_image(picture).putpixel((0, 0), (9, 9, 9))
    assert colours(picture) == colours(drawn())
    array = np.asarray(drawn()).copy()
    read_image(array).putpixel((0, 0), (9, 9, 9))
    assert (array == np.asarray(drawn())).all()


@pytest.mark.parametrize("kind", FORMATS)
def test_every_format_is_read(kind):
    if kind not in Image.SAVE:
        pytest.skip(f"this Pillow does not write {kind}")
    lossless = {"WEBP": {"lossless": True}, "AVIF": {"quality": 100}, "JPEG": {"quality": 100, "subsampling": 0}}
    read = read_image(encoded(drawn(24, 16), kind, **lossless.get(kind, {})))
    difference = np.abs(np.asarray(read, int) - np.asarray(drawn(24, 16), int)).mean()
    assert read.size == (24, 16)
    assert difference < 25  # GIF has 256 colours; nothing here is allowed to be another picture


def test_an_animation_gives_its_first_frame():
    frames = [Image.new("RGB", (3, 2), colour) for colour in (RED, GREEN, BLUE)]
    for kind in ("GIF", "WEBP", "PNG", "TIFF"):
        options = {"lossless": True} if kind == "WEBP" else {}
        data = encoded(frames[0], kind, save_all=True, append_images=frames[1:], **options)
        assert colours(read_image(data)) == [RED] * 6, kind


# ---- modes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["I;16", "I;16L", "I;16B", "I"])
def test_sixteen_bits_are_scaled_and_not_clipped(mode):
    # By hand: v / 257, to the nearest. Pillow's own conversion clips all of 256 and above to white.
    values = {0: 0, 128: 0, 129: 1, 257: 1, 32768: 128, 65406: 254, 65407: 255, 65535: 255}
    image = Image.new(mode, (len(values), 1))
    for column, value in enumerate(values):
        image.putpixel((column, 0), value)
    assert colours(read_image(image)) == [(level,) * 3 for level in values.values()]


def test_a_sixteen_bit_file_is_scaled():
    data = encoded(Image.fromarray(np.array([[0, 257 * 7, 65535]], np.uint16)))
    assert colours(read_image(data)) == [(0,) * 3, (7,) * 3, (255,) * 3]


@pytest.mark.parametrize(
    ("mode", "values", "levels"),
    [
        ("I", [0, 100, 255], [0, 100, 255]),  # an 8-bit picture, converted
        ("I", [0, 257, 65535], [0, 1, 255]),
        ("I", [0, 51_000, 255_000], [0, 51, 255]),  # its own range
        ("I", [-100, 0, 155], [0, 100, 255]),
        ("I", [-5, -5, -5], [0, 0, 0]),
        ("F", [0.0, 0.2, 1.0], [0, 51, 255]),
        ("F", [0.0, 100.0, 255.0], [0, 100, 255]),
        ("F", [0.0, 257.0, 65535.0], [0, 1, 255]),
        ("F", [-1.0, 0.6, 1.0], [0, 204, 255]),
    ],
)
def test_modes_without_a_white_of_their_own_find_it(mode, values, levels):
    image = Image.new(mode, (3, 1))
    for column, value in enumerate(values):
        image.putpixel((column, 0), value)
    assert colours(read_image(image)) == [(level,) * 3 for level in levels]


def test_transparency_lies_over_white():
    # By hand: black at alpha 128 over white is 255 * 127 / 255 = 127.
    half = (127, 127, 127)
    assert colours(read_image(two_by_one("RGBA", (0, 0, 0, 128), (9, 9, 9, 0)))) == [half, WHITE]
    assert colours(read_image(two_by_one("LA", (0, 128), (9, 0)))) == [half, WHITE]
    assert colours(read_image(two_by_one("La", (0, 128), (0, 0)))) == [half, WHITE]
    assert colours(read_image(two_by_one("RGBa", (0, 0, 0, 128), (0, 0, 0, 0)))) == [half, WHITE]
    rgba = np.array([[[255, 0, 0, 255], [255, 0, 0, 0]]], np.uint8)
    assert colours(read_image(rgba)) == [RED, WHITE]
    assert colours(read_image(torch.from_numpy(rgba).permute(2, 0, 1))) == [RED, WHITE]


def test_palettes_with_and_without_transparency():
    image = Image.new("P", (3, 1))
    image.putpalette([*RED, *GREEN, *BLUE])
    for column in range(3):
        image.putpixel((column, 0), column)
    assert colours(read_image(image)) == [RED, GREEN, BLUE]
    assert colours(read_image(encoded(image, transparency=1))) == [RED, WHITE, BLUE]
    assert colours(read_image(encoded(image, "GIF", transparency=1))) == [RED, WHITE, BLUE]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert colours(read_image(encoded(image, transparency=bytes([255, 0, 255])))) == [RED, WHITE, BLUE]
    both = Image.merge("LA", [Image.frombytes("L", (3, 1), bytes([0, 1, 2])), Image.new("L", (3, 1), 255)])
    with_alpha = Image.frombytes("PA", (3, 1), both.tobytes())
    with_alpha.putpalette([*RED, *GREEN, *BLUE])
    assert colours(read_image(with_alpha)) == [RED, GREEN, BLUE]


def test_one_transparent_colour_of_a_grey_or_rgb_file_is_white():
    assert colours(read_image(encoded(two_by_one("L", 7, 8), transparency=8))) == [(7, 7, 7), WHITE]
    assert colours(read_image(encoded(two_by_one("RGB", RED, BLUE), transparency=BLUE))) == [RED, WHITE]


def test_grey_and_black_and_white():
    assert colours(read_image(two_by_one("1", 0, 1))) == [(0, 0, 0), WHITE]
    assert colours(read_image(two_by_one("L", 7, 200))) == [(7, 7, 7), (200, 200, 200)]
    assert colours(read_image(np.array([[7, 200]], np.uint8))) == [(7, 7, 7), (200, 200, 200)]
    assert colours(read_image(np.array([[[7], [200]]], np.uint8))) == [(7, 7, 7), (200, 200, 200)]
    assert colours(read_image(np.array([[False, True]]))) == [(0, 0, 0), WHITE]
    assert colours(read_image(torch.tensor([[[7, 200]]], dtype=torch.uint8))) == [(7, 7, 7), (200, 200, 200)]


def test_inks_and_other_colour_spaces():
    assert colours(read_image(two_by_one("CMYK", (0, 255, 255, 0), (0, 0, 0, 0)))) == [RED, WHITE]
    assert colours(read_image(two_by_one("HSV", (0, 255, 255), (0, 0, 255)))) == [RED, WHITE]
    # BT.601: Y 76, Cb 85, Cr 255 is pure red but for rounding.
    assert (
        np.abs(np.subtract(colours(read_image(two_by_one("YCbCr", (76, 85, 255), (255, 128, 128))))[0], RED)).max() < 3
    )
    lab = ImageCms.buildTransform(ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB"), "RGB", "LAB")
    red = ImageCms.applyTransform(Image.new("RGB", (2, 1), RED), lab)
    assert np.abs(np.subtract(colours(read_image(red))[0], RED)).max() < 6  # 8 bits of L, a and b


def test_a_jpeg_in_ink_is_not_a_negative():
    # Adobe writes inks inverted, as Pillow does; reading them as they stand would give a dark picture.
    data = encoded(Image.new("CMYK", (16, 16), (0, 0, 0, 0)), "JPEG", quality=95)
    assert b"Adobe" in data
    assert min(min(colour) for colour in colours(read_image(data))) > 250


# ---- orientation ----------------------------------------------------------------------------------------------------

UPRIGHT = "ab\ncd\nef"  # drawn upright: 2 wide, 3 high
# What a camera stores for each orientation. Source: Exif 2.3, tag 274: where the stored row 0 and column 0 lie.
STORED = {
    1: "ab\ncd\nef",  # row 0 at the top, column 0 at the left
    2: "ba\ndc\nfe",  # top, right
    3: "fe\ndc\nba",  # bottom, right
    4: "ef\ncd\nab",  # bottom, left
    5: "ace\nbdf",  # left, top
    6: "bdf\nace",  # right, top
    7: "fdb\neca",  # right, bottom
    8: "eca\nfdb",  # left, bottom
}


def drawn_letters(letters: str) -> Image.Image:
    rows = [
        [{"a": 0, "b": 50, "c": 100, "d": 150, "e": 200, "f": 250}[letter] for letter in row] for row in letters.split()
    ]
    return Image.fromarray(np.array(rows, np.uint8)).convert("RGB")


@pytest.mark.parametrize("orientation", STORED)
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "PIL"])
def test_all_eight_orientations_are_turned_upright(kind, orientation):
    blocks = drawn_letters(STORED[orientation])
    stored = blocks.resize((blocks.width * 16, blocks.height * 16), Image.Resampling.NEAREST)  # whole JPEG blocks
    exif = Image.Exif()
    exif[274] = orientation
    options = {"quality": 95} if kind == "JPEG" else {"lossless": True} if kind == "WEBP" else {}
    data = encoded(stored, "JPEG" if kind == "PIL" else kind, exif=exif, **options)
    read = read_image(Image.open(io.BytesIO(data)) if kind == "PIL" else data)
    assert read.size == (32, 48)
    centres = np.asarray(read.convert("L"), int)[8::16, 8::16]
    assert np.abs(centres - np.asarray(drawn_letters(UPRIGHT).convert("L"), int)).max() < 6


def test_the_sweep_saw_every_orientation():
    assert sorted(STORED) == list(range(1, 9))


def test_an_image_turned_by_the_user_is_not_turned_again():
    exif = Image.Exif()
    exif[274] = 6
    opened = Image.open(io.BytesIO(encoded(drawn(), "PNG", exif=exif)))
    once = read_image(opened)
    assert once.size == (5, 7)
    assert read_image(once).size == (5, 7)


@pytest.mark.filterwarnings("ignore:Corrupt EXIF data")
def test_broken_notes_do_not_spoil_a_sound_picture():
    data = encoded(drawn(), "PNG", exif=b"Exif\0\0II*\0\xff\xff\xff\xff\x01\x02")
    assert colours(read_image(data)) == colours(drawn())


# ---- bad input ------------------------------------------------------------------------------------------------------

BAD_ARRAYS = {
    "no rows": np.zeros((0, 4, 3), np.uint8),
    "no columns": np.zeros((4, 0), np.uint8),
    "channels first": np.zeros((3, 40, 50), np.uint8),
    "two channels": np.zeros((4, 5, 2), np.uint8),
    "a batch": np.zeros((1, 4, 5, 3), np.uint8),
    "one number": np.array(7, np.uint8),
    "64-bit integers": np.zeros((4, 5, 3), np.int64),
    "complex": np.zeros((4, 5), np.complex64),
    "objects": np.array([[None, "x"]], dtype=object),
    "text": np.array([["a", "b"]]),
    "NaN": np.full((4, 5, 3), np.nan),
    "infinity": np.full((4, 5), np.inf, np.float32),
    "floats to 255": np.full((4, 5, 3), 200.0),
    "negative floats": np.full((4, 5, 3), -0.5),
}


@pytest.mark.parametrize("case", BAD_ARRAYS)
def test_a_bad_array_is_named_by_its_shape_and_type(case):
    array = BAD_ARRAYS[case]
    with pytest.raises(BadImage) as caught:
        read_image(array)
    assert f"array of shape {array.shape} and type {array.dtype}" in str(caught.value)


def test_an_array_is_told_what_to_do():
    with pytest.raises(BadImage, match="move the channels last"):
        read_image(BAD_ARRAYS["channels first"])
    with pytest.raises(BadImage, match="divide by 255"):
        read_image(BAD_ARRAYS["floats to 255"])


@pytest.mark.parametrize(
    "tensor",
    [
        torch.zeros(1, 3, 4, 5),
        torch.zeros(2, 4, 5),
        torch.zeros(3, 4, 5, dtype=torch.int64),
        torch.zeros(3, 0, 5),
        torch.full((3, 4, 5), torch.nan),
        torch.empty(3, 4, 5, device="meta"),
        torch.zeros(3, 4, 5).to_sparse(),
    ],
    ids=str,
)
def test_a_bad_tensor_is_a_bad_image(tensor):
    with pytest.raises(BadImage, match="array of shape"):
        read_image(tensor)


@pytest.mark.parametrize("size", [(0, 0), (0, 5), (5, 0)])
def test_an_image_without_pixels_is_refused(size):
    with pytest.raises(BadImage, match="no pixels"):
        read_image(Image.new("RGB", size))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_float_image_must_be_finite(value):
    with pytest.raises(BadImage, match="not finite"):
        read_image(Image.new("F", (2, 2), value))


@pytest.mark.parametrize(
    ("data", "seen"),
    [
        (b"<!DOCTYPE html><html>404</html>", "a web page"),
        (b"\xef\xbb\xbf\n <HTML>", "a web page"),
        (b'<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"%PDF-1.7", "PDF"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n", "PostScript"),
        (b"\x00\x00\x00\x18ftypheic", "HEIC"),
        (b"hello", "not an image of a known format"),
    ],
)
def test_what_is_not_an_image_is_called_what_it_is(data, seen):
    with pytest.raises(BadImage, match=seen):
        read_image(data)


@pytest.mark.parametrize("source", [None, 7, 1.5, [1, 2], {"url": "x"}, object(), np.uint8(7), (1, 2)])
def test_another_type_is_a_bad_image(source):
    with pytest.raises(BadImage):
        read_image(source)


@pytest.mark.parametrize("kind", ["PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF"])
def test_half_a_file_is_a_bad_image(kind):
    noise = Image.fromarray(np.random.default_rng(0).integers(0, 256, (64, 64, 3), dtype=np.uint8))
    data = encoded(noise, kind)
    with pytest.raises(BadImage, match="image of"):
        read_image(data[: len(data) // 2])


def test_a_bomb_is_refused_from_its_header():
    # 20000 x 20000 in a file that ends after its header: whoever tried to decode it would say "truncated".
    fields = b"IHDR" + struct.pack(">IIBBBBB", 20000, 20000, 8, 2, 0, 0, 0)
    header = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + fields + struct.pack(">I", zlib.crc32(fields))
    header += struct.pack(">I", 1 << 20) + b"IDAT"
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(BadImage, match=r"20000 x 20000 px, the limit max_pixels is"):
            read_image(header)


def test_the_pixel_limit_is_a_setting():
    assert read_image(drawn(), ImageLimits(max_pixels=35)).size == (7, 5)
    for source in (drawn(), encoded(drawn()), np.asarray(drawn())):
        with pytest.raises(BadImage, match="the limit max_pixels is 34"):
            read_image(source, ImageLimits(max_pixels=34))


def test_a_large_picture_within_the_limit_warns_nobody():
    before = Image.MAX_IMAGE_PIXELS
    data = encoded(Image.new("1", (10000, 9500)))  # above the 89 million at which Pillow warns
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert read_image(data).size == (10000, 9500)
    assert before == Image.MAX_IMAGE_PIXELS


def test_a_long_strip_is_an_image():
    assert to_pixels(read_image(Image.new("L", (200_000, 1), 255)), 32).shape == (3, 32, 32)


def test_threads_read_without_disturbing_one_another():
    data = [encoded(drawn(30 + i, 20), kind) for i, kind in enumerate(["PNG", "TIFF", "BMP", "PPM"])]
    wrong = []

    def work(i: int) -> None:
        for _ in range(20):
            if read_image(data[i]).size != (30 + i, 20):
                wrong.append(i)

    threads = [threading.Thread(target=work, args=(i % 4,)) for i in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert wrong == []


# ---- fuzz -----------------------------------------------------------------------------------------------------------

SEEDS = [
    encoded(drawn(16, 12)),
    encoded(drawn(16, 12), "JPEG"),
    encoded(drawn(16, 12), "GIF"),
    encoded(drawn(16, 12), "WEBP"),
    encoded(drawn(16, 12), "TIFF"),
    encoded(drawn(16, 12), "BMP"),
    encoded(drawn(16, 12), "JPEG2000"),
    encoded(drawn(16, 12), "PPM"),
]
SMALL = ImageLimits(max_pixels=1_000_000)
fuzz = settings(max_examples=600, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def check_image_or_bad_image(data: bytes) -> None:
    try:
        image = read_image(data, SMALL)
    except BadImage:
        pass
    else:
        assert image.mode == "RGB"
        assert 0 < image.width * image.height <= SMALL.max_pixels


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(start=st.sampled_from([b"", *(seed[:12] for seed in SEEDS)]), rest=st.binary(max_size=300))
def test_random_bytes_are_an_image_or_a_bad_image(start, rest):
    check_image_or_bad_image(start + rest)


@pytest.mark.filterwarnings("ignore")
@fuzz
@given(
    seed=st.sampled_from(SEEDS),
    cut=st.floats(0, 1),
    changes=st.lists(st.tuples(st.floats(0, 1, exclude_max=True), st.integers(0, 255)), max_size=6),
)
def test_damaged_files_are_an_image_or_a_bad_image(seed, cut, changes):
    data = bytearray(seed)
    for place, value in changes:
        data[int(place * len(data))] = value
    check_image_or_bad_image(bytes(data))
    check_image_or_bad_image(bytes(data[: int(cut * len(data))]))


# ---- pixels ---------------------------------------------------------------------------------------------------------


def by_numpy(image: Image.Image, height: int, width: int) -> np.ndarray:
    """The published steps, one by one: resize, times 1/255 in 64 bits, to 32 bits, normalise, channels first."""
    resized = np.array(image.resize((width, height), resample=3))
    scaled = (resized.astype(np.float64) * 0.00392156862745098).astype(np.float32)
    mean, std = np.array([0.485, 0.456, 0.406], np.float32), np.array([0.229, 0.224, 0.225], np.float32)
    return ((scaled - mean) / std).transpose(2, 0, 1)


def test_pixels_equal_the_published_steps_bit_for_bit():
    for width, height in ((640, 480), (5, 9), (1, 1), (1200, 300)):
        image = drawn(width, height)
        assert (to_pixels(image, 96).numpy() == by_numpy(image, 96, 96)).all()
        assert (to_pixels(image, (64, 128)).numpy() == by_numpy(image, 64, 128)).all()


def test_pixels_equal_the_processor_of_transformers_bit_for_bit():
    processors = pytest.importorskip("transformers.models.clip.image_processing_pil_clip")
    processor = processors.CLIPImageProcessorPil(
        size={"height": 768, "width": 768},
        do_center_crop=False,
        resample=3,
        rescale_factor=0.00392156862745098,
        image_mean=[0.485, 0.456, 0.406],
        image_std=[0.229, 0.224, 0.225],
    )
    for width, height in ((640, 480), (300, 900)):
        theirs = np.asarray(processor(drawn(width, height))["pixel_values"][0])
        assert (to_pixels(drawn(width, height), 768).numpy() == theirs).all()


def test_pixels_by_hand():
    # (255/255 - 0.485) / 0.229 = 2.2489..., (0 - 0.456) / 0.224 = -2.0357..., (0 - 0.406) / 0.225 = -1.8044...
    pixels = to_pixels(Image.new("RGB", (7, 3), RED), 4)
    assert pixels.shape == (3, 4, 4)
    assert pixels.dtype == torch.float32
    assert pixels.is_contiguous()
    expected = torch.tensor([2.2489083, -2.0357143, -1.8044444])[:, None, None]
    torch.testing.assert_close(pixels, expected.expand(3, 4, 4), rtol=1e-6, atol=0)


def test_height_comes_before_width():
    assert to_pixels(drawn(), (8, 16)).shape == (3, 8, 16)


def test_a_batch_is_its_images():
    images = [drawn(6, 4), drawn(50, 30), drawn(1, 9)]
    batch = to_batch(images, 24)
    assert batch.shape == (3, 3, 24, 24)
    for row, image in zip(batch, images, strict=True):
        assert torch.equal(row, to_pixels(image, 24))
    assert to_batch([], 24).shape == (0, 3, 24, 24)


def test_pixels_are_only_made_of_rgb():
    with pytest.raises(BadImage, match="read_image"):
        to_pixels(Image.new("L", (4, 4)), 8)


@pytest.mark.parametrize("side", [0, -1, (0, 8), (8, 0)])
def test_a_side_below_one_is_a_bad_config(side):
    with pytest.raises(BadConfig):
        to_pixels(drawn(), side)
