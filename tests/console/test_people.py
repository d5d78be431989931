"""Keys and people, the audit and the limits: what an admin does there, and that others do not."""

import re
from dataclasses import asdict
from typing import Any

import httpx
from console_desk import Desk, SignIn
from console_world import HOSTILE, World, until
from playwright.sync_api import Locator, Page, expect

from longwire.console.pages import limits
from longwire.limits import Limits

expect.set_options(timeout=30_000)

_SECRET = ".q-dialog .lw-secret"


def button(page: Page, name: str) -> Locator:
    """The one that is on top."""
    return page.get_by_role("button", name=name, exact=True).last


def open_row(page: Page, text: str) -> None:
    page.locator("tr.opens", has_text=text).first.click()
    expect(page.locator(".q-dialog h2")).to_be_visible()


def told_once(desk: Desk) -> str:
    """The secret that a dialog shows, after it was copied; when the dialog is closed the page has forgotten it."""
    page = desk.page
    secret = page.locator(f"{_SECRET} code").inner_text()
    page.locator(_SECRET).click()
    expect(page.locator(f"{_SECRET}.copied")).to_be_visible()
    button(page, "I have copied it").click()
    expect(page.locator(".q-dialog")).to_have_count(0)
    assert secret not in page.content()
    return secret


def log_in(world: World, name: str, password: str) -> httpx.Response:
    return httpx.post(f"{world.api.base_url}/v1/sessions", json={"name": name, "password": password}, timeout=30)


# -- people -----------------------------------------------------------------------------------------------------------


def test_a_person_is_added_with_a_one_time_password_that_is_shown_once(signed_in: SignIn, world: World) -> None:
    desk = signed_in()
    desk.expect("409")
    page = desk.visit("/people")
    button(page, "Add a person").click()
    name = page.locator(".q-dialog input").first
    name.fill("Not a name")
    button(page, "Add").click()
    expect(page.get_by_text("1 to 57 characters")).to_be_visible()
    name.fill("viewer-1")
    button(page, "Add").click()
    expect(page.locator(".q-notification")).to_contain_text("Request req_")
    name.fill("dora")
    button(page, "Add").click()
    expect(page.locator(_SECRET)).to_be_visible()
    password = told_once(desk)
    expect(page.locator("tr", has_text="dora")).to_contain_text("one-time password")
    answer = log_in(world, "dora", password)
    assert (answer.status_code, answer.json()["must_change_password"]) == (201, True)
    desk.look("people")


def test_a_person_gets_another_role_a_new_password_is_disabled_and_removed(signed_in: SignIn, world: World) -> None:
    first = world.call("POST", "/v1/people", {"name": "emil", "role": "viewer"})["one_time_password"]
    desk = signed_in()
    page = desk.visit("/people")
    open_row(page, "emil")
    expect(button(page, "Save role")).to_be_disabled()
    page.locator(".q-dialog .q-select").click()
    page.get_by_role("option", name="operator").click()
    button(page, "Save role").click()
    expect(page.locator("tr", has_text="emil")).to_contain_text("operator")

    open_row(page, "emil")
    button(page, "New password").click()
    button(page, "Make it").click()
    expect(page.locator(_SECRET)).to_be_visible()
    second = told_once(desk)
    assert [log_in(world, "emil", one).status_code for one in (first, second)] == [401, 201]

    open_row(page, "emil")
    button(page, "Disable").click()
    page.locator(".lw-button.danger-main").click()
    expect(page.locator("tr", has_text="emil")).to_contain_text("disabled")
    assert log_in(world, "emil", second).status_code == 401

    open_row(page, "emil")
    button(page, "Remove").click()
    page.locator(".lw-button.danger-main").click()
    expect(page.locator("tr", has_text="emil")).to_have_count(0)
    assert world.api.patch("/v1/people/emil", json={"role": "admin"}).status_code == 404


def test_a_row_opens_by_enter_and_ones_own_leads_to_ones_own_password(signed_in: SignIn) -> None:
    page = signed_in().visit("/people")
    row = page.locator("tr.opens", has_text="(you)")
    row.focus()
    page.keyboard.press("Enter")
    expect(page.locator(".q-dialog")).to_contain_text("another admin")
    button(page, "Change password").click()
    page.wait_for_url("**/password")
    expect(page.locator("input[type=password]").first).to_be_visible()


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_shown_once_and_revoked(signed_in: SignIn, world: World) -> None:
    desk = signed_in()
    page = desk.visit("/people")
    button(page, "New API key").click()
    button(page, "Make it").click()
    expect(page.get_by_text("A key needs a name")).to_be_visible()
    expect(page.get_by_text("Choose what it may do")).to_be_visible()
    page.locator(".q-dialog input").first.fill("wall display")
    page.get_by_role("checkbox", name="stats:read").click()
    desk.look("people-key", whole=False)
    button(page, "Make it").click()
    expect(page.locator(_SECRET)).to_be_visible()
    key = told_once(desk)
    headers = {"Authorization": f"Bearer {key}"}

    def status(path: str) -> int:
        return httpx.get(f"{world.api.base_url}{path}", headers=headers).status_code

    assert (status("/v1/stats"), status("/v1/pushes")) == (200, 403)
    open_row(page, "wall display")
    button(page, "Revoke").click()
    page.locator(".lw-button.danger-main").click()
    expect(page.locator("tr", has_text="wall display")).to_contain_text("revoked")
    until(lambda: status("/v1/stats") == 401, "the key is refused")


