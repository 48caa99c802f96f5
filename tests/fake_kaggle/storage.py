"""Files: store, upload, pack, unpack, and serve them whole or in part."""

import base64
import hashlib
import mimetypes
import re
import secrets
import shutil
import tarfile
import urllib.parse
import zipfile
from collections.abc import Iterable
from email.utils import formatdate
from pathlib import Path
from typing import Any

from tests.fake_kaggle.hashes import checksums
from tests.fake_kaggle.replies import Json, Refusal, Reply, json_reply
from tests.fake_kaggle.state import Blob, State

ARCHIVES = (".tar.7z", ".tar.gz", ".tar.bz2", ".tar.xz", ".zip", ".7z", ".tgz", ".tar")


class Storage(State):
    """The files of all services."""

    def stored(self, key: str, signature: str | None, headers: Any) -> Reply:
        """Serve a stored file, whole or a range of it."""
        secret, path = self._stored.get(key, ("", Path()))
        if "Authorization" in headers:
            raise Refusal(400, "Only one auth mechanism allowed")
        if not secret or signature != secret:
            raise Refusal(403, "The provided signature does not match")
        if not path.is_file():
            raise Refusal(404, "The specified key does not exist")
        return self._file_reply(path, headers)

    def upload(self, key: str, content_range: str | None, blocks: Iterable[bytes]) -> Reply:
        """Receive an upload or the rest of one, or report how many bytes have arrived."""
        blob = self._blobs.get(key)
        if blob is None:
            raise Refusal(404, "No such upload")
        match = re.fullmatch(r"bytes (?:\*|(\d+)-(\d+))/(\d+|\*)", content_range or "bytes 0-0/*")
        there = blob.path.stat().st_size if blob.path.exists() else 0
        if match is None or (match[1] and 0 < int(match[1]) != there):
            raise Refusal(400, f"Content-Range {content_range} does not follow {there} bytes")
        if match[1] is not None:
            with blob.path.open("ab" if int(match[1]) else "wb") as file:
                for block in blocks:
                    file.write(block)
                    file.flush()
        if blob.complete:
            return json_reply({"name": blob.name, "size": str(blob.size)})
        there = blob.path.stat().st_size if blob.path.exists() else 0
        return Reply(308, [("Range", f"bytes=0-{there - 1}")] if there else [])

    def _blobs_start_blob_upload(self, request: Json, _user: str) -> Json:
        return self._start_upload(request["name"], request.get("contentLength", 0))

    def _start_upload(self, name: str, size: int) -> Json:
        key = secrets.token_hex(12)
        path = self.folder / "uploads" / key
        path.parent.mkdir(exist_ok=True)
        with self._lock:
            self._blobs[key] = Blob(Path(name).name, size, path)
        if size == 0:
            path.touch()
        return {"token": f"token-{key}", "createUrl": f"{self.url}/upload/{key}"}

    def _uploaded(self, token: str) -> Blob:
        blob = self._blobs.get(token.removeprefix("token-"))
        if blob is None or not blob.complete:
            raise Refusal(400, "The upload was not found or is not complete")
        return blob

    def _keep(self, files: dict[str, bytes | Path]) -> dict[str, Path]:
        """Return the files as paths, after writing bytes to the folder."""
        kept = {}
        for name, content in files.items():
            if isinstance(content, bytes):
                path = self.folder / "given" / str(self._new_id()) / Path(name).name
                path.parent.mkdir(parents=True)
                path.write_bytes(content)
                content = path
            kept[name] = Path(content)
        return kept

    def _zip(self, stamp: str, files: dict[str, Path]) -> Path:
        """Return an uncompressed zip of all files, built once."""
        target = self.folder / "zips" / f"{stamp}.zip"
        with self._building:
            if not target.exists():
                target.parent.mkdir(exist_ok=True)
                partial = target.with_suffix(".partial")
                with zipfile.ZipFile(partial, "w") as archive:
                    for name in sorted(files):
                        archive.write(files[name], name)
                partial.replace(target)
        return target

    def _unpacked(self, name: str, path: Path) -> dict[str, Path]:
        """Return a file, or an archive's members: x.csv for x.csv.zip, otherwise in a folder named by its
        stem."""
        suffix = next((s for s in ARCHIVES if name.lower().endswith(s)), None)
        if suffix is None:
            return {name: path}
        stat = path.stat()
        stamp = hashlib.md5(f"{path} {stat.st_mtime_ns} {stat.st_size}".encode()).hexdigest()[:12]
        folder, stem = self.folder / "unpacked" / stamp, name[: -len(suffix)]
        with self._building:
            if not folder.exists():
                partial = folder.with_suffix(".partial")
                shutil.rmtree(partial, ignore_errors=True)
                partial.mkdir(parents=True)
                _extract(path, suffix, partial)
                partial.replace(folder)
        members = {p.relative_to(folder).as_posix(): p for p in sorted(folder.rglob("*")) if p.is_file()}
        if list(members) == [Path(stem).name]:
            return {stem: members[Path(stem).name]}
        return {f"{stem}/{member}": p for member, p in members.items()}

    def _store(self, path: Path, name: str) -> str:
        """Return a signed URL of a file, which needs no credentials."""
        key, signature = secrets.token_hex(8), secrets.token_hex(24)
        with self._lock:
            self._stored[key] = (signature, path)
        return f"{self.storage_url}/storage/{key}/{urllib.parse.quote(name)}?X-Goog-Signature={signature}"

    def _hand_out(self, path: Path, name: str) -> Reply:
        if not self.redirect:
            return self._file_reply(path, {})
        return Reply(302, [("Location", self._store(path, name)), ("Content-Type", "text/html")])

    def _file_reply(self, path: Path, headers: Any) -> Reply:
        stat = path.stat()
        size = stat.st_size
        modified = formatdate(stat.st_mtime, usegmt=True)
        md5, crc = checksums(path, stat.st_mtime_ns, size)
        etag = f'"{md5.hex()}"' if self.with_hashes else f'"v{stat.st_mtime_ns:x}-{size:x}"'
        answer = [
            ("Content-Type", mimetypes.guess_type(path.name)[0] or "application/octet-stream"),
            ("Accept-Ranges", "bytes"),
            ("ETag", etag),
            ("Last-Modified", modified),
        ]
        if self.with_hashes:
            answer += [
                ("x-goog-hash", f"crc32c={base64.b64encode(crc).decode()}"),
                ("x-goog-hash", f"md5={base64.b64encode(md5).decode()}"),
            ]
        match = re.fullmatch(r"bytes=(\d*)-(\d*)", headers.get("Range") or "")
        if match is None or not any(match.groups()) or headers.get("If-Range", etag) not in (etag, modified):
            return Reply(200, answer, path=path, stop=size)
        if match[1]:
            start, stop = int(match[1]), min(int(match[2] or size) + 1, size)
        else:
            start, stop = max(0, size - int(match[2])), size
        if start >= stop:
            return Reply(416, [("Content-Range", f"bytes */{size}"), *answer])
        return Reply(
            206,
            [*answer, ("Content-Range", f"bytes {start}-{stop - 1}/{size}")],
            path=path,
            start=start,
            stop=stop,
        )


def _extract(path: Path, suffix: str, folder: Path) -> None:
    if suffix == ".zip":
        with zipfile.ZipFile(path) as archive:
            archive.extractall(folder)
    elif suffix.endswith(".7z"):
        import py7zr

        with py7zr.SevenZipFile(path) as archive:
            archive.extractall(folder)
        for inner in list(folder.glob("*.tar")):
            _extract(inner, ".tar", folder)
            inner.unlink()
    else:
        with tarfile.open(path) as archive:
            archive.extractall(folder, filter="data")
