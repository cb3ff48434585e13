"""Any image input -> a safe, upright RGB picture -> the normalised pixels the network reads.

Sizes in signatures carry their order; PIL's `size` is (width, height), an array's shape is (height, width, channels).
"""

import io
import logging
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch
from jaxtyping import Float
from PIL import Image, JpegImagePlugin
from torch import Tensor

from openflorence.errors import BadConfig, BadImage
from openflorence.model.sources import DEFAULT_LIMITS, ImageLimits, name_source, read_bytes

# What strangers may send. Pillow knows forty more; some of them run other programs (EPS starts Ghostscript), some
# take any bytes for a picture (TGA), none of them holds photographs.
FORMATS = ("PNG", "JPEG", "GIF", "WEBP", "BMP", "TIFF", "AVIF", "JPEG2000", "PPM", "QOI")

# ImageNet's, although the published processor class is CLIP's. Source: published preprocessor_config.json.
MEAN = (0.485, 0.456, 0.406)
STD = (0.229, 0.224, 0.225)

_ORIENTATION = 0x0112  # the EXIF tag
_TURN = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIDEWAYS = (5, 6, 7, 8)  # orientations that swap width and height
_CHANNELS = (1, 3, 4)  # grey, RGB, RGBA
_OTHERS = (  # how files that are often taken for images begin, and what to do with them
    (b"<!doctype html", "a web page; give the address of the image itself"),
    (b"<html", "a web page; give the address of the image itself"),
    (b"<svg", "an SVG drawing; render it to PNG first"),
    (b"<?xml", "XML, perhaps an SVG drawing; render it to PNG first"),
    (b"%pdf", "a PDF file; render its pages to PNG first"),
    (b"%!ps", "a PostScript file; render it to PNG first"),
)

# Pillow logs remarks on broken files; without a listener Python prints them. What matters of them is in our error.
logging.getLogger("PIL").addHandler(logging.NullHandler())
Image.init()  # registers the readers, now and not in the first of several threads


def read_image(source: Any, limits: ImageLimits = DEFAULT_LIMITS) -> Image.Image:
    """Read one image as an upright RGB picture.

    source   path, http(s) URL, data URL, bytes, file open for reading, PIL image, numpy array ((H, W) or
             (H, W, 1|3|4); uint8, uint16, bool or floats in 0..1) or torch tensor ((C, H, W) or (H, W, C); the same).
    returns  a new RGB image without notes: first frame, EXIF orientation applied, transparency over white, 16 bits
             scaled to 8.
    raises   BadImage naming the source; nothing else, whatever the bytes are.
    promise  the size limit is checked on the header, before a pixel is decoded; the source is left as it was.
    """
    try:
        if isinstance(source, Image.Image):
            image = source
        elif isinstance(source, np.ndarray):
            image = _from_array(source, limits)
        elif isinstance(source, Tensor):
            image = _from_array(_to_array(source), limits)
        else:
            image = _open(read_bytes(source, limits))
        _check_size(image.size, limits)
        image.load()
        _check_size(image.size, limits)  # some formats learn their size while decoding
        # Read after decoding: PNG may keep it behind the pixels, and TIFF has been turned by now.
        turn = _TURN.get(_orientation(image))
        rgb = _to_rgb(image) if turn is None else _to_rgb(image).transpose(turn)
        rgb.info = {}  # with the notes left in, the next reader would turn it again
        return rgb
    except BadImage as error:
        if name_source(source) in str(error):
            raise
        raise BadImage(f"cannot read {name_source(source)}: {error}") from error
    except Exception as error:
        # Pillow's decoders, fed with random bytes, raise some fifteen types, from SyntaxError to struct.error.
        reason = str(error) or type(error).__name__
        raise BadImage(f"cannot read {name_source(source)}: {reason}") from error


