"""The list of devices and the page of one, looked at and clicked through."""

import re

from console_world import GONE, NEVER, ONLINE, World, until
from playwright.sync_api import Page, expect


def rows(page: Page) -> list[str]:
    """The ids that the first table lists."""
    return page.locator(".lw-table").first.locator("tbody tr td:first-child").all_inner_texts()


def listed(world: World, **params: object) -> list[str]:
    return [one["device_id"] for one in world.call("GET", "/v1/devices", limit=50, **params)["items"]]


def test_the_list_shows_what_the_api_lists_and_more_brings_the_next_page(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/devices")
    assert rows(page) == listed(world)
    desk.look("devices")
    page.get_by_role("button", name="More").click()
    expect(page.locator(".lw-table tbody tr").nth(55)).to_be_visible()


def test_devices_are_found_by_id_user_tag_group_and_presence(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/devices?tag=city:berlin&online=true")
    assert rows(page) == listed(world, tag="city:berlin", online="true") != []
    assert set(rows(page)) <= set(ONLINE)
    desk.look("devices-found")
    page.get_by_text("Tag: city:berlin").click()  # lets go of it
    expect(page).to_have_url(re.compile(r"/devices\?online=true$"))
    desk.wait()
    page.get_by_label("Search devices").fill("kiosk-00")
    page.get_by_label("Search devices").press("Enter")
    expect(page).to_have_url(re.compile(r"/devices\?q=kiosk-00&online=true$"))
    desk.wait()
    assert set(rows(page)) == set(ONLINE)
    for query in ("user=shop-leipzig", "group=night-shift&online=false"):
        page = desk.visit(f"/devices?{query}")
        name, _, value = query.partition("&")[0].partition("=")
        more = {"online": "false"} if "online" in query else {}
        assert rows(page) == listed(world, **{name: value}, **more) != []


def test_a_search_that_finds_nothing_or_cannot_be_says_so(signed_in) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/devices?q=nobody-has-this")
    expect(page.get_by_text("No device meets this.")).to_be_visible()
    desk.look("devices-none")
    page = desk.visit("/devices?user=%3Cimg%20src%3Dx%20onerror%3Dalert(1)%3E")
    expect(page.get_by_text("Nothing can be called that.")).to_be_visible()
    assert page.locator("#main img").count() == 0
    desk.look("devices-error")


def test_a_device_page_tells_presence_connections_and_messages(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/devices/{ONLINE[0]}")
    presence = world.call("GET", f"/v1/devices/{ONLINE[0]}/presence")
    main = page.locator("#main")
    expect(main.get_by_text("online", exact=True)).to_be_visible()
    for told in (presence["node_id"], presence["session_id"], "shop-berlin", "city:berlin", "still connected"):
        expect(main.get_by_text(told).first).to_be_visible()
    expect(main.get_by_text("acked").first).to_be_visible()
    desk.look("device")
    page = desk.visit(f"/devices/{GONE}")
    expect(page.locator("#main").get_by_text("it went away by itself").first).to_be_visible()


def test_a_device_that_never_came_says_so_and_lists_what_waits(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/devices/{NEVER}")
    expect(page.get_by_text("It has never connected, as far as is known.")).to_be_visible()
    waiting = world.call("GET", f"/v1/devices/{NEVER}/inbox")["items"]
    assert len(waiting) >= 3
    expect(page.locator(".lw-table").first.locator("tbody tr")).to_have_count(min(10, len(waiting)))
    desk.look("device-never")


def test_a_device_that_is_not_registered_is_an_error_with_what_to_do(signed_in) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/devices/nobody-has-this")
    expect(page.get_by_text("It may have been deleted")).to_be_visible()
    expect(page.get_by_role("button", name="Again")).to_be_visible()
    desk.look("device-missing")


def test_an_operator_sends_calls_tags_and_kicks(signed_in, world: World) -> None:
    world.connect("desk-1", tags=["kiosk"])
    desk = signed_in("operator")
    page = desk.visit("/devices/desk-1")

    page.get_by_role("button", name="Command", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_role("textbox", name="Method").fill("echo")
    dialog.get_by_label("Payload, JSON").fill('{"say": "hi there"}')
    dialog.get_by_role("button", name="Call").click()
    expect(dialog.get_by_text("hi there").last).to_be_visible()
    expect(dialog.get_by_text("replied")).to_be_visible()
    desk.look("device-command", whole=False)
    dialog.get_by_role("button", name="Close").click()

    page.get_by_role("button", name="Edit tags").click()
    page.get_by_role("dialog").get_by_label("One a line").fill("kiosk\nnew/one")
    page.get_by_role("dialog").get_by_role("button", name="Save").click()
    expect(page.locator(".lw-tag", has_text="new/one")).to_be_visible()
    assert set(world.call("GET", "/v1/devices/desk-1")["tags"]) >= {"kiosk", "new/one"}

    page.get_by_role("button", name="Kick").click()
    desk.look("device-kick", whole=False)
    page.get_by_role("dialog").get_by_role("button", name="Kick").click()
    expect(page.get_by_text("4101, it was disconnected by an operator").first).to_be_visible()
    expect(page.get_by_role("button", name="Kick")).to_have_count(0)


def test_an_operator_sends_a_message_and_is_led_to_its_way(signed_in, world: World) -> None:
    world.connect("desk-2")
    desk = signed_in("operator")
    page = desk.visit("/devices/desk-2")
    page.get_by_role("button", name="Send", exact=True).click()
    dialog = page.get_by_role("dialog")
    dialog.get_by_label("Payload, JSON").fill("{no json")
    dialog.get_by_role("button", name="Send").click()
    expect(dialog.get_by_text("This is no JSON")).to_be_visible()
    desk.look("device-send", whole=False)
    dialog.get_by_label("Payload, JSON").fill('{"text": "from the console"}')
    dialog.get_by_role("button", name="Send").click()
    expect(page.get_by_text("desk-2 acknowledged it at")).to_be_visible()


def test_an_operator_bans_disables_revokes_and_lets_in_again(signed_in, world: World) -> None:
    world.register("desk-3")
    desk = signed_in("operator")
    page = desk.visit("/devices/desk-3")

    def state() -> dict[str, object]:
        return world.call("GET", "/v1/devices/desk-3")

    page.get_by_role("button", name="Ban", exact=True).click()
    page.get_by_role("dialog").get_by_role("button", name="Ban").click()
    expect(page.locator(".lw-badge", has_text="banned")).to_be_visible()
    assert state()["banned_until"]
    page.get_by_role("button", name="Lift ban").click()
    expect(page.locator(".lw-badge", has_text="offline").first).to_be_visible()

    page.get_by_role("button", name="Disable").click()
    page.get_by_role("dialog").get_by_role("button", name="Disable").click()
    expect(page.get_by_role("button", name="Enable")).to_be_visible()
    assert state()["is_disabled"] is True
    page.get_by_role("button", name="Enable").click()
    expect(page.get_by_role("button", name="Disable")).to_be_visible()

    page.get_by_role("button", name="Revoke").click()
    page.get_by_role("dialog").get_by_role("button", name="Revoke").click()
    expect(page.get_by_text("Its tokens are revoked.")).to_be_visible()


def test_an_operator_empties_an_inbox(signed_in, world: World) -> None:
    world.register("desk-4")
    for _ in range(2):
        world.call("POST", "/v1/messages", {"to": "device:desk-4", "kind": "offer", "payload": 1})
    page = signed_in("operator").visit("/devices/desk-4")
    page.get_by_role("button", name="Empty the inbox").click()
    page.get_by_role("dialog").get_by_role("button", name="Empty").click()
    expect(page.get_by_text("2 messages withdrawn.")).to_be_visible()
    expect(page.get_by_text("Nothing waits for it.")).to_be_visible()
    until(lambda: not world.call("GET", "/v1/devices/desk-4/inbox")["items"], "the inbox is empty")
