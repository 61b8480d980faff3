"""A PostgreSQL that one client can be cut off from: a second socket that passes bytes on."""

import os
import select
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from urllib.parse import parse_qs, quote, urlsplit

_CHUNK = 65536


class Link:
    """Passes connections on to the server's socket until it is cut, and again once it is mended."""

    def __init__(self, server: Path, folder: Path) -> None:
        self._server = server
        self._path = folder / server.name
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._whole = False
        self.mend()

    def cut(self) -> None:
        """End every connection and refuse new ones, as a network that is down does."""
        with self._lock:
            self._whole = False
            self._listener.close()
            self._path.unlink(missing_ok=True)
            ended, self._open = self._open, set()
        for each in ended:
            with suppress(OSError):
                each.shutdown(socket.SHUT_RDWR)

    def mend(self) -> None:
        """Listen again."""
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(os.fspath(self._path))
        self._listener.listen(64)
        self._whole = True
        threading.Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        while True:
            # A closed listener does not wake accept: look at it instead.
            with suppress(OSError, ValueError):
                ready, _, _ = select.select([listener], [], [], 0.2)
                if ready:
                    near, _ = listener.accept()
                    threading.Thread(target=self._serve, args=(near,), daemon=True).start()
            if listener.fileno() < 0:
                return

    def _serve(self, near: socket.socket) -> None:
        far = socket.socket(socket.AF_UNIX)
        with near, far, suppress(OSError):
            far.connect(os.fspath(self._server))
            with self._lock:
                if not self._whole:
                    return
                self._open |= {near, far}
            other = {near: far, far: near}
            while True:
                ready, _, _ = select.select([near, far], [], [])
                for each in ready:
                    chunk = each.recv(_CHUNK)
                    if not chunk:
                        return
                    other[each].sendall(chunk)


@contextmanager
def severable(url: str) -> Iterator[tuple[Link, str]]:
    """A link to the PostgreSQL of a store URL, and the URL through it."""
    parts = urlsplit(url)
    query = parse_qs(parts.query)
    (host,) = query["host"]
    port = query.get("port", ["5432"])[0]
    with TemporaryDirectory(prefix="quickfix-link-") as folder:
        link = Link(Path(host) / f".s.PGSQL.{port}", Path(folder))
        yield link, url.replace(parts.query, parts.query.replace(quote(host, safe="/"), folder))
        link.cut()
