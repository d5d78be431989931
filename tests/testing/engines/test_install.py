"""What is missing is installed once, and where it cannot be, the command is told."""

import importlib
import threading
from pathlib import Path

import pytest

from longwire.testing.engines import EngineMissing, __main__, install
from longwire.testing.engines.install import jars_of, lacking

# In the package this name is the function.
installer = importlib.import_module("longwire.testing.engines.install")


@pytest.fixture
def lacks_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Redis needs a file that is not there yet."""
    file = tmp_path / "redis-of-the-test"
    monkeypatch.setattr(installer, "_NEEDS", {"redis": {str(file): "redis-of-the-test"}})
    return file


def test_nothing_is_done_where_all_is_there(lacks_a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(installer, "_run", lambda *_: pytest.fail("something was run"))
    lacks_a_file.touch()
    assert lacking("redis") == []
    install("redis")


def test_who_is_not_root_is_told_the_command(lacks_a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("os.geteuid", lambda: 1000)
    monkeypatch.setattr("shutil.which", lambda *_, **__: "/usr/bin/apt-get")
    expected = "run as root: apt-get update && apt-get install -y --no-install-recommends redis-of-the-test"
    with pytest.raises(EngineMissing, match=expected):
        install("redis")


def test_a_machine_without_apt_is_told_the_packages(lacks_a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.which", lambda *_, **__: None)
    with pytest.raises(EngineMissing, match=r"there is no apt-get; on Debian 12: .* redis-of-the-test"):
        install("redis")


def test_a_command_that_fails_is_told_with_what_it_said(tmp_path: Path) -> None:
    with pytest.raises(EngineMissing, match=r"(?s)ended with 3: no network\nput it right, then run: make engines"):
        installer._run(["/bin/sh", "-c", "echo no network; exit 3"], "make engines")


def test_of_several_at_once_the_first_does_the_work(lacks_a_file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[list[str]] = []

    def put_there(packages: list[str]) -> None:
        done.append(packages)
        lacks_a_file.touch()

    monkeypatch.setattr(installer, "_install_packages", put_there)
    at_once = threading.Barrier(4)

    def ask() -> None:
        at_once.wait()
        install("redis")

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert done == [["redis-of-the-test"]]


def test_an_unknown_engine_is_refused_with_the_known_ones(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("sys.argv", ["engines", "rediss"])
    assert __main__.main() == 1
    assert "no engine is called rediss; known are redis, zookeeper" in capsys.readouterr().err


def test_kafka_is_kept_in_the_cache_of_the_source_tree() -> None:
    assert jars_of("kafka").parent == Path(__file__).resolve().parents[3] / ".cache/engines"