def image_size(source: Any, limits: ImageLimits = DEFAULT_LIMITS) -> tuple[int, int]:
    """Give width and height of an image file as it is meant to be looked at, from its header alone.

    source   path, URL, data URL, bytes or file open for reading.
    raises   BadImage naming the source. That the header can be read does not say that the pixels can.
    """
    try:
        image = _open(read_bytes(source, limits))
        _check_size(image.size, limits)
        width, height = image.size
        return (height, width) if _orientation(image) in _SIDEWAYS else (width, height)
    except BadImage as error:
        if name_source(source) in str(error):
            raise
        raise BadImage(f"cannot read {name_source(source)}: {error}") from error
    except Exception as error:  # as in read_image
        raise BadImage(f"cannot read {name_source(source)}: {error}") from error


def image_mime(data: bytes) -> str:
    """Say what kind of file the bytes of an image are: "image/jpeg".

    raises    BadImage when they are none that is read here.
    """
    return str(Image.MIME.get(_open(data).format or "", "application/octet-stream"))


def is_turned(data: bytes) -> bool:
    """Tell whether the pixels lie otherwise than the picture is looked at: its EXIF orientation is not 1.

    raises    BadImage when it is no image that is read here.
    """
    return _orientation(_open(data)) in _TURN


def to_pixels(image: Image.Image, side_px: int | tuple[int, int]) -> Float[Tensor, "3 H W"]:
    """Turn an RGB picture into what the network reads.

    side_px  side of the square, or (height, width); the picture is stretched, as published.
    returns  float32, ImageNet-normalised, channels first.
    raises   BadImage if the picture is not RGB; BadConfig if a side is below 1.
    source   Published preprocessor_config.json with Pillow's 8-bit bicubic filter; equal bit for bit.
    """
    height, width = _hw(side_px)
    if image.mode != "RGB":
        raise BadImage(f"{name_source(image)} is not RGB; pass it through read_image first")
    levels = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))  # (H, W, 3)
    return torch.from_numpy(np.stack([_LEVELS[c][levels[..., c]] for c in range(3)]))


def to_batch(images: Sequence[Image.Image], side_px: int | tuple[int, int]) -> Float[Tensor, "B 3 H W"]:
    """Turn RGB pictures of any sizes into one batch; see to_pixels."""
    batch = torch.empty(len(images), 3, *_hw(side_px))
    for row, image in zip(batch, images, strict=True):
        row.copy_(to_pixels(image, side_px))
    return batch


def _level_table() -> np.ndarray:
    """The normalised value of each of the 256 levels of each channel; rounded as the published processor rounds."""
    scaled = (np.arange(256, dtype=np.float64) * (1 / 255)).astype(np.float32)
    return (scaled - np.array(MEAN, np.float32)[:, None]) / np.array(STD, np.float32)[:, None]


_LEVELS = _level_table()  # (3, 256)


def _hw(side_px: int | tuple[int, int]) -> tuple[int, int]:
    height, width = (side_px, side_px) if isinstance(side_px, int) else side_px
    if height < 1 or width < 1:
        raise BadConfig(f"the input side is {side_px!r}; give pixels above 0, or (height, width)")
    return height, width


def _open(data: bytes) -> Image.Image:
    """Read the header. Image.open is not used: it warns of big pictures through Pillow's one global limit."""
    for kind in FORMATS:
        factory, accept = Image.OPEN.get(kind, (None, None))  # AVIF came late to Pillow
        if factory is None or accept is None or accept(data[:16]) is not True:
            continue
        if kind == "JPEG":
            factory = JpegImagePlugin.JpegImageFile  # not the one that looks for the second picture of a pair
        return factory(io.BytesIO(data), "")
    start = data[:512].removeprefix(b"\xef\xbb\xbf").lstrip().lower()
    seen = next((what for sign, what in _OTHERS if start.startswith(sign)), None)
    if seen is None and data[4:12] in (b"ftypheic", b"ftypheix", b"ftypmif1"):
        seen = "a HEIC image; convert it to JPEG first"
    seen = seen or f"not an image of a known format (it starts with {data[:8]!r}); {', '.join(FORMATS)} are read"
    raise BadImage(f"it is {seen}")


def _check_size(image_wh: tuple[int, int], limits: ImageLimits) -> None:
    width, height = image_wh
    if width < 1 or height < 1:
        raise BadImage(f"it has no pixels: {width} x {height}")
    if width * height > limits.max_pixels:
        raise BadImage(f"it is too large: {width} x {height} px, the limit max_pixels is {limits.max_pixels}")


