"""Groups and tags: both lists, a group and its members."""

import re

from console_world import HOSTILE, World
from playwright.sync_api import expect


def test_groups_and_tags_are_listed_with_their_counts(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/groups")
    groups, tags = page.locator(".lw-table").nth(0), page.locator(".lw-table").nth(1)
    night = world.call("GET", "/v1/groups/night-shift")
    shown = groups.locator("tr", has_text="night-shift").locator("td").all_inner_texts()
    assert shown[:4] == ["night-shift", "Night shift", str(night["devices"]), str(night["users"])]
    expect(tags.locator("tr", has_text="city:berlin")).to_be_visible()
    assert HOSTILE in groups.inner_text(), "what comes in is shown as text"
    assert page.locator("#main img").count() == 0
    desk.look("groups")
    tags.locator("tr", has_text="city:berlin").click()
    expect(page).to_have_url(re.compile(r"/devices\?tag=city%3Aberlin$"))


def test_tags_are_found_by_how_they_begin(signed_in) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/groups?prefix=city:")
    found = page.locator(".lw-table").nth(1).locator("tbody td:first-child").all_inner_texts()
    assert found == ["city:berlin", "city:hamburg", "city:leipzig"]
    page = desk.visit("/groups?prefix=nobody-has")
    expect(page.get_by_text("No tag begins nobody-has.")).to_be_visible()
    desk.look("groups-none")


def test_a_group_page_shows_its_members_as_text(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/groups/night-shift")
    expect(page.locator(".lw-table tbody tr")).to_have_count(13)
    expect(page.locator("tr", has_text="shop-hamburg").get_by_text("user with all devices")).to_be_visible()
    expect(page.get_by_role("button", name="Add")).to_have_count(0)
    desk.look("group")
    page = desk.visit("/groups/hostile")
    assert HOSTILE in page.locator("#main").inner_text()
    assert page.title() == "Group · Longwire"
    expect(page.get_by_text("Nobody is in this group.")).to_be_visible()
    desk.look("group-empty")


def test_an_operator_makes_a_group_fills_it_and_deletes_it(signed_in, world: World) -> None:
    desk = signed_in("operator")
    page = desk.visit("/groups")
    page.get_by_role("button", name="New group").click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Id", exact=True).fill("no such id!")
    dialog.get_by_role("button", name="Make").click()
    expect(dialog.locator(".q-field--error")).to_be_visible()
    desk.look("group-new", whole=False)
    dialog.get_by_role("textbox", name="Id", exact=True).fill("made-here")
    dialog.get_by_role("textbox", name="Name").fill("Made here")
    dialog.get_by_role("button", name="Make").click()
    expect(page).to_have_url(re.compile("/groups/made-here$"))
    desk.wait()

    page.get_by_role("button", name="Add", exact=True).click()
    page.get_by_role("dialog").get_by_label("Ids, one a line").fill("kiosk-001\nkiosk-002\nnobody-has-this")
    page.get_by_role("dialog").get_by_role("button", name="Add").click()
    expect(page.get_by_text("2 members added. Not registered: nobody-has-this.")).to_be_visible()
    expect(page.locator(".lw-table tbody tr")).to_have_count(2)
    assert world.call("GET", "/v1/groups/made-here")["devices"] == 2

    page.get_by_role("button", name="Remove", exact=True).click()
    page.get_by_role("dialog").get_by_label("Ids, one a line").fill("kiosk-002")
    page.get_by_role("dialog").get_by_role("button", name="Remove").click()
    expect(page.locator(".lw-table tbody tr")).to_have_count(1)

    page.get_by_role("button", name="Delete group").click()
    page.get_by_role("dialog").get_by_role("button", name="Delete").click()
    expect(page).to_have_url(re.compile("/groups$"))
    assert world.api.get("/v1/groups/made-here").status_code == 404
