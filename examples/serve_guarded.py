"""A model behind a guard, behind FastAPI: `python examples/serve_guarded.py MODEL GUARD [PORT] [ARCH]`.

POST an image (PNG or JPEG, of the model's size) to `/answer`: the reply names the class and its probability, or says
that the input was refused, with the guard's score and limit. It listens on this machine alone. Needs the extra `serve`.
"""

import io
import sys
from typing import Any

import numpy as np
import torch
import uvicorn
from fastapi import FastAPI, HTTPException, Request
from PIL import Image, UnidentifiedImageError

from ostiary import load
from ostiary.guard import wrap

LARGEST = 2**22


def decoded(sent: bytes, shape: tuple[int, ...]) -> torch.Tensor:
    """The image as [1, c, h, w] in [0, 1]; raises HTTPException for what is none, or of another size."""
    c, h, w = shape
    try:
        with Image.open(io.BytesIO(sent), formats=["PNG", "JPEG"]) as image:
            if image.size != (w, h):
                raise HTTPException(422, f"the model takes images of {w}x{h}, this is {image.size[0]}x{image.size[1]}")
            pixels = np.array(image.convert("L" if c == 1 else "RGB"))
    except (UnidentifiedImageError, OSError, ValueError, Image.DecompressionBombError) as error:
        raise HTTPException(422, "no PNG or JPEG image") from error
    return torch.from_numpy(pixels).view(1, h, w, c).permute(0, 3, 1, 2).float() / 255


def application(model: Any, guard: str) -> FastAPI:
    """The service."""
    app, guarded = FastAPI(), wrap(model, guard, refuse=True)

    @app.post("/answer")
    async def answer(request: Request) -> dict[str, Any]:
        sent = bytearray()
        async for part in request.stream():
            sent += part
            if len(sent) > LARGEST:
                raise HTTPException(413, f"more than {LARGEST} bytes")
        found = guarded(decoded(bytes(sent), model.input_shape))
        reply: dict[str, Any] = {"score": float(found.scores[0]), "limit": guarded.guard.threshold}
        if found.flagged[0]:
            return {"refused": True, **reply}
        label = int(found.probabilities[0].argmax())
        chance = float(found.probabilities[0, label])
        return {"refused": False, "class": model.classes[label], "probability": chance, **reply}

    return app


if __name__ == "__main__":
    path, guard, *rest = sys.argv[1:]
    port, arch = int(rest[0]) if rest else 8080, rest[1:2]
    uvicorn.run(application(load(path, *arch), guard), host="127.0.0.1", port=port, log_level="info")