def _orientation(image: Image.Image) -> int:
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # broken notes beside a sound picture: it is taken as it lies, as every viewer does
        return 1


def _to_rgb(image: Image.Image) -> Image.Image:
    """Convert any mode to RGB; a copy when it is RGB already."""
    if image.mode.startswith("I;16"):
        return Image.fromarray(_from_16_bits(np.asarray(image))).convert("RGB")
    if image.mode in ("I", "F"):
        return Image.fromarray(_from_open_range(np.asarray(image), image.mode)).convert("RGB")
    if image.mode == "La":
        image = image.convert("LA")
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        return Image.alpha_composite(white, image.convert("RGBA")).convert("RGB")
    return image.copy() if image.mode == "RGB" else image.convert("RGB")


def _from_16_bits(values: np.ndarray) -> np.ndarray:
    """Scale 0..65535 to 0..255, to the nearest: a level of 8 bits is 257 levels of 16."""
    wide = values.astype(np.uint32)
    wide += 128
    wide //= 257
    return wide.astype(np.uint8)


def _from_open_range(values: np.ndarray, mode: str) -> np.ndarray:
    """Scale modes I and F to 0..255.

    They do not say which value is white. It is the smallest of 1 (F only), 255 and 65535 that holds every value:
    unit floats, converted 8-bit pictures, 16-bit files. Beyond those, the picture's own range is stretched.
    """
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise BadImage("it holds values that are not finite (NaN or infinity)")
    whites = (1.0, 255.0, 65535.0) if mode == "F" else (255.0, 65535.0)
    white = next((white for white in whites if low >= 0 and high <= white), None)
    low, span = (0.0, white) if white is not None else (low, max(high - low, 1e-30))
    wide = values.astype(np.float64 if white is None else np.float32)
    return np.rint(np.multiply(np.subtract(wide, low), 255 / span)).astype(np.uint8)


def _to_array(tensor: Tensor) -> np.ndarray:
    """Copy a tensor to numpy, channels last; (C, H, W) is preferred where both readings fit."""
    tensor = tensor.detach().cpu()
    if tensor.is_floating_point():
        tensor = tensor.float()
    if tensor.ndim == 3 and tensor.shape[0] in _CHANNELS:
        tensor = tensor.permute(1, 2, 0)
    return tensor.numpy()


def _from_array(array: np.ndarray, limits: ImageLimits) -> Image.Image:
    """Read (H, W) or (H, W, channels) as an 8-bit picture."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in _CHANNELS):
        hint = "; move the channels last" if array.ndim == 3 and array.shape[0] in _CHANNELS else ""
        raise BadImage(f"its shape is neither (H, W) nor (H, W, channels) with 1, 3 or 4 channels{hint}")
    _check_size((array.shape[1], array.shape[0]), limits)
    if array.dtype == np.bool_:
        levels = array.astype(np.uint8) * np.uint8(255)
    elif array.dtype == np.uint16:
        levels = _from_16_bits(array)
    elif np.issubdtype(array.dtype, np.floating):
        levels = _from_unit_floats(array)
    elif array.dtype == np.uint8:
        levels = array
    else:
        raise BadImage("its type is none of uint8 (0..255), uint16 (0..65535), bool and floats (0..1)")
    levels = levels[..., 0] if levels.ndim == 3 and levels.shape[2] == 1 else levels
    return Image.fromarray(np.ascontiguousarray(levels))


def _from_unit_floats(values: np.ndarray) -> np.ndarray:
    low, high = float(values.min()), float(values.max())
    if not np.isfinite([low, high]).all():
        raise BadImage("it holds values that are not finite (NaN or infinity)")
    # Half an 8-bit level: what resizing and rounding leave beyond the ends.
    if low < -0.5 / 255 or high > 1 + 0.5 / 255:
        raise BadImage(f"its values run from {low:g} to {high:g}, floats must be in 0..1; divide by 255 or give uint8")
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)
