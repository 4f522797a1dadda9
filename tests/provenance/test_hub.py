"""One commit of a repository, from a hub on this machine or from the cache, verified like any folder."""

import hashlib
import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import pytest
from signed_case import Signed, flip, make_signed

from ostiary.core.errors import ConfigError, EndpointError, FormatError
from ostiary.provenance.hub import load_from_hub, load_snapshot, require_commit, without_links
from ostiary.provenance.loader import Evidence
from ostiary.provenance.refusal import Refused

pytest.importorskip("huggingface_hub", reason="needs the extra text")

COMMIT = "3f9a12cd" * 5
REPOSITORY = "team/model"


class Hub(BaseHTTPRequestHandler):
    """As much of the Hub as downloading a snapshot asks for."""

    files: dict[str, bytes]
    asked: list[str]

    def do_GET(self) -> None:
        path = unquote(urlsplit(self.path).path)
        self.asked.append(path)
        if path == f"/api/models/{REPOSITORY}/revision/{COMMIT}":
            siblings = [{"rfilename": name} for name in self.files]
            self._json({"id": REPOSITORY, "sha": COMMIT, "siblings": siblings, "private": False, "tags": []})
        elif path == f"/api/models/{REPOSITORY}/tree/{COMMIT}":
            self._json([{"type": "file", "path": k, "size": len(v), "oid": oid(v)} for k, v in self.files.items()])
        elif path.startswith(begin := f"/{REPOSITORY}/resolve/{COMMIT}/") and path.removeprefix(begin) in self.files:
            data = self.files[path.removeprefix(begin)]
            self._answer(data, {"ETag": f'"{oid(data)}"', "X-Repo-Commit": COMMIT})
        else:
            self.send_error(404)

    do_HEAD = do_GET  # noqa: N815 - the name that http.server calls

    def _json(self, value: Any) -> None:
        self._answer(json.dumps(value).encode(), {"Content-Type": "application/json"})

    def _answer(self, data: bytes, headers: dict[str, str]) -> None:
        self.send_response(200)
        for key, value in {**headers, "Content-Length": str(len(data))}.items():
            self.send_header(key, value)
        self.end_headers()
        if self.command == "GET":
            self.wfile.write(data)

    def log_message(self, *args: Any) -> None:
        pass


def oid(data: bytes) -> str:
    return hashlib.sha1(data, usedforsecurity=False).hexdigest()


@pytest.fixture
def signed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Signed:
    monkeypatch.setenv("OSTIARY_STATE", str(tmp_path / "state"))
    return make_signed(tmp_path)


@pytest.fixture
def hub(signed: Signed) -> Iterator[tuple[str, type[Hub]]]:
    """The address of a hub with the signed model, its signature, and what the Hub adds; and what it was asked."""
    held = {path.relative_to(signed.folder).as_posix(): path.read_bytes() for path in signed.folder.rglob("*.*")}
    held |= {"model.sig": signed.signature.read_bytes(), ".gitattributes": b"*.safetensors filter=lfs\n"}
    kind = type("Held", (Hub,), {"files": held, "asked": []})
    server = ThreadingHTTPServer(("127.0.0.1", 0), kind)
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}", kind
    server.shutdown()
    server.server_close()
    thread.join()


def fetched(signed: Signed, endpoint: str, **how: Any) -> Any:
    how = {"revision": COMMIT, "policy": signed.public(), "cache": signed.folder.parent / "cache", **how}
    return load_from_hub(REPOSITORY, endpoint=endpoint, **how)


def test_a_commit_is_fetched_once_and_verified(signed: Signed, hub: tuple[str, type[Hub]]) -> None:
    address, held = hub
    loaded = fetched(signed, address, online=True)
    assert loaded.decision.decision == "accepted" and loaded.decision.signers == ("producer",)
    assert loaded.decision.subject == f"{REPOSITORY}@{COMMIT}"
    assert set(loaded.files) == {path.relative_to(signed.folder).as_posix() for path in signed.folder.rglob("*.*")}
    assert set(loaded.state) == {"a.weight", "b.weight"}
    snapshot = signed.folder.parent / "cache" / "models--team--model" / "snapshots" / COMMIT
    assert (snapshot / "config.json").is_symlink(), "the cache is one of links, as everywhere"
    held.asked.clear()
    assert fetched(signed, address).decision.root == loaded.decision.root
    assert held.asked == [], "without online=True nobody is asked"


def test_nothing_is_fetched_unless_asked_for(signed: Signed, hub: tuple[str, type[Hub]]) -> None:
    with pytest.raises(FormatError, match="not in the cache") as caught:
        fetched(signed, hub[0])
    assert "online=True" in str(caught.value.hint) and hub[1].asked == []


def test_an_altered_file_of_the_hub_is_refused(signed: Signed, hub: tuple[str, type[Hub]]) -> None:
    address, held = hub
    held.files["config.json"] = b'{"model_type": "toys"}'
    held.files["run.py"] = b"print()"
    with pytest.raises(Refused) as caught:
        fetched(signed, address, online=True)
    assert {reason.code for reason in caught.value.reasons} == {"OS707", "OS709"}
    del held.files["run.py"]


