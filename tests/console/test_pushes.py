"""The pages of pushes: composing, trying, sending, steering, and numbers that add up and are those of /v1."""

import re
from typing import Any

import pytest
from console_world import GONE, NEVER, ONLINE, World, until
from playwright.sync_api import Page

from longwire.console import words

PUSH_URL = re.compile(r"/pushes/(psh_[0-9a-f]{32})$")
FUNNEL = ("acked", "pending", "expired", "failed", "collapsed", "canceled", "withdrawn", "targeted")


def push(world: World, *devices: str, kind: str = "test", **options: object) -> str:
    body = {"audience": {"devices": list(devices)}, "message": {"kind": kind}, "options": options}
    made: str = world.call("POST", "/v1/pushes", body)["id"]
    return made


def wait_for_status(world: World, push_id: str, status: str) -> dict[str, Any]:
    def reached() -> dict[str, Any] | None:
        found: dict[str, Any] = world.call("GET", f"/v1/pushes/{push_id}")
        return found if found["status"] == status else None

    found: dict[str, Any] = until(reached, f"{push_id} is {status}")
    return found


def funnel(page: Page) -> list[str]:
    return page.locator(".lw-funnel-rows .lw-number").all_inner_texts()


def check_funnel(page: Page, world: World, push_id: str) -> dict[str, Any]:
    """The page's funnel is the API's, and adds up; the push."""

    def agree() -> dict[str, Any] | None:
        found: dict[str, Any] = world.call("GET", f"/v1/pushes/{push_id}")
        page.wait_for_timeout(50)
        return found if funnel(page) == [words.count(found["stats"][name]) for name in FUNNEL] else None

    found: dict[str, Any] = until(agree, "the funnel is the API's")
    assert sum(found["stats"][name] for name in FUNNEL[:-1]) == found["stats"]["targeted"]
    assert page.locator(".lw-funnel-rows").get_by_text("adds up").is_visible()
    return found


def test_a_push_is_composed_tried_on_a_device_and_sent(signed_in, world: World) -> None:
    desk = signed_in("operator")
    page = desk.visit("/pushes/new")
    page.get_by_role("button", name="Tags").click()
    page.get_by_text("Choose a tag that devices have.").wait_for()
    page.get_by_label("Any of these tags").click()
    page.get_by_role("option", name=re.compile(r"^city:berlin ·")).click()
    page.keyboard.press("Escape")
    wanted = {"audience": {"tags": {"any": ["city:berlin"]}}, "message": {"kind": "message"}}

    def counted() -> bool:
        found = world.call("POST", "/v1/pushes/validate", wanted)
        page.wait_for_timeout(50)
        said = page.locator(".lw-count").inner_text().split("\n")
        return said == [words.count(found["targeted"]), f"devices, {words.count(found['online'])} online now"]

    until(counted, "the count is the API's")
    page.get_by_label("Payload", exact=True).fill('{"text": "grüner"}')
    page.get_by_text("18 of 4,096 bytes").wait_for()
    desk.look("push-new")

    page.get_by_label("Device id", exact=True).fill(ONLINE[0])
    page.get_by_role("button", name="Send test").click()
    page.get_by_text(f"✓ {ONLINE[0]} acknowledged the test.").wait_for()
    page.get_by_label("Device id", exact=True).fill("nobody-1")
    page.get_by_role("button", name="Send test").click()
    page.get_by_text("Not sent: ").wait_for()

    page.get_by_role("button", name="Dry run").click()
    dry = page.get_by_role("dialog", name="Dry run: nothing was sent")
    dry.get_by_text("18 bytes").wait_for()
    dry.get_by_role("button", name="Close").click()
    dry.wait_for(state="hidden")

    page.get_by_role("button", name="Send push").click()
    page.get_by_role("dialog", name="Send to").get_by_role("button", name="Send", exact=True).click()
    page.wait_for_url(PUSH_URL)
    desk.wait()
    found = PUSH_URL.search(page.url)
    assert found is not None
    check_funnel(page, world, found[1])


def test_what_is_no_push_yet_is_told_where_it_is_wrong(signed_in, world: World) -> None:
    desk = signed_in("operator")
    page = desk.visit("/pushes/new")
    page.get_by_label("Payload", exact=True).fill("{bad")
    page.locator(".lw-count").get_by_text("The payload is no JSON").wait_for()
    page.get_by_label("Payload", exact=True).fill('"' + "x" * 4_095 + '"')
    page.get_by_text("4,097 of 4,096 bytes: too large").wait_for()
    page.locator(".lw-notice.bad", has_text="4097 bytes exceeds 4096").wait_for()
    page.get_by_role("button", name="Devices").click()
    page.get_by_label("Payload", exact=True).fill("1")
    page.get_by_label("Device ids, one a line").fill(f"{ONLINE[0]}\nnobody-1, nobody-2")
    page.get_by_text("Nobody is called nobody-1, nobody-2").wait_for()
    assert page.locator(".lw-count").inner_text() == "1\ndevice, 1 online now"
    page.get_by_label("Device ids, one a line").fill("nobody-1")
    page.get_by_text("It would be refused:").wait_for()
    desk.look("push-new-refused")


