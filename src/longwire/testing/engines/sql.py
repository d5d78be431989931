"""MariaDB and PostgreSQL, each with a database for whoever asks.

What was committed is there after a kill of the process; only ``durable`` engines also sync it to the disk at
each commit, as production has it.
"""

import itertools
import os
import pwd
import shutil
import signal
import tempfile
import weakref
from pathlib import Path

from longwire.testing.engines.base import Engine, find_program, missing

_USER = "longwire"
_PASSWORD = "longwire"  # noqa: S105 - of an engine that only this machine reaches, and only for a test


class _Sql(Engine):
    """A server of databases."""

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder)
        self.durable = durable
        self._names = (f"lw{number}" for number in itertools.count(1))

    @property
    def url(self) -> str:
        """Of the database ``longwire``."""
        return self._url_of(_USER)

    def fresh_url(self) -> str:
        """Makes an empty database; its URL."""
        name = next(self._names)
        self.execute(f"CREATE DATABASE {name}")
        return self._url_of(name)

    def execute(self, statement: str) -> str:
        """Runs a statement by the server's own client; what it printed. Raises EngineFailed."""
        raise NotImplementedError

    def _url_of(self, database: str) -> str:
        raise NotImplementedError


class MariaDb(_Sql):
    """One MariaDB server."""

    name = "mariadb"

    def execute(self, statement: str) -> str:
        return self.run([*self._client(), "--execute", statement])

    @property
    def data(self) -> Path:
        return self.folder / "data"

    def configure(self) -> None:
        lines = [
            f"CREATE DATABASE IF NOT EXISTS {_USER};",
            f"CREATE USER IF NOT EXISTS '{_USER}'@'%' IDENTIFIED BY '{_PASSWORD}';",
            f"GRANT ALL ON *.* TO '{_USER}'@'%';",
        ]
        (self.folder / "init.sql").write_text("\n".join(lines) + "\n")

    def prepare(self) -> None:
        program = find_program("mariadb-install-db", self.name)
        shutil.rmtree(self.data, ignore_errors=True)
        flags = [
            "--no-defaults",
            "--auth-root-authentication-method=normal",
            "--skip-test-db",
            f"--datadir={self.data}",
            # In a folder that they share, one that starts takes away the temporary tables of the others.
            f"--tmpdir={self.folder}",
        ]
        self.run([program, *flags, *self._root_flag()])

    def command(self) -> list[str]:
        return [
            find_program("mariadbd", self.name),
            "--no-defaults",
            *self._root_flag(),
            f"--datadir={self.data}",
            "--bind-address=127.0.0.1",
            f"--port={self.port}",
            f"--tmpdir={self.data}",
            "--socket=s.sock",  # in the data folder; a whole path may be too long for a socket
            f"--pid-file={self.folder / 'pid'}",
            f"--init-file={self.folder / 'init.sql'}",
            "--innodb-buffer-pool-size=128M",
            f"--innodb-flush-log-at-trx-commit={1 if self.durable else 2}",
            "--performance-schema=OFF",
            "--skip-name-resolve",
            "--character-set-server=utf8mb4",
            "--max-connections=300",
        ]

    def answers(self) -> bool:
        self.run([*self._client(), "--execute", "SELECT 1"], within_s=2)
        return True

    def _client(self) -> list[str]:
        client = [find_program("mariadb", self.name), "--no-defaults", "--protocol=tcp", "--connect-timeout=1"]
        return [
            *client,
            "-h127.0.0.1",
            f"-P{self.port}",
            f"-u{_USER}",
            f"-p{_PASSWORD}",
            "--batch",
            "--skip-column-names",
        ]

    def _url_of(self, database: str) -> str:
        return f"mysql+asyncmy://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    @staticmethod
    def _root_flag() -> list[str]:
        return ["--user=root"] if os.geteuid() == 0 else []


class Postgres(_Sql):
    """One PostgreSQL server. Root may not run it: then it runs as ``postgres``, on a folder that user can reach."""

    name = "postgres"
    stop_signal = signal.SIGINT  # "fast": open sessions are ended, their transactions undone

    def __init__(self, folder: Path, *, durable: bool = False) -> None:
        super().__init__(folder, durable=durable)
        self.user = "postgres" if os.geteuid() == 0 else None
        self._data: Path | None = None

    def execute(self, statement: str) -> str:
        return self.run([*self._client(_USER), "--command", statement])

    @property
    def data(self) -> Path:
        """Where the data lies; ``folder`` itself may be closed to the user the server runs as."""
        if self._data is None:
            self._data = self.folder if self.user is None else self._open_folder(self.user)
        return self._data

    @property
    def working_folder(self) -> Path:
        return self.data

    def prepare(self) -> None:
        program = self._program("initdb")
        shutil.rmtree(self.data / "d", ignore_errors=True)
        flags = ["-U", _USER, "--auth=trust", "-E", "UTF8", "--locale=C.UTF-8", "--no-sync"]
        self.run([program, "-D", str(self.data / "d"), *flags])

    def command(self) -> list[str]:
        settings = [
            "listen_addresses=127.0.0.1",
            f"port={self.port}",
            "unix_socket_directories=",
            "shared_buffers=64MB",
            "max_connections=200",
        ]
        if not self.durable:
            settings += ["fsync=off", "full_page_writes=off"]
        flags = [word for setting in settings for word in ("-c", setting)]
        return [self._program("postgres"), "-D", str(self.data / "d"), *flags]

    def answers(self) -> bool:
        exists = f"SELECT 1 FROM pg_database WHERE datname = '{_USER}'"
        if "1" not in self.run([*self._client("postgres"), "--command", exists], within_s=2):
            self.run([*self._client("postgres"), "--command", f"CREATE DATABASE {_USER}"])
        return True

    def _client(self, database: str) -> list[str]:
        flags = ["--no-psqlrc", "--no-password", "--quiet", "--tuples-only", "--no-align", "--set=ON_ERROR_STOP=1"]
        return [self._program("psql"), *flags, "-h", "127.0.0.1", "-p", str(self.port), "-U", _USER, "-d", database]

    def _url_of(self, database: str) -> str:
        return f"postgresql+asyncpg://{_USER}:{_PASSWORD}@127.0.0.1:{self.port}/{database}"

    def _program(self, name: str) -> str:
        versions = sorted(Path("/usr/lib/postgresql").glob("[0-9]*"), key=lambda path: int(path.name), reverse=True)
        return find_program(name, self.name, [version / "bin" for version in versions])

    def _open_folder(self, user: str) -> Path:
        """A folder of the user's, in a place that everybody can reach; gone when we are."""
        try:
            owner = pwd.getpwnam(user)
        except KeyError:
            raise missing(self.name, f"user {user}") from None
        data = Path(tempfile.mkdtemp(prefix="longwire-postgres-", dir=_open_temporary_folder()))
        os.chown(data, owner.pw_uid, owner.pw_gid)
        weakref.finalize(self, shutil.rmtree, data, ignore_errors=True)
        return data


def _open_temporary_folder() -> Path:
    for folder in (Path(tempfile.gettempdir()), Path("/var/tmp"), Path("/tmp")):  # noqa: S108 - mkdtemp follows
        whole = folder.resolve()
        if all(each.stat().st_mode & 0o001 for each in (whole, *whole.parents)):
            return whole
    raise PermissionError("no temporary folder is open to other users")
