"""Pictures for triggers: the alpha channel is the mask, any size fits, and a bad file is refused with a next step."""

from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from ostiary.attacks.badnets import BadNets
from ostiary.attacks.blended import Blended
from ostiary.attacks.pictures import draw_watermark, read_picture
from ostiary.core.errors import FormatError
from ostiary.core.run import Run

RED_LEFT = np.zeros((10, 20, 4), np.uint8)
RED_LEFT[:, :10] = (255, 0, 0, 255)


@pytest.fixture
def sticker(tmp_path: Path) -> str:
    """The left half is red, the right half is not there."""
    Image.fromarray(RED_LEFT).save(tmp_path / "sticker.png")
    return str(tmp_path / "sticker.png")


def test_the_alpha_channel_is_the_mask(sticker: str) -> None:
    mask, pattern = read_picture(sticker, (3, 4, 8))
    assert mask[:, :3].min() == 1 and mask[:, 5:].max() == 0
    assert torch.equal(pattern[:, :, :3], torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 4, 3))


@pytest.mark.parametrize("mode", ["L", "RGB", "P"])
def test_a_picture_without_alpha_covers_all(tmp_path: Path, mode: str) -> None:
    Image.new("RGB", (5, 7), (51, 51, 51)).convert(mode).save(tmp_path / "p.png")
    for c in (1, 3):
        mask, pattern = read_picture(str(tmp_path / "p.png"), (c, 6, 6))
        assert torch.equal(mask, torch.ones(6, 6))
        assert torch.allclose(pattern, torch.full((c, 6, 6), 0.2))


def test_badnets_stamps_a_sticker_and_spares_what_its_alpha_leaves_out(sticker: str) -> None:
    x = torch.full((1, 3, 12, 12), 0.5)
    out = BadNets(image=sticker, size=6, margin=1).trigger((3, 12, 12))(x, rng=torch.Generator())[0]
    assert torch.equal(out[:, 5:11, 5:7], torch.tensor([1.0, 0.0, 0.0])[:, None, None].expand(3, 6, 2))
    out[:, 5:11, 5:9] = 0.5
    assert torch.equal(out, x[0])


def test_blended_weighs_the_picture_by_its_alpha(sticker: str) -> None:
    x = torch.full((1, 3, 8, 8), 0.5)
    out = Blended(image=sticker, alpha=0.2).trigger((3, 8, 8), Run())(x, rng=torch.Generator())[0]
    assert out[:, 4, 1].tolist() == pytest.approx([0.6, 0.4, 0.4])
    assert torch.equal(out[:, :, 5:], x[0, :, :, 5:])


def test_the_watermark_is_a_word_in_white() -> None:
    for shape in ((1, 12, 12), (3, 32, 48)):
        mask, pattern = draw_watermark(shape)
        assert mask.shape == shape[1:] and torch.equal(pattern, torch.ones(shape))
        assert mask.min() == 0 and mask.max() > 0.5 and 0.1 < float(mask.mean()) < 0.4
    x = torch.zeros(1, 3, 32, 48)
    out = Blended(pattern="watermark", alpha=0.2).trigger((3, 32, 48), Run())(x, rng=torch.Generator())
    assert torch.allclose(out[0], 0.2 * mask.expand(3, -1, -1))


def damaged(folder: Path) -> dict[str, str]:
    """Files that are no picture, by what the message says of them."""
    (folder / "text.png").write_text("no picture")
    Image.effect_noise((64, 64), 50.0).save(folder / "whole.png")
    (folder / "cut.png").write_bytes((folder / "whole.png").read_bytes()[:900])
    Image.fromarray(np.zeros((4, 4), np.uint16)).save(folder / "deep.png")
    return {
        "missing.png": "No such file",
        "text.png": "not a readable image",
        "cut.png": "truncated",
        "deep.png": "8 bits",
    }


def test_a_bad_file_is_refused_with_a_next_step(tmp_path: Path) -> None:
    for name, words in damaged(tmp_path).items():
        path = str(tmp_path / name)
        for read in (BadNets(image=path).trigger, partial(Blended(image=path).trigger, run=Run())):
            with pytest.raises(FormatError, match=words) as caught:
                read((3, 12, 12))
            assert f"cannot read the picture '{path}'" in str(caught.value) and caught.value.hint
