"""Encoded images: whether the bytes at hand are a whole one."""

import warnings
from collections.abc import Callable
from io import BytesIO

from ostiary.core.columns import MAX_ENCODED
from ostiary.core.errors import FormatError

PNG_END = b"\x00\x00\x00\x00IEND\xaeB`\x82"
FORMATS = ("PNG", "JPEG", "BMP", "PPM", "WEBP", "TIFF", "GIF")
_WHOLE: tuple[tuple[bytes, Callable[[bytes], bool]], ...] = (
    (b"\x89PNG\r\n\x1a\n", lambda data: data.endswith(PNG_END)),
    (b"\xff\xd8\xff", lambda data: data.endswith(b"\xff\xd9")),
    (b"GIF8", lambda data: data.endswith(b"\x3b")),
    (b"BM", lambda data: int.from_bytes(data[2:6], "little") == len(data)),
    (b"RIFF", lambda data: int.from_bytes(data[4:8], "little") + 8 == len(data)),
)


def check_picture(data: bytes, where: str) -> bytes:
    """The bytes of an encoded image, once they are a whole one; raises FormatError, which names `where`.

    One that begins and ends as its format does is taken for whole; every other one is decoded, which takes longer. So
    damage in the middle is not noticed: a manifest says what the bytes are, not that they are good.
    """
    if len(data) > MAX_ENCODED:
        raise FormatError(f"{where}: larger than {MAX_ENCODED} bytes")
    if any(data.startswith(begin) and whole(data) for begin, whole in _WHOLE):
        return data
    from PIL import Image

    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")  # a bomb is a warning first
            with Image.open(BytesIO(data), formats=FORMATS) as image:
                image.load()
    except Exception as error:  # decoders raise anything
        raise FormatError(
            f"{where}: not a whole image ({str(error)[:120] or type(error).__name__})",
            hint="repair or remove it: a manifest names every sample or is not made",
        ) from error
    return data
