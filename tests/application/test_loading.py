"""Importing the user's application by name: every way to get the name wrong says which part is wrong."""

import sys
from pathlib import Path

import pytest

from longwire.application import LoadError, Longwire, load


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [p for p in sys.path if p])
    monkeypatch.setattr(sys, "modules", dict(sys.modules))
    return tmp_path


def test_an_application_is_found_from_the_working_directory(here: Path) -> None:
    (here / "corner_shop.py").write_text("from longwire.application import Longwire\nclass A: app = Longwire()\n")
    assert isinstance(load("corner_shop:A.app"), Longwire)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("corner_shop", "module:attribute"),
        (":app", "module:attribute"),
        ("corner_shop:", "module:attribute"),
        ("no_such_shop:app", "'no_such_shop' of application .* was not found"),
        ("corner_shop.inner:app", "corner_shop.inner' of application .* was not found"),
        ("corner_shop:nothing", "has no 'nothing'"),
        ("corner_shop:number", "is a int, not a Longwire"),
        ("needy_shop:app", "was found, but imports 'no_such_library'"),
        ("broken_shop:app", "failed on import: ZeroDivisionError"),
        ("exiting_shop:app", "failed on import: SystemExit"),
    ],
)
def test_a_wrong_name_says_what_is_wrong(here: Path, name: str, message: str) -> None:
    (here / "corner_shop.py").write_text("number = 1\n")
    (here / "needy_shop.py").write_text("import no_such_library\n")
    (here / "broken_shop.py").write_text("1 / 0\n")
    (here / "exiting_shop.py").write_text("raise SystemExit(1)\n")
    with pytest.raises(LoadError, match=message):
        load(name)
