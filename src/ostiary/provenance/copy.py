"""A copy of a model made of the very bytes that were verified, for whoever takes nothing but a folder."""

import os
from collections.abc import Sequence
from datetime import datetime
from pathlib import Path

from ostiary.core.errors import OutputError
from ostiary.core.files import atomic, refuse_existing
from ostiary.provenance.files import bad_name, require, shown, write_all
from ostiary.provenance.manifest import FileDigest, Manifest, OnBytes, each_file, hasher, is_under, pieces
from ostiary.provenance.refusal import Reason, Refused
from ostiary.provenance.trust import Trust
from ostiary.provenance.verify import Vouched, compare, ignored_by, read_signature, revoked_reasons, vouch


def copy_verified(
    path: Path | str,
    signature: Path | str,
    trust: Trust,
    out: Path | str,
    *,
    name: str | None = None,
    ignore: Sequence[str] = (),
    now: datetime | None = None,
    state: Path | None = None,
    on_bytes: OnBytes | None = None,
) -> Vouched:
    """Verify a file or a folder as `verify` does, and write what was verified into the new folder `out`.

    Each piece is hashed and written as it is read, and `out` appears only when all of it is what was signed: a file
    that is swapped meanwhile does not reach the copy. It holds the files of a folder, or the one file, read-only, and
    nothing of what `ignore` names, since nobody vouches for that.

    Raises as `verify`, and OutputError when `out` exists, lies inside of `path` or cannot be written.
    """
    path, out = Path(path), Path(out)
    require(path)
    refuse_existing(out)
    if out.resolve().is_relative_to(path.resolve()):
        raise OutputError(f"'{out}' lies inside of '{path}'", hint="put the copy beside the model")
    vouched = vouch(read_signature(signature), trust, name=name or path.resolve().name, now=now, state=state)
    left_out = ignored_by(path, signature, vouched.claim, ignore)
    new, told = hasher(vouched.claim.manifest.algorithm), on_bytes or (lambda count: None)
    with atomic(out) as folder:
        folder.mkdir()

        def keep(file: int, name: str) -> FileDigest:
            digest, size = new(), 0
            target = os.devnull if is_under(name, left_out) else _place(folder, name)
            handle = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, 0o444)
            try:
                for piece in pieces(file, name):
                    digest.update(piece)
                    write_all(handle, piece)
                    size += len(piece)
                    told(len(piece))
            finally:
                os.close(handle)
            return FileDigest(name, size, digest.digest())

        listing, found = each_file(path, keep)
        manifest = Manifest(vouched.claim.manifest.algorithm, tuple(found), listing.empty_folders).without(left_out)
        compare(vouched.claim, manifest)
        if reasons := revoked_reasons(trust, vouched.claim.name, [manifest.root.hex()]):
            raise Refused(reasons)
        for empty in manifest.empty_folders:
            (folder / empty).mkdir(parents=True)
    return vouched


def _place(folder: Path, name: str) -> Path:
    """Where a file goes. Its name was listed by us and looked at, and is looked at again before anything is written."""
    if problem := bad_name(name):
        raise Refused([Reason("OS703", shown(name), problem)])
    target = folder / name
    target.parent.mkdir(parents=True, exist_ok=True)
    return target
