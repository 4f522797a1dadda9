"""A server for the tests, on this machine: it answers what it is told to, and keeps what it was asked."""

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

Reply = tuple[int, Any] | tuple[int, Any, dict[str, str]]


class Server:
    """Answers what `replies` give in turn (the last one for ever): a reply, or a function of the request's body."""

    def __init__(self, *replies: Any) -> None:
        self.replies, self.seen = list(replies), []

    def reply(self, method: str, path: str, headers: Any, body: Any) -> Reply:
        self.seen.append((method, path, dict(headers), body))
        now = self.replies.pop(0) if len(self.replies) > 1 else self.replies[0]
        return now(body) if callable(now) else now


@contextmanager
def serving(server: Server) -> Iterator[str]:
    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.do_POST()

        def do_POST(self) -> None:
            raw = self.rfile.read(int(self.headers.get("Content-Length", 0)))
            code, found, *more = server.reply(self.command, self.path, self.headers, json.loads(raw) if raw else None)
            body = found if isinstance(found, bytes) else json.dumps(found).encode()
            self.send_response(code)
            for name, value in (more[0] if more else {}).items():
                self.send_header(name, value)
            if not (more and "Content-Length" in more[0]):
                self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            with suppress(OSError):  # the client may have gone
                self.wfile.write(body)

        def log_message(self, *_: Any) -> None:
            pass

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as http:
        thread = threading.Thread(target=http.serve_forever, args=(0.01,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{http.server_address[1]}"
        finally:
            http.shutdown()
            thread.join()
