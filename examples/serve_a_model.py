"""A model of Ostiary's behind HTTP, for `ostiary scan URL`: `python examples/serve_a_model.py MODEL [PORT] [ARCH]`.

The whole protocol is in `do_POST`: wrap your own server likewise. It listens on this machine alone.
"""

import base64
import json
import sys
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import numpy as np
import torch

from ostiary import load
from ostiary.core.errors import OstiaryError

LARGEST = 2**26


def handler(model: Any) -> type[BaseHTTPRequestHandler]:
    """Answers POST with the probabilities of the images sent."""

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_POST(self) -> None:
            size = int(self.headers.get("Content-Length", 0))
            if not 0 < size <= LARGEST:
                self.answer(413, {"error": f"between 1 and {LARGEST} bytes, not {size}"})
                return
            try:
                sent = json.loads(self.rfile.read(size))["images"]
                pixels = np.frombuffer(base64.b64decode(sent["data"]), "<f4").reshape(sent["shape"])
                found = model.predict(torch.from_numpy(pixels.copy()))
            except (KeyError, TypeError, ValueError, OstiaryError) as error:
                self.answer(400, {"error": f"{type(error).__name__}: {error}"})
                return
            self.answer(200, {"probabilities": found.tolist()})

        def answer(self, code: int, found: Any) -> None:
            body = json.dumps(found).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    return Handler


def serve(model: Any, port: int = 0) -> ThreadingHTTPServer:
    """A server on this machine alone; port 0 takes a free one, which `server_address` names."""
    return ThreadingHTTPServer(("127.0.0.1", port), handler(model))


if __name__ == "__main__":
    path, port, *arch = [*sys.argv[1:], *["8080"][len(sys.argv) - 2 :]]
    with serve(load(path, *arch), int(port)) as server:
        print(f"http://127.0.0.1:{server.server_address[1]}/", flush=True)
        server.serve_forever()