def test_a_push_is_shown_as_it_went_with_who_got_it(signed_in, world: World) -> None:
    push_id = push(world, *ONLINE[:3], GONE, kind="course", ttl_s=600)
    until(lambda: world.call("GET", f"/v1/pushes/{push_id}")["stats"]["acked"] == 3, "three acknowledged")
    desk = signed_in("viewer")
    page = desk.visit(f"/pushes/{push_id}")
    check_funnel(page, world, push_id)
    course = world.call("GET", f"/v1/pushes/{push_id}/progress")
    assert (sum(course["written"]), sum(course["acked"])) == (3, 3)
    over_time = page.get_by_role("img", name=re.compile("^Over time: "))
    until(lambda: over_time.get_attribute("aria-label") == "Over time: written 3, acknowledged 3", "the chart is drawn")
    assert page.get_by_role("img", name="Acknowledged after: devices 3").is_visible()

    devices = page.locator("section", has=page.get_by_role("heading", name="Devices"))
    assert devices.locator("tbody tr").all_inner_texts() == [f"{GONE}\tWaiting\t–"]
    devices.get_by_role("button", name="Acknowledged 3").click()
    devices.get_by_text(ONLINE[0]).click()
    told = page.get_by_role("dialog", name=ONLINE[0])
    told.get_by_text("The device has it and acknowledged it.").wait_for()
    told.get_by_role("button", name="Close").click()
    told.wait_for(state="hidden")
    for verb in ("Cancel", "Withdraw", "Pause", "Rate"):
        assert page.get_by_role("button", name=verb, exact=True).count() == 0, "a viewer steers nothing"
    desk.look("push")


def test_a_push_is_paused_slowed_resumed_and_canceled(signed_in, world: World) -> None:
    push_id = push(world, *ONLINE, NEVER, kind="slow", rate_per_s=1)  # for one who never comes: it is not over soon
    world.call("POST", f"/v1/pushes/{push_id}/pause")
    page = signed_in("operator").visit(f"/pushes/{push_id}")
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").click()
    page.get_by_role("button", name="Resume").wait_for()
    assert world.call("GET", f"/v1/pushes/{push_id}")["status"] == "paused"
    page.get_by_role("button", name="Rate").click()
    page.get_by_role("spinbutton", name="Devices a second").fill("2")
    page.get_by_role("button", name="Set").click()
    page.get_by_text("2 devices a second").wait_for()
    assert world.call("GET", f"/v1/pushes/{push_id}")["rate_per_s"] == 2
    page.get_by_role("button", name="Resume").click()
    page.get_by_role("button", name="Pause").wait_for()
    page.get_by_role("button", name="Cancel", exact=True).click()
    page.get_by_role("dialog", name="Cancel this push?").get_by_role("button", name="Cancel the push").click()
    wait_for_status(world, push_id, "canceled")
    check_funnel(page, world, push_id)


def test_what_expired_is_sent_again(signed_in, world: World) -> None:
    push_id = push(world, ONLINE[0], NEVER, GONE, kind="now", ttl_s=0)
    wait_for_status(world, push_id, "completed")
    page = signed_in("operator").visit(f"/pushes/{push_id}")
    page.get_by_role("button", name="Send again to 2").click()
    asked = page.get_by_role("dialog", name="Send again")
    asked.get_by_text("expired: 2").wait_for()
    asked.get_by_role("button", name="Send").click()
    page.wait_for_url(lambda url: PUSH_URL.search(url) is not None and push_id not in url)
    page.get_by_text(f"to Retry of {push_id}").wait_for()


def test_pushes_are_listed_and_sought_by_status(signed_in, world: World) -> None:
    push_id = push(world, ONLINE[0], kind="listed")
    wait_for_status(world, push_id, "completed")
    desk = signed_in("operator")
    page = desk.visit("/pushes?status=completed")
    row = page.locator("tbody tr", has_text="listed").first
    assert row.inner_text().split("\t")[:5] == ["listed", f"Device {ONLINE[0]}", "completed", "1", "1 · 100 %"]
    desk.look("pushes")
    page = desk.visit("/pushes?status=failed")
    page.get_by_text("No push has the status failed.").wait_for()
    desk.look("pushes-none")
    page.get_by_role("button", name="Show all").click()
    page.wait_for_url("**/pushes")


def test_a_viewer_composes_nothing_and_an_unknown_push_is_told(signed_in) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/pushes")
    assert page.get_by_role("button", name="New push").count() == 0
    desk.visit("/pushes/new").get_by_text("It needs the scope push:write.").wait_for()
    unknown = f"psh_{'0' * 32}"
    desk.visit(f"/pushes/{unknown}").get_by_role("alert").get_by_text(f"There is no push {unknown}").wait_for()


@pytest.mark.chaos
def test_a_push_to_many_is_confirmed_by_its_number(signed_in, world: World) -> None:
    for begin in range(0, 11_000, 500):
        world.register(*(f"many-{number}" for number in range(begin, begin + 500)), tags=["many"])
    page = signed_in("operator").visit("/pushes/new")
    page.get_by_role("button", name="Tags").click()
    page.get_by_label("Any of these tags").fill("many")
    page.keyboard.press("Enter")
    page.get_by_text("11,000", exact=True).wait_for()
    page.get_by_role("button", name="Send push").click()
    asked = page.get_by_role("dialog", name="Send to 11,000 devices?")
    send = asked.get_by_role("button", name="Send", exact=True)
    assert send.is_disabled()
    asked.get_by_label("Type 11000").fill("11000")
    send.click()
    page.wait_for_url(PUSH_URL)