def test_a_hub_that_does_not_answer(signed: Signed, hub: tuple[str, type[Hub]]) -> None:
    with pytest.raises(EndpointError, match="could not be fetched"):
        fetched(signed, hub[0], online=True, revision="0" * 40)


NO_COMMITS = ["main", "v1.0", COMMIT[:7], COMMIT.upper(), COMMIT + "0", COMMIT + "\n", "", "é" * 40]


@pytest.mark.parametrize("revision", NO_COMMITS)
def test_what_is_no_commit_is_refused_before_anybody_is_asked(
    signed: Signed, hub: tuple[str, type[Hub]], revision: str
) -> None:
    with pytest.raises(Refused, match="OS735") as caught:
        fetched(signed, hub[0], revision=revision, online=True)
    assert "tomorrow" in str(caught.value.hint) and hub[1].asked == []
    require_commit(COMMIT)


def test_a_snapshot_of_another_commit_is_refused(
    signed: Signed, hub: tuple[str, type[Hub]], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    monkeypatch.setattr(huggingface_hub, "snapshot_download", lambda *args, **how: str(signed.folder))
    with pytest.raises(Refused, match="OS735"):
        fetched(signed, hub[0])


@pytest.mark.parametrize("name", ["", "../x", "a/b/c", "/etc", "a b", "-/x\n"])
def test_what_is_no_repository(signed: Signed, name: str) -> None:
    with pytest.raises(ConfigError, match="is no repository"):
        load_from_hub(name, COMMIT, signed.public())


def snapshot(signed: Signed, root: Path) -> Path:
    """The model as the cache keeps it: blobs by digest, and a folder of links to them."""
    repository = root / "models--team--model"
    folder = repository / "snapshots" / COMMIT
    (repository / "blobs").mkdir(parents=True)
    sources = [path for path in signed.folder.rglob("*") if path.is_file()]
    for number, path in enumerate([*sources, signed.signature]):
        blob = repository / "blobs" / str(number)
        blob.write_bytes(path.read_bytes())
        inner = Path("model.sig") if path == signed.signature else path.relative_to(signed.folder)
        (folder / inner).parent.mkdir(parents=True, exist_ok=True)
        (folder / inner).symlink_to(blob)
    return folder


def test_a_local_snapshot(signed: Signed, tmp_path: Path) -> None:
    folder = snapshot(signed, tmp_path / "hub")
    assert load_snapshot(folder, signed.public(), name="model").decision.decision == "accepted"
    (folder / "model.sig").unlink()
    apart = load_snapshot(folder, signed.public(), name="model", evidence=Evidence(signed.signature))
    assert apart.decision.decision == "accepted" and apart.decision.subject == str(folder)
    (folder / ".gitattributes").write_text("written by the hub")
    load_snapshot(folder, signed.public(), name="model", evidence=Evidence(signed.signature))
    with pytest.raises(Refused, match="OS709"):
        load_snapshot(folder, signed.public(), name="model", evidence=Evidence(signed.signature), ignore=[])
    with pytest.raises(Refused, match="OS701") as caught:
        load_snapshot(folder, signed.public(), name="model")
    assert caught.value.decision.subject == str(folder)
    (folder / "model.sig").symlink_to(signed.signature.rename(folder.parents[1] / "blobs" / "signature"))
    with pytest.raises(Refused, match="OS712"):
        load_snapshot(folder, signed.public(), name="other")
    flip((folder / "config.json").resolve(), 2)
    with pytest.raises(Refused, match="OS707"):
        load_snapshot(folder, signed.public(), name="model")
    with pytest.raises(FormatError, match="no snapshot at"):
        load_snapshot(tmp_path / "none", signed.public(), name="model")


def test_a_plain_folder_is_a_snapshot_too(signed: Signed) -> None:
    loaded = load_snapshot(signed.folder, signed.public(), name="model", evidence=Evidence(signed.signature))
    assert loaded.decision.decision == "accepted"


@pytest.mark.parametrize("target", ["/etc/hostname", "../../../../secret", "nowhere", ".", "../../blobs"])
def test_links_that_leave_the_cache_are_not_followed(signed: Signed, tmp_path: Path, target: str) -> None:
    folder = snapshot(signed, tmp_path / "hub")
    (tmp_path / "secret").write_text("not for the model")
    (folder / "extra").symlink_to(target)
    with pytest.raises(Refused, match="OS702 extra"):
        load_snapshot(folder, signed.public(), name="model")
    (folder / "extra").unlink()
    assert load_snapshot(folder, signed.public(), name="model").decision.decision == "accepted"


def test_the_copy_has_no_links_and_goes(signed: Signed, tmp_path: Path) -> None:
    with without_links(snapshot(signed, tmp_path / "hub")) as copy:
        assert (copy / "tokenizer" / "tokenizer.json").read_text() == '{"version": "1.0"}'
        assert not any(path.is_symlink() for path in copy.rglob("*"))
    assert not copy.exists()
