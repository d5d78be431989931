"""Where is my message: the page says what the API says."""

import re

import pytest
from console_world import NEVER, ONLINE, World
from playwright.sync_api import expect


def test_the_empty_page_says_what_can_be_found(signed_in) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/trace")
    expect(page.get_by_text("a command and its reply")).to_be_visible()
    desk.look("trace-empty")


def test_a_message_that_was_acknowledged_shows_its_verdict_and_its_way(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/trace?q={world.acked_id}")
    found = world.call("GET", "/v1/trace", q=world.acked_id)
    assert found["verdict"]["code"] == "acked"
    expect(page.locator(".lw-answer-text")).to_have_text(found["verdict"]["text"])
    steps = page.locator(".lw-timeline .lw-step-text > span").all_inner_texts()
    assert steps == [step["text"] for step in found["timeline"]]
    desk.look("trace-acked")


def test_a_message_that_waits_says_for_whom_and_until_when(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/trace?q={world.waiting_id}")
    expect(page.locator(".lw-answer-text")).to_contain_text(f"{NEVER} has never connected")
    desk.look("trace-waiting")


def test_a_push_is_narrowed_to_a_device(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/trace?q={world.push_id}")
    expect(page.get_by_role("link", name="Open the push")).to_be_visible()
    desk.look("trace-push")
    page = desk.visit(f"/trace?q={world.push_id}&device_id={ONLINE[0]}")
    found = world.call("GET", "/v1/trace", q=world.push_id, device_id=ONLINE[0])
    expect(page.locator(".lw-answer-text")).to_have_text(found["verdict"]["text"])
    desk.look("trace-push-device")


@pytest.mark.parametrize("q", [ONLINE[0], "shop-berlin"])
def test_devices_and_users_are_found_by_name(signed_in, world: World, q: str) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/trace?q={q}")
    expect(page.locator(".lw-answer-text")).to_have_text(world.call("GET", "/v1/trace", q=q)["verdict"]["text"])
    desk.look(f"trace-{q}")


@pytest.mark.parametrize("q", ["nobody-has-this", "msg_" + 32 * "0", "two words", "%3Cimg%20src%3Dx%3E"])
def test_what_nobody_knows_is_told(signed_in, q: str) -> None:
    desk = signed_in("viewer")
    page = desk.visit(f"/trace?q={q}")
    expect(page.locator(".lw-answer-text, .lw-empty-title")).to_be_visible()
    assert page.locator("#main img").count() == 0
    if q in ("nobody-has-this", "two words"):
        desk.look(f"trace-{q.replace(' ', '-')}")


def test_the_search_on_top_leads_here_by_the_keyboard_alone(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/devices")
    page.keyboard.press("/")
    page.keyboard.type(world.acked_id)
    page.keyboard.press("Enter")
    expect(page).to_have_url(re.compile(f"/trace\\?q={world.acked_id}$"))
    expect(page.locator(".lw-answer-text")).to_contain_text("acknowledged it")


def test_an_operator_marks_a_device_and_ends_the_mark(signed_in, world: World) -> None:
    world.register("desk-5")

    def marks() -> list[dict[str, object]]:
        return [one for one in world.call("GET", "/v1/marks")["items"] if one["device_id"] == "desk-5"]

    desk = signed_in("operator")
    page = desk.visit("/trace?q=desk-5")
    page.get_by_role("button", name="Trace for 10 minutes").click()
    expect(page.locator(".lw-badge", has_text="traced")).to_be_visible()
    assert [mark["by"] for mark in marks()] == ["person:operator-1"]
    desk.look("trace-marked")
    page.get_by_role("button", name="End", exact=True).click()
    expect(page.get_by_role("button", name="Trace for 10 minutes")).to_be_visible()
    assert marks() == []
