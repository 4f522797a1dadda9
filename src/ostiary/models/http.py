"""Asking a server over HTTP: how much comes back, how long it takes and where it leads is bounded."""

import http.client
import json
import ssl
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any
from urllib.parse import SplitResult, urlsplit

from ostiary.core.errors import ConfigError, EndpointError

PASSING = (408, 425, 429, 500, 502, 503, 504)
"""Answers that another try may turn into a good one."""
CHUNK = 2**16
LONGEST_WAIT = 30.0
"""Seconds; a server that asks for more is not waited for any longer."""
SHOWN = 120
"""Characters of a server's own words that an error repeats."""
LOOPBACK = ("localhost", "127.0.0.1", "::1")


def is_url(text: str) -> bool:
    """True when `text` names an endpoint rather than a file."""
    return text.lower().startswith(("http://", "https://"))


def shown_url(url: str) -> str:
    """`url` without its query, which may hold a key."""
    return urlsplit(url)._replace(query="", fragment="").geturl()


class _Stay(urllib.request.HTTPRedirectHandler):
    """Follows no redirect: the images go to the host that the user named and to no other."""

    def redirect_request(self, *_: Any) -> None:
        """Nowhere."""


@dataclass(kw_only=True)
class Client:
    """Sends JSON to one URL and reads JSON back.

    `authorization` is sent as the header of that name and never shown. No proxy is used, whatever the environment
    says, but the one given. `timeout` in seconds holds for each wait and for the body of an
    answer, `largest` is its size in bytes. A try that
    fails for a passing reason (no connection, a time-out, HTTP 408, 425, 429 or 5xx) is repeated up to `tries` times,
    after `wait` seconds, then twice as long each time, or as long as the server asks (30 s at most).

    Raises ConfigError for a URL that is none, that holds a password, or that would carry `authorization` unencrypted
    to another machine.
    """

    url: str
    authorization: str | None = field(default=None, repr=False)
    proxy: str | None = field(default=None, repr=False)
    timeout: float = 60.0
    largest: int = 2**24
    tries: int = 5
    wait: float = 0.5
    sleep: Callable[[float], None] = field(default=time.sleep, repr=False)

    def __post_init__(self) -> None:
        parts = _checked(self.url)
        if self.authorization is not None:
            if parts.scheme == "http" and parts.hostname not in LOOPBACK:
                raise ConfigError(
                    f"the authorization would go unencrypted to '{parts.hostname}'", hint="name an https:// endpoint"
                )
            if not self.authorization.isprintable() or not self.authorization.isascii():
                raise ConfigError(
                    "the authorization holds characters that no header may hold",
                    hint="set it to one line, as it is sent",
                )
        self.where = shown_url(self.url)
        proxies = {} if self.proxy is None else {"http": self.proxy, "https": self.proxy}
        self._opener = urllib.request.OpenerDirector()
        for handler in (
            urllib.request.ProxyHandler(proxies),
            urllib.request.HTTPHandler(),
            urllib.request.HTTPSHandler(context=ssl.create_default_context()),
            urllib.request.HTTPErrorProcessor(),
            urllib.request.HTTPDefaultErrorHandler(),
            _Stay(),
        ):
            self._opener.add_handler(handler)

    def ask(self, body: Any = None, *, url: str | None = None) -> Any:
        """POST `body` as JSON (GET where there is none) and give the JSON of the answer.

        Raises EndpointError when no answer came after all tries, when the server refused or redirected, when the
        answer is larger than `largest` or is no JSON.
        """
        data = None if body is None else json.dumps(body, allow_nan=False, separators=(",", ":")).encode()
        for number in range(1, self.tries + 1):
            try:
                return _parsed(self._once(url or self.url, data), self.where)
            except _Passing as trouble:
                if number == self.tries:
                    raise EndpointError(
                        f"no answer from '{self.where}' after {number} tries: {trouble}",
                        hint="see whether the server runs, and is not overloaded",
                    ) from None
                self.sleep(min(LONGEST_WAIT, max(trouble.wait, self.wait * 2 ** (number - 1))))
        raise AssertionError  # pragma: no cover - the last try returned or raised

    def _once(self, url: str, data: bytes | None) -> bytes:
        headers = {"Accept": "application/json", "User-Agent": "ostiary"}
        if data is not None:
            headers["Content-Type"] = "application/json"
        request = urllib.request.Request(url, data, headers)  # noqa: S310 - http and https alone, by `_checked`
        if self.authorization is not None:
            request.add_unredirected_header("Authorization", self.authorization)
        try:
            with self._opener.open(request, timeout=self.timeout) as answer:
                return self._read(answer)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refused(error) from None
        except (OSError, http.client.HTTPException) as error:
            reason = getattr(error, "reason", None) or error
            if isinstance(reason, ssl.SSLCertVerificationError):
                raise EndpointError(
                    f"the certificate of '{self.where}' is not valid: {reason.verify_message}",
                    hint="name the host as its certificate does; a certificate of one's own goes into SSL_CERT_FILE",
                ) from None
            raise _Passing(_told(reason) or type(reason).__name__) from None

    def _read(self, answer: Any) -> bytes:
        begun, parts, size = time.monotonic(), [], 0
        while part := answer.read1(CHUNK):
            size += len(part)
            parts.append(part)
            if size > self.largest:
                raise EndpointError(
                    f"the answer of '{self.where}' is larger than {self.largest:,} bytes",
                    hint="one answer holds one row of numbers per image; see docs/scan.md for the protocol",
                )
            if time.monotonic() - begun > self.timeout:
                raise _Passing(f"the answer took longer than {self.timeout:g} s")
        if answer.length:
            raise _Passing("the answer broke off")
        return b"".join(parts)

    def _refused(self, error: urllib.error.HTTPError) -> Exception:
        if error.code in PASSING:
            return _Passing(f"HTTP {error.code}", _seconds(error.headers.get("Retry-After")))
        if 300 <= error.code < 400:
            there = _told(shown_url(error.headers.get("Location") or "nowhere"))
            return EndpointError(
                f"'{self.where}' redirects to '{there}', and redirects are not followed",
                hint="if you trust that address, name it yourself",
            )
        words = {
            401: "set OSTIARY_ENDPOINT_AUTH to the Authorization header that it wants",
            403: "set OSTIARY_ENDPOINT_AUTH to the Authorization header that it wants",
            404: "check the path",
            405: "the endpoint must take POST",
            413: "make the batches smaller",
        }
        try:
            text = _told(error.read(CHUNK).decode("utf-8", "replace"))
        except (OSError, http.client.HTTPException):
            text = ""
        return EndpointError(
            f"'{self.where}' refused with HTTP {error.code}" + (f": {text}" if text else ""),
            hint=words.get(error.code, "see docs/scan.md for what an endpoint is sent"),
        )


