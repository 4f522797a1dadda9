"""A model behind a URL: images go out as JSON, probabilities or labels come back."""

import base64
import os
import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ostiary.core.errors import ConfigError, EndpointError
from ostiary.core.types import Images
from ostiary.models.black_box import TOLERANCE, BlackBox
from ostiary.models.http import Client
from ostiary.models.load import check_shape

AUTHORIZATION = "OSTIARY_ENDPOINT_AUTH"
"""The environment variable whose value is sent as the Authorization header."""
V2 = re.compile(r"/v2/models/[^/?#]+(/versions/[^/?#]+)?/infer$")
HINT = "see docs/scan.md for what an endpoint is sent and answers"


class Endpoint(BlackBox):
    """A classifier of images behind `url`.

    It is sent `{"images": {"shape": [n, c, h, w], "dtype": "float32", "data": BASE64}}` by POST: little-endian values
    in [0, 1], channels first. It answers `{"probabilities": [[…], …]}`, `{"logits": [[…], …]}` or
    `{"labels": [i, …]}`, one entry for each image. A URL that ends in `/v2/models/NAME/infer` is spoken to in the
    Open Inference Protocol (KServe V2: Triton, MLServer) instead: one FP32 input, and the first output, whose rows
    are taken for logits unless they are probabilities at the probe.

    Nothing is sent anywhere but to `url`. `authorization` is the Authorization header, by default what the
    environment variable OSTIARY_ENDPOINT_AUTH holds. `batch` images are sent at a time, `how` is for `Client`.
    `digest` and the rest as `BlackBox`, of the URL without its query and what it answers to the probe.

    Raises ConfigError as `Client`, EndpointError as `Client` and `BlackBox`.
    """

    def __init__(
        self,
        url: str,
        classes: Sequence[str] | int | None = None,
        input_shape: tuple[int, int, int] = (3, 32, 32),
        *,
        authorization: str | None = None,
        batch: int = 64,
        **how: Any,
    ) -> None:
        secret = authorization or os.environ.get(AUTHORIZATION) or None
        self.client = Client(url=url, authorization=secret, **how)
        self._form: str | None = None
        self._input: str | None = None
        if V2.search(url):
            self._input = self._input_name(url)
        super().__init__(self._ask, classes, check_shape(input_shape), name=self.client.where, batch=batch)

    def _ask(self, x: Images) -> Tensor:
        return self._plain(x) if self._input is None else self._open_inference(x)

    def _plain(self, x: Images) -> Tensor:
        data = base64.b64encode(x.numpy().astype("<f4").tobytes()).decode()
        found = self.client.ask({"images": {"shape": list(x.shape), "dtype": "float32", "data": data}})
        forms = [form for form in ("probabilities", "logits", "labels") if isinstance(found, dict) and form in found]
        if len(forms) != 1:
            raise self._bad("an answer without exactly one of 'probabilities', 'logits' and 'labels'")
        rows = self._tensor(found[forms[0]])
        if forms[0] == "labels" and rows.dim() != 1:
            raise self._bad("labels that are no plain list")
        return self._softmax(rows) if forms[0] == "logits" else rows

    def _open_inference(self, x: Images) -> Tensor:
        sent = {"name": self._input, "shape": list(x.shape), "datatype": "FP32", "data": x.flatten().tolist()}
        found = self.client.ask({"inputs": [sent]})
        try:
            output = found["outputs"][0]
            rows = self._tensor(output["data"]).reshape([int(side) for side in output["shape"]])
        except (KeyError, IndexError, TypeError, ValueError, RuntimeError):
            raise self._bad("an answer without outputs of a shape and as many values") from None
        if rows.dim() == 1 and not rows.is_floating_point():
            return rows
        if self._form is None:
            self._form = "probabilities" if _are_probabilities(rows) else "logits"
        return self._softmax(rows) if self._form == "logits" else rows

    def _input_name(self, url: str) -> str:
        told = self.client.ask(url=url.removesuffix("/infer"))
        try:
            (only,) = told["inputs"]
            return str(only["name"])
        except (KeyError, TypeError, ValueError):
            raise EndpointError(f"'{self.client.where}' does not name exactly one input", hint=HINT) from None

    def _softmax(self, rows: Tensor) -> Tensor:
        if rows.dim() != 2 or not bool(rows.isfinite().all()):
            raise self._bad("logits that are no rows of finite numbers")
        return rows.double().softmax(1)

    def _tensor(self, values: Any) -> Tensor:
        try:
            return torch.tensor(values) if isinstance(values, list) else torch.tensor(())[:, None]
        except (TypeError, ValueError, RuntimeError, IndexError, OverflowError):
            raise self._bad("what is no list of numbers, or rows of unequal length") from None


def _are_probabilities(rows: Tensor) -> bool:
    return rows.dim() == 2 and bool((rows >= 0).all()) and bool(((rows.sum(1) - 1).abs() <= TOLERANCE).all())


def url_shape(given: tuple[int, int, int] | None, trusted: Any) -> tuple[int, int, int]:
    """The shape of the images that an endpoint is sent: as given, else as the trusted images are, else 3x32x32.

    Raises ConfigError when both are given and differ.
    """
    found = None if trusted is None else check_shape(trusted.shape)
    if given is not None and found is not None and tuple(given) != found:
        raise ConfigError(f"--input asks for {given}, the trusted images are {found}", hint="leave out --input")
    return given or found or (3, 32, 32)
