"""What each role sees, and what it does not: in the navigation, on the pages, at their buttons."""

import pytest
from console_world import ONLINE, World
from playwright.sync_api import expect

from longwire.console.shell import ADMIN, PLACES

_PLACES = [place for places in PLACES.values() for place in places]
_READS = frozenset({"push:read", "device:read", "node:read", "stats:read"})
_ACTING = ("Send", "Command", "Kick", "Ban", "Disable", "Revoke", "Edit tags", "New group", "New push", "Rebalance")
_ACTING += ("Add", "Remove", "Delete group", "Empty the inbox", "Drain", "Trace for 10 minutes")


@pytest.mark.parametrize("role", ["viewer", "operator", "admin"])
def test_the_navigation_has_what_the_role_may_see(signed_in, role: str) -> None:
    page = signed_in(role).visit("/devices")
    expected = [place.label for place in _PLACES if role == "admin" or place.scope in _READS]
    assert page.locator(".lw-nav-link span").all_inner_texts() == expected


@pytest.mark.parametrize("path", [place.path for place in _PLACES if place.scope == ADMIN])
def test_a_page_that_the_role_may_not_see_says_which_scope_it_needs(signed_in, path: str) -> None:
    page = signed_in("operator").visit(path)
    expect(page.get_by_text("Your role does not allow this.")).to_be_visible()
    expect(page.get_by_text("It needs the scope admin.")).to_be_visible()


def test_a_viewer_has_no_button_that_changes_anything(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    node = world.call("GET", "/v1/nodes")["items"][0]["node_id"]
    paths = ["/", "/nodes", f"/nodes/{node}", "/pushes", f"/pushes/{world.push_id}", f"/devices/{ONLINE[0]}"]
    for path in (*paths, "/groups", "/groups/night-shift", f"/trace?q={ONLINE[0]}"):
        page = desk.visit(path)
        shown = page.locator("#main").get_by_role("button").all_inner_texts()
        assert not {one.split("\n")[-1] for one in shown} & set(_ACTING), path
