"""Installs what engines need and this machine lacks: Debian's packages by apt, as root, and jars by Maven.

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
OPENSEARCH_VERSION = "2.19.1"
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
    "opensearch": {"javac": "default-jdk-headless"},
    "rsyslog": {
        "rsyslogd": "rsyslog",
        "/usr/lib/*/rsyslog/omelasticsearch.so": "rsyslog-elasticsearch",
    },
    "nginx": {"nginx": "nginx", "/usr/lib/nginx/modules/ngx_stream_module.so": "libnginx-mod-stream"},
    "chromium": {"chromium": "chromium", "/usr/share/fonts/truetype/dejavu": "fonts-dejavu-core"},
    "prometheus": {"prometheus": "prometheus", "promtool": "prometheus"},
}
# engine of which no package comes → its folder's name, and what Maven is asked for
_JARS: dict[str, tuple[str, tuple[str, ...]]] = {
    "kafka": (
        f"kafka-{KAFKA_VERSION}",
        (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.25.5"),
    ),
    "opensearch": (
        f"opensearch-{OPENSEARCH_VERSION}",
        (
            f"org.opensearch:opensearch:{OPENSEARCH_VERSION}",
            f"org.opensearch.plugin:transport-netty4-client:{OPENSEARCH_VERSION}",
            "org.apache.logging.log4j:log4j-core:2.21.0",
        ),
    ),
}
_POM = """\
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>longwire</groupId><artifactId>engines</artifactId><version>1</version><packaging>pom</packaging>
  <dependencies>
{}
  </dependencies>
</project>
"""
_DEPENDENCY = "    <dependency><groupId>{}</groupId><artifactId>{}</artifactId><version>{}</version></dependency>"


def cache_folder() -> Path:
    """Where what no package brings is kept: ``.cache/engines`` of the source tree, else of the home folder."""
    root = Path(__file__).resolve().parents[4]
    return (root if (root / "pyproject.toml").exists() else Path.home()) / ".cache/engines"


def jars_of(name: str) -> Path:
    """The folder of an engine's jars, whether it is there or not."""
    return cache_folder() / _JARS[name][0]


def lacking(*names: str) -> list[str]:
    """What the named engines, or all, need and do not find here, as packages and ``kafka-VERSION``.

    Raises ValueError for an engine that is not known.
    """
    wanted = names or tuple(_NEEDS)
    if unknown := set(wanted) - _NEEDS.keys():
        raise ValueError(f"no engine is called {', '.join(sorted(unknown))}; known are {', '.join(_NEEDS)}")
    packages = {package: None for name in wanted for needed, package in _NEEDS[name].items() if not _is_there(needed)}
    jars = [jars_of(name).name for name in _jarless(wanted)]
    return [*packages, *(["maven"] if jars and not _is_there("mvn") else []), *jars]


def install(*names: str) -> None:
    """Installs what the named engines, or all, need and do not find here.

    Raises EngineMissing with the command to run where we may not, or where it failed; ValueError for an engine that
    is not known.
    """
    if not lacking(*names):
        return
    with _alone():
        wanted = lacking(*names)
        jarless = _jarless(names or tuple(_NEEDS))
        folders = {jars_of(name).name for name in jarless}
        if packages := [each for each in wanted if each not in folders]:
            _install_packages(packages)
        for name in jarless:
            _fetch_jars(name)


def _jarless(names: Sequence[str]) -> list[str]:
    return [name for name in names if name in _JARS and not jars_of(name).exists()]


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


def _fetch_jars(engine: str) -> None:
    with tempfile.TemporaryDirectory(dir=cache_folder()) as name:
        folder = Path(name)
        dependencies = "\n".join(_DEPENDENCY.format(*one.split(":")) for one in _JARS[engine][1])
        (folder / "pom.xml").write_text(_POM.format(dependencies))
        flags = [
            "-B",
            "-q",
            "dependency:copy-dependencies",
            "-DincludeScope=runtime",
            f"-DoutputDirectory={folder / 'jars'}",
        ]
        _run([find_program("mvn", "maven"), *flags, "-f", str(folder / "pom.xml")], "make engines")
        (folder / "jars").rename(jars_of(engine))


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
