"""A PostgreSQL of the tests' own: Debian's, in a folder that goes away with it."""

from __future__ import annotations

import itertools
import os
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

_USER = "postgres"


class PostgreSql:
    """A running server that only a Unix socket leads to."""

    def __init__(self, folder: Path, tools: Path) -> None:
        self._folder = folder
        self._tools = tools
        self._numbers = itertools.count(1)

    def new_database(self) -> str:
        """The URL of a fresh database."""
        name = f"db{next(self._numbers)}"
        self._run("createdb", "-h", str(self._folder), "-U", _USER, name)
        return f"postgresql://{_USER}@/{name}?host={self._folder}"

    def start(self) -> None:
        """For the first time."""
        self._run("initdb", "-D", str(self._data), "-U", _USER, "-A", "trust", "--no-sync")
        self.start_again()

    def start_again(self) -> None:
        """After :meth:`stop`."""
        options = f"-k {self._folder} -c listen_addresses='' -c fsync=off"
        self._run(
            "pg_ctl",
            "-D",
            str(self._data),
            "-w",
            "-l",
            str(self._data / "log"),
            "-o",
            options,
            "start",
        )

    def stop(self) -> None:
        """Ends it at once, as if it had crashed."""
        self._run("pg_ctl", "-D", str(self._data), "-m", "immediate", "stop")

    @contextmanager
    def stopped(self) -> Iterator[None]:
        """It is there, and does nothing (SIGSTOP)."""
        (parent,) = (self._data / "postmaster.pid").read_text().splitlines()[:1]
        tasks = Path(f"/proc/{parent}/task/{parent}/children").read_text().split()
        processes = [int(parent), *map(int, tasks)]
        for process in processes:
            os.kill(process, signal.SIGSTOP)
        try:
            yield
        finally:
            for process in processes:
                os.kill(process, signal.SIGCONT)

    @property
    def _data(self) -> Path:
        return self._folder / "data"

    def _run(self, tool: str, *arguments: str) -> None:
        subprocess.run(
            ["runuser", "-u", _USER, "--", str(self._tools / tool), *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            cwd="/",
        )


@contextmanager
def postgresql() -> Iterator[PostgreSql]:
    """Starts one, and ends it."""
    tools = max(Path("/usr/lib/postgresql").glob("*/bin"))
    folder = Path(tempfile.mkdtemp(prefix="kvmshim-postgresql-"))
    shutil.chown(folder, _USER)
    server = PostgreSql(folder, tools)
    try:
        server.start()
        yield server
    finally:
        with suppress(subprocess.CalledProcessError):  # a test may have ended it
            server.stop()
        shutil.rmtree(folder, ignore_errors=True)
