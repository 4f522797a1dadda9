"""Pictures for triggers: one read from a file, or a word drawn in white."""

from pathlib import Path

import numpy as np
import torch
from PIL import Image, ImageDraw, ImageFont
from torch import Tensor

from ostiary.core.errors import DataError, FormatError
from ostiary.data.images import open_image

WORD, DRAWN = "OSTI\nARY", 100
"""What the watermark says, and the size in points at which it is drawn before it is made to fit."""

HINT = "give a PNG, JPEG or another common picture with 8 bits per channel"


def read_picture(path: str, shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """The picture at `path`, resized to `shape` (c, h, w): its mask [h, w] and its pattern [c, h, w], in [0, 1].

    The mask is the alpha channel, and one everywhere where the picture has none. Raises FormatError
    when the file is missing or no picture that can be read.
    """
    c, h, w = shape
    where = f"cannot read the picture '{path}'"
    try:
        with Path(path).open("rb") as file, open_image(file, where) as picture:
            small = picture.convert("RGBA").resize((w, h), Image.Resampling.BILINEAR)
    except (FormatError, DataError) as error:
        raise FormatError(str(error), hint=error.hint or HINT) from error
    except (OSError, ValueError, SyntaxError, EOFError) as error:
        raise FormatError(f"{where}: {error}", hint=HINT) from error
    colours = np.asarray(small.convert("RGB" if c == 3 else "L")).reshape(h, w, c)
    return _unit(np.asarray(small)[..., 3]), _unit(colours).permute(2, 0, 1)


def draw_watermark(shape: tuple[int, int, int]) -> tuple[Tensor, Tensor]:
    """WORD in white, as large as an image of `shape` (c, h, w): its mask [h, w] and its pattern [c, h, w]."""
    c, h, w = shape
    font = ImageFont.load_default(DRAWN)
    draw = ImageDraw.Draw(Image.new("L", (1, 1)))
    left, top, right, bottom = (round(edge) for edge in draw.multiline_textbbox((0, 0), WORD, font=font))
    drawn = Image.new("L", (right - left, bottom - top))
    ImageDraw.Draw(drawn).multiline_text((-left, -top), WORD, fill=255, font=font)
    return _unit(np.asarray(drawn.resize((w, h), Image.Resampling.BILINEAR))), torch.ones(c, h, w)


def _unit(levels: np.ndarray) -> Tensor:
    return torch.from_numpy(levels.astype(np.float32) / 255.0)