def test_a_name_from_outside_stays_a_text(signed_in: SignIn, world: World) -> None:
    world.call("POST", "/v1/keys", {"name": HOSTILE, "scopes": ["stats:read"]})
    desk = signed_in()
    page = desk.visit("/people")
    open_row(page, "<img")
    expect(page.locator(".q-dialog h2")).to_have_text(HOSTILE)
    page = desk.visit("/audit")
    assert page.locator("img").count() == 0
    assert page.title() == "Audit · Longwire"


# -- the audit --------------------------------------------------------------------------------------------------------


def shown(page: Page) -> list[str]:
    return page.locator("td.code").all_inner_texts()


def audit(world: World, **params: object) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = world.call("GET", "/v1/audit", **params)["items"]
    return found


def test_the_audit_shows_what_the_api_says_and_is_filtered_by_who_and_what(signed_in: SignIn, world: World) -> None:
    world.api.post("/v1/nodes/nobody~00000000/drain")
    desk = signed_in()
    page = desk.visit("/audit")
    until(lambda: shown(page) == [one["action"] for one in audit(world, limit=50)], "the page shows the API's")
    expect(page.locator("tr", has_text="nobody~00000000").first).to_contain_text("404 not found")
    desk.look("audit")
    page.get_by_label("Who").click()
    page.get_by_role("option", name="viewer-1").click()
    page.wait_for_url(re.compile("caller=person%3Aviewer-1"))
    desk.wait()
    expected = [one["action"] for one in audit(world, caller="person:viewer-1")]
    until(lambda: shown(page) == expected, "those of one person")
    assert expected
    what = page.get_by_label("Action begins with")
    what.fill("DELETE /v1/nothing")
    what.press("Enter")
    page.wait_for_url(re.compile("action="))
    expect(page.get_by_text("Nothing of that in the audit.")).to_be_visible()
    button(page, "Show all").click()
    page.wait_for_url(re.compile("/audit$"))


def test_an_entry_leads_to_the_trace_of_its_request(signed_in: SignIn, world: World) -> None:
    desk = signed_in()
    page = desk.visit("/audit")
    page.locator("tr.opens").first.click()
    request_id = page.locator(".q-dialog .lw-code code").inner_text()
    assert request_id in {one["request_id"] for one in audit(world)}
    button(page, "Trace the request").click()
    page.wait_for_url(f"**/trace?q={request_id}")


# -- limits -----------------------------------------------------------------------------------------------------------


def test_every_limit_is_shown_with_its_setting(signed_in: SignIn, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/limits")
    found = world.call("GET", "/v1/limits")
    names = page.locator("td.code").all_inner_texts()
    assert sorted(name for name in names if name.startswith("limits.")) == sorted(
        f"limits.{one}" for one in found["device"]
    )
    assert page.locator("tbody tr").count() == len(found["device"]) + len(found["api"])
    expect(page.locator("tr", has_text="limits.max_inbox")).to_contain_text("1,000")
    desk.look("limits")


def test_a_limit_that_was_set_is_told_beside_its_default() -> None:
    found = asdict(Limits()) | {"max_inbox": 5_000, "max_payload_bytes": 1_024}
    rows = {limit.name: limits._device_row(limit, found) for some in limits.DEVICE.values() for limit in some}
    assert rows["max_inbox"]["value"] == "5,000"
    assert rows["max_inbox"]["origin"] == "set; default 1,000"
    assert rows["max_payload_bytes"]["origin"] == "set; default 60 KiB"
    assert rows["window"]["origin"] == "default"


# -- who may ----------------------------------------------------------------------------------------------------------


def test_who_is_no_admin_sees_neither_keys_nor_people_nor_the_audit(signed_in: SignIn) -> None:
    for role, path in (("viewer", "/people"), ("operator", "/audit")):
        page = signed_in(role).visit(path)
        expect(page.get_by_text("Your role does not allow this.")).to_be_visible()
        assert page.locator("table").count() == 0
        assert page.get_by_role("navigation").get_by_text("Audit").count() == 0
