"""Objects below one root, local or remote, through one code path."""

from __future__ import annotations

import io
import os
import shutil
import uuid
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakehouse import validation
from lakehouse.storage.failures import is_missing, translated
from lakehouse.storage.retry import patient


@dataclass(frozen=True)
class ObjectInfo:
    """One object as a listing shows it. ``path`` is relative to the root that was listed."""

    path: str
    size_bytes: int
    modified_at_utc: datetime
    etag: str | None


class Objects:
    """Read, list and write objects below ``root`` (a folder or an ``s3://``, ``gs://``, ``abfss://`` URL)."""

    def __init__(self, root: str, options: Mapping[str, str] | None = None) -> None:
        self.root = root.rstrip("/") or "/"
        self.options = dict(options or {})
        self.is_remote = validation.is_remote(root)
        # As a path has it, so that names are put behind it without making one of each: a listing may have thousands.
        self._folder = "" if self.is_remote else str(Path(self.root))
        self._cached_store: Any = None

    @property
    def _store(self) -> Any:
        if self._cached_store is None:
            import obstore.store

            if self.is_remote:
                options: Any = {key.lower(): value for key, value in self.options.items()}
                client: Any = (
                    {"allow_http": True}
                    if options.pop("aws_allow_http", "").lower() in ("1", "true")
                    else None
                )
                self._cached_store = obstore.store.from_url(
                    self.root,
                    config=options or None,
                    client_options=client,
                )
            else:
                Path(self.root).mkdir(parents=True, exist_ok=True)
                self._cached_store = obstore.store.LocalStore(prefix=self.root)
        return self._cached_store

    def url(self, path: str) -> str:
        """Absolute path or URL of ``path``."""
        return validation.join_url(self.root, path) if self.is_remote else os.path.join(self._folder, path)

    def list(self, prefix: str = "") -> Iterator[ObjectInfo]:
        """Every object below ``prefix``, in no order. A prefix that does not exist holds nothing."""
        if not self.is_remote:
            yield from self._list_local(prefix)
            return
        listing = _Listing(self, prefix)
        while page := listing.page():
            for meta in page:
                yield ObjectInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])

    def _list_local(self, prefix: str) -> Iterator[ObjectInfo]:
        """A plain directory walk: half the CPU of a generic store's listing, and symbolic links are followed."""
        stack = [os.path.join(self._folder, prefix)]
        begins = len(os.path.join(self._folder, ""))
        with translated(f"list {self.url(prefix)}"):
            while stack:
                try:
                    entries = list(os.scandir(stack.pop()))
                except (FileNotFoundError, NotADirectoryError):
                    continue
                for entry in entries:
                    try:
                        if entry.is_dir():
                            stack.append(entry.path)
                            continue
                        status = entry.stat()
                    except FileNotFoundError:  # renamed or removed while we looked: the next listing tells
                        continue
                    yield _local_info(entry.path[begins:], status)

    @patient
    def info(self, path: str) -> ObjectInfo | None:
        """One object as a listing shows it, or None when there is no such object."""
        with translated(f"look at {self.url(path)}"):
            if not self.is_remote:
                try:
                    status = os.stat(Path(self.root, path))
                except (FileNotFoundError, NotADirectoryError):
                    return None
                return _local_info(path, status)
            import obstore

            try:
                meta = obstore.head(self._store, path)
            except Exception as error:
                if is_missing(error):
                    return None
                raise
            return ObjectInfo(meta["path"], meta["size"], meta["last_modified"], meta["e_tag"])

    @patient
    def read(self, path: str) -> bytes | None:
        """The object's content, or None when there is no such object. Every other failure is raised."""
        import obstore

        with translated(f"read {self.url(path)}"):
            try:
                return bytes(obstore.get(self._store, path).bytes())
            except Exception as error:
                if is_missing(error):
                    return None
                raise

    @patient
    def read_range(self, path: str, start: int, size: int) -> bytes | None:
        """A part of the object's content, or None when there is no such object."""
        import obstore

        with translated(f"read {self.url(path)}"):
            try:
                return bytes(obstore.get_range(self._store, path, start=start, length=size))
            except Exception as error:
                if is_missing(error):
                    return None
                raise

    @patient
    def write(self, path: str, data: bytes, *, durable: bool = False) -> None:
        """Replace the object atomically: a reader sees the old content or the new, never a part.

        Args:
            durable: as of ``put_if_absent``.
        """
        import obstore

        with translated(f"write {self.url(path)}"):
            if durable and not self.is_remote:
                _replace_durably(Path(self.root, path), data)
            else:
                obstore.put(self._store, path, data)

    @patient
    def upload(self, path: str, file: Path) -> None:
        """Like ``write``, with the content of a local file of any size; an object of the same size is left alone."""
        import obstore

        known = self.info(path)
        if known is not None and known.size_bytes == file.stat().st_size:
            return
        with translated(f"write {self.url(path)}"):
            obstore.put(self._store, path, file)

    def put_if_absent(self, path: str, data: bytes, *, durable: bool = False) -> bool:
        """Create the object unless it exists; True for the one caller that created it.

        Args:
            durable: on a local disk, return only when a loss of power cannot undo it. A remote store answers so anyway.
        """
        import obstore

        with translated(f"create {self.url(path)}", None if self.is_remote else Path(self.root)):
            if durable and not self.is_remote:
                return _create_durably(Path(self.root, path), data)
            try:
                obstore.put(self._store, path, data, mode="create")
            except Exception as error:
                if type(error).__name__ in ("AlreadyExistsError", "PreconditionError"):
                    return False
                raise
            return True

    @patient
    def delete(self, path: str) -> None:
        """Remove the object; one that is not there is fine."""
        import obstore

        with translated(f"delete {self.url(path)}"):
            try:
                obstore.delete(self._store, path)
            except Exception as error:
                if not is_missing(error):
                    raise

    @patient
    def fetch(self, path: str, folder: Path) -> Path:
        """A local file with the object's content: the file itself when local, else a copy in ``folder``."""
        if not self.is_remote:
            return Path(self.root, path)
        import obstore

        target = folder / f"{abs(hash(path)):x}-{Path(path).name}"
        with translated(f"download {self.url(path)}"):
            folder.mkdir(parents=True, exist_ok=True)
            with open(target, "wb") as sink:
                for chunk in obstore.get(self._store, path).stream(min_chunk_size=8 << 20):
                    sink.write(chunk)
        return target

    def open(self, path: str) -> Any:
        """A seekable binary reader that fetches ranges, for footers of remote files."""
        if not self.is_remote:
            return open(Path(self.root, path), "rb")
        import obstore

        return _RemoteFile(obstore.open_reader(self._store, path, buffer_size=256 << 10))

    def remove_tree(self, prefix: str) -> None:
        """Remove everything below ``prefix``."""
        if not self.is_remote:
            shutil.rmtree(Path(self.root, prefix), ignore_errors=True)
            return
        for info in list(self.list(prefix)):
            self.delete(info.path)


