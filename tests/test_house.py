"""What the repository says about itself, held against what it is."""

import re
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from longwire.app.settings import Settings, names, shown
from longwire.reasons import CloseCode, Status

ROOT = Path(__file__).resolve().parents[1]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))
PAGES = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/**/*.md"), *ROOT.glob("bench/*.md")])


def _rows(page: str) -> Iterator[tuple[str, str]]:
    """The first two cells of each table row whose first one is a single piece of code."""
    for line in (ROOT / page).read_text("utf-8").splitlines():
        if found := re.match(r"\| `([^`]+)` \| ([^|]+) \|", line):
            yield found[1], found[2].strip().strip("`")


def test_every_setting_is_documented_with_its_default() -> None:
    defaults = Settings()
    told = [(name, default) for name, default in _rows("docs/settings.md") if name in names() or "." in name]
    expected = [(name, shown(defaults, name)) for name in names()]
    assert [row for row in told if row[0] != "longwire.toml"] == expected


def test_the_protocol_page_knows_every_close_code_and_status() -> None:
    page = (ROOT / "docs/protocol.md").read_text("utf-8")
    assert [code for code in CloseCode if f"| {int(code)} | {code.label}" not in page] == []
    assert [status for status in Status if f"{int(status)} {status.label}" not in page] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_between_pages_lead_somewhere(page: Path) -> None:
    links = re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text("utf-8"))
    assert [link for link in links if not (page.parent / link).exists()] == []


def test_the_lock_holds_versions_and_hashes_and_nothing_else() -> None:
    where = r"[a-z_]+ [!=<>]=? '[A-Za-z0-9.]+'"
    marker = rf"( ; {where}( and {where})*)?"
    line = re.compile(rf"[a-z0-9-]+==[^\s;]+{marker} \\|    --hash=sha256:[0-9a-f]{{64}}( \\)?")
    text = (ROOT / "requirements.lock").read_text("utf-8")
    assert [found for found in text.splitlines() if line.fullmatch(found) is None] == []


def test_the_lock_covers_what_the_project_asks_for() -> None:
    locked = set(re.findall(r"^([a-z0-9-]+)==", (ROOT / "requirements.lock").read_text("utf-8"), re.MULTILINE))
    project = PROJECT["project"]
    wanted = [*project["dependencies"], *project["optional-dependencies"]["dev"], *PROJECT["build-system"]["requires"]]
    wanted += [each for name in ("cluster", "console", "otel") for each in project["optional-dependencies"][name]]
    assert {re.split(r"[<>=!~\[]", each)[0] for each in wanted} - locked == set()