class _Passing(Exception):
    """A reason that another try may not meet; `wait` is what the server asked for, in seconds."""

    def __init__(self, text: str, wait: float = 0.0) -> None:
        super().__init__(text)
        self.wait = wait


def _checked(url: str) -> SplitResult:
    hint = "for example https://models.example.org/predict"
    try:
        parts = urlsplit(url)
        host, _ = parts.hostname, parts.port
    except ValueError as error:
        raise ConfigError(f"the URL cannot be read: {error}", hint=hint) from None
    if parts.scheme not in ("http", "https") or not host:
        raise ConfigError(f"'{shown_url(url)}' is no http:// or https:// URL with a host", hint=hint)
    if parts.username is not None or parts.password is not None:
        raise ConfigError(
            f"the URL of '{host}' holds a user name or password, which would be kept in the record",
            hint="set OSTIARY_ENDPOINT_AUTH to the Authorization header instead",
        )
    if not url.isascii() or any(char.isspace() or not char.isprintable() for char in url):
        raise ConfigError(f"the URL of '{host}' holds spaces or other characters that must be encoded", hint=hint)
    return parts


def _parsed(content: bytes, where: str) -> Any:
    try:
        return json.loads(content)
    except (ValueError, RecursionError):
        start = _told(content[:CHUNK].decode("utf-8", "replace"))
        raise EndpointError(
            f"'{where}' did not answer in JSON: {start}", hint="see docs/scan.md for what an endpoint answers"
        ) from None


def _told(words: Any) -> str:
    """A stranger's words on one line, cut, without control characters."""
    line = " ".join(str(words).split())
    kept = "".join(char if char.isprintable() else "?" for char in line[:SHOWN])
    return kept + ("..." if len(line) > SHOWN else "")


def _seconds(text: str | None) -> float:
    return float(text) if text is not None and text.strip().isdigit() else 0.0
