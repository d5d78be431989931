"""Installs what engines need and this machine lacks: Debian's packages by apt, as root, and Kafka's jars by Maven.

Nothing is touched where all is there. Several processes may ask at the same time; the first one does the work.
"""

import fcntl
import os
import shlex
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from longwire.testing.engines.base import EngineMissing, find_program

KAFKA_VERSION = "4.4.0"
_SAID_BYTES = 2000

# engine → what is looked for, a program or a file's pattern, and the package of Debian 12 that brings it
_NEEDS: dict[str, dict[str, str]] = {
    "redis": {"redis-server": "redis-server"},
    "zookeeper": {
        "java": "default-jre-headless",
        "/usr/share/java/zookeeper.jar": "zookeeper",
        "/usr/share/java/slf4j-simple.jar": "libslf4j-java",
    },
    "mariadb": {
        "mariadbd": "mariadb-server-core",
        "mariadb-install-db": "mariadb-server-core",
        "mariadb": "mariadb-client-core",
    },
    "postgres": {"/usr/lib/postgresql/*/bin/postgres": "postgresql"},
    "kafka": {"java": "default-jre-headless"},
    "nginx": {"nginx": "nginx", "/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream"},
}
_POM = f"""\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>longwire</groupId><artifactId>engines</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId><artifactId>kafka_2.13</artifactId><version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId><artifactId>log4j-slf4j-impl</artifactId><version>2.25.5</version>
    </dependency>
  </dependencies>
</project>
"""


def cache_folder() -> Path:
    """Where what no package brings is kept: ``.cache/engines`` of the source tree, else of the home folder."""
    root = Path(__file__).resolve().parents[4]
    return (root if (root / "pyproject.toml").exists() else Path.home()) / ".cache/engines"


def kafka_jars() -> Path:
    """The folder of Kafka's jars, whether it is there or not."""
    return cache_folder() / f"kafka-{KAFKA_VERSION}"


def lacking(*names: str) -> list[str]:
    """What the named engines, or all, need and do not find here, as packages and ``kafka-VERSION``.

    Raises ValueError for an engine that is not known.
    """
    wanted = names or tuple(_NEEDS)
    if unknown := set(wanted) - _NEEDS.keys():
        raise ValueError(f"no engine is called {', '.join(sorted(unknown))}; known are {', '.join(_NEEDS)}")
    packages = {package: None for name in wanted for needed, package in _NEEDS[name].items() if not _is_there(needed)}
    if "kafka" in wanted and not kafka_jars().exists():
        return [*packages, *([] if _is_there("mvn") else ["maven"]), kafka_jars().name]
    return [*packages]


def install(*names: str) -> None:
    """Installs what the named engines, or all, need and do not find here.

    Raises EngineMissing with the command to run where we may not, or where it failed; ValueError for an engine that
    is not known.
    """
    if not lacking(*names):
        return
    with _alone():
        wanted = lacking(*names)
        if packages := [each for each in wanted if each != kafka_jars().name]:
            _install_packages(packages)
        if kafka_jars().name in wanted:
            _fetch_kafka()


def _is_there(needed: str) -> bool:
    if needed.startswith("/"):
        return any(Path("/").glob(needed[1:]))
    try:
        find_program(needed, needed)
    except EngineMissing:
        return False
    return True


def _install_packages(packages: list[str]) -> None:
    command = ["apt-get", "install", "-y", "--no-install-recommends", *packages]
    told = f"apt-get update && {shlex.join(command)}"
    if shutil.which("apt-get") is None:
        raise EngineMissing(f"engines for the tests are not installed, and there is no apt-get; on Debian 12: {told}")
    if os.geteuid() != 0:
        raise EngineMissing(f"engines for the tests are not installed; run as root: {told}")
    _run(["apt-get", "update"], told)
    _run(command, told)


def _fetch_kafka() -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        (folder / "pom.xml").write_text(_POM)
        flags = [
            "-B",
            "-q",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={folder / 'jars'}",
        ]
        _run([find_program("mvn", "maven"), *flags, "-f", str(folder / "pom.xml")], "make engines")
        (folder / "jars").rename(kafka_jars())


def _run(command: Sequence[str], told: str) -> None:
    environment = {**os.environ, "DEBIAN_FRONTEND": "noninteractive"}
    done = subprocess.run(  # noqa: S603 - ours
        command,
        env=environment,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        check=False,
    )
    if done.returncode != 0:
        said = done.stdout.decode(errors="replace")[-_SAID_BYTES:].strip()
        raise EngineMissing(
            f"{shlex.join(command)} ended with {done.returncode}: {said}\nput it right, then run: {told}"
        )


@contextmanager
def _alone() -> Iterator[None]:
    """One process at a time; the lock goes with the file, also when we are killed."""
    cache_folder().mkdir(parents=True, exist_ok=True)
    with (cache_folder() / "install.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield
