"""Decoding of encoded images (PNG, JPEG and the like) of one size."""

import io
from collections.abc import Sequence
from typing import IO

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from ostiary.core.errors import DataError, FormatError

MAX_PIXELS = 2**24
"""Most pixels (width times height) one image may have."""

FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF", "GIF")

_GREY = ("L", "1")
_DEEP = ("I", "F")


def open_image(data: bytes | IO[bytes], where: str) -> Image.Image:
    """The image with its header read and checked; FormatError if it is no image or too large."""
    try:
        image = Image.open(io.BytesIO(data) if isinstance(data, bytes) else data, formats=FORMATS)
    except Image.DecompressionBombError as error:
        raise FormatError(f"{where}: {error}") from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise FormatError(f"{where}: not a readable image") from error
    width, height = image.size
    if width * height > MAX_PIXELS:
        raise FormatError(
            f"{where}: the image has {width}x{height} pixels, at most {MAX_PIXELS} are allowed",
            hint="resize the images first",
        )
    if image.mode.startswith(_DEEP):
        raise DataError(f"{where}: the image has more than 8 bits per channel", hint="convert the images to 8 bits")
    return image


def is_grey(image: Image.Image) -> bool:
    """Whether the image has one channel."""
    return image.mode in _GREY


def shape_of(image: Image.Image) -> tuple[int, int, int]:
    """The image's (channels, height, width) as it will be decoded: 1 channel for grey, else 3."""
    return 1 if is_grey(image) else 3, image.height, image.width


def odd_size(where: str, image: Image.Image, shape: tuple[int, int, int]) -> DataError:
    """The error for an image that differs in size from those before it."""
    return DataError(
        f"{where}: the image is {image.width}x{image.height}, those before it are {shape[2]}x{shape[1]}",
        hint="resize all images to one size first",
    )


def decode(encoded: Sequence[bytes], names: Sequence[str], shape: tuple[int, int, int]) -> Tensor:
    """Images as uint8 [n, c, h, w] of `shape`; `names` are for error messages.

    Grey images become RGB where `shape` has 3 channels, transparency is dropped. FormatError for an
    unreadable image, DataError for one of another size or a colour image in a grey set.
    """
    c, h, w = shape
    out = np.empty((len(encoded), h, w, c), np.uint8)
    mode = "L" if c == 1 else "RGB"
    for row, data in enumerate(encoded):
        with open_image(data, names[row]) as image:
            if (image.height, image.width) != (h, w):
                raise odd_size(names[row], image, shape)
            if c == 1 and not is_grey(image):
                raise DataError(
                    f"{names[row]}: the image has colour, those before it are grey",
                    hint="store all images in one colour mode",
                )
            try:
                plain = image if image.mode == mode else image.convert(mode)
                out[row] = np.frombuffer(plain.tobytes(), np.uint8).reshape(h, w, c)
            except (OSError, ValueError, SyntaxError, EOFError) as error:
                raise FormatError(f"{names[row]}: the image is damaged ({error})") from error
    return torch.from_numpy(out).permute(0, 3, 1, 2).contiguous()