def _create_durably(target: Path, data: bytes) -> bool:
    """Write beside the target, flush, and link: a name that is there already is never replaced."""
    with _flushed_beside(target, data) as beside:
        try:
            os.link(beside, target)
        except FileExistsError:
            return False
    sync_folder(target.parent)
    return True


def _replace_durably(target: Path, data: bytes) -> None:
    """Write beside the target, flush, and rename."""
    with _flushed_beside(target, data) as beside:
        os.replace(beside, target)
    for folder in target.parents[:2]:  # the target's own folder may be a new name, too
        sync_folder(folder)


@contextmanager
def _flushed_beside(target: Path, data: bytes) -> Iterator[Path]:
    """A file beside the target with the data, on the disk; gone afterwards, unless it was renamed."""
    target.parent.mkdir(parents=True, exist_ok=True)
    beside = target.with_name(f".{target.name}.{uuid.uuid4().hex}.tmp")
    try:
        with open(beside, "xb") as sink:
            sink.write(data)
            sink.flush()
            os.fsync(sink.fileno())
        yield beside
    finally:
        beside.unlink(missing_ok=True)


def sync_file(path: Path) -> None:
    """Return when the file's content is on the disk."""
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def sync_folder(path: Path) -> None:
    """Return when the folder's names are on the disk. A file system that cannot do that has no need of it."""
    with suppress(OSError):
        sync_file(path)


def _local_info(path: str, status: os.stat_result) -> ObjectInfo:
    modified = datetime.fromtimestamp(status.st_mtime_ns / 1e9, tz=UTC)
    return ObjectInfo(path, status.st_size, modified, f"{status.st_mtime_ns:x}-{status.st_size:x}")


class _Listing:
    """A remote listing, page by page. After a failure it goes on behind the last object that was seen."""

    def __init__(self, objects: Objects, prefix: str) -> None:
        self._objects, self._prefix = objects, prefix
        self._stream: Any = None
        self._last: str | None = None

    @patient
    def page(self) -> Sequence[Any]:
        """The next objects; empty at the end."""
        import obstore

        with translated(f"list {self._objects.url(self._prefix)}"):
            try:
                if self._stream is None:
                    self._stream = iter(
                        obstore.list(
                            self._objects._store,
                            prefix=self._prefix or None,
                            offset=self._last,
                            chunk_size=1000,
                        )
                    )
                page: Sequence[Any] = next(self._stream, ())
            except Exception:  # whatever it is, the stream is of no use any more
                self._stream = None
                raise
        if page:
            self._last = page[-1]["path"]
        return page


class _RemoteFile(io.RawIOBase):
    """A remote object as an ordinary Python file: the store's own reader is no context manager and gives no bytes."""

    def __init__(self, reader: Any) -> None:
        super().__init__()
        self._reader = reader

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._reader.seek(offset, whence)
        return int(self._reader.tell())

    def tell(self) -> int:
        return int(self._reader.tell())

    def readinto(self, buffer: Any) -> int:
        data = bytes(self._reader.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        if not self.closed:
            self._reader.close()
        super().close()
