"""Arrays as PNG data URIs: every picture on the page was encoded here, none is passed through."""

import base64
import io

import numpy as np
from markupsafe import Markup
from PIL import Image

from ostiary.report.blocks import Picture
from ostiary.report.words import show

CAPTION = 40


def unit(array: np.ndarray) -> np.ndarray:
    """`array` as float32 in [0, 1]; what is not finite becomes 0."""
    clipped: np.ndarray = np.clip(np.nan_to_num(array, posinf=0.0, neginf=0.0), 0.0, 1.0).astype(np.float32)
    return clipped


def to_uri(array: np.ndarray, side: int) -> Markup:
    """[h, w] or [c, h, w] with c 1 or 3, floats in [0, 1] or uint8, as a PNG of at most `side` pixels a side.

    Same array, same text.
    """
    if array.dtype != np.uint8:
        array = np.round(unit(array) * 255).astype(np.uint8)
    if array.ndim == 3:
        array = array[0] if array.shape[0] == 1 else array.transpose(1, 2, 0)
    image = Image.fromarray(np.ascontiguousarray(array))
    if max(image.size) > side:
        scale = side / max(image.size)
        width, height = (max(1, round(length * scale)) for length in image.size)
        image = image.resize((width, height), Image.Resampling.BOX)
    stream = io.BytesIO()
    image.save(stream, "PNG", optimize=True)
    return Markup("data:image/png;base64," + base64.b64encode(stream.getvalue()).decode("ascii"))  # noqa: S704 - base64 only


class Album:
    """Makes pictures while they fit into `budget` characters, and counts those that do not."""

    def __init__(self, budget: int) -> None:
        self.left = budget
        self.left_out = 0

    def picture(
        self, array: np.ndarray, alt: str, *caption: str, width: int = 112, side: int = 160
    ) -> tuple[Picture, ...]:
        """One picture, or none when the budget is spent or the array is no image."""
        if not array.size or (array.ndim == 3 and array.shape[0] not in (1, 3)):
            return ()
        uri = to_uri(array, side)
        if len(uri) > self.left:
            self.left_out += 1
            return ()
        self.left -= len(uri)
        return (Picture(uri, show(alt, CAPTION), tuple(show(line, CAPTION) for line in caption), width),)
