"""The overview: its numbers are those of /v1, as they are now."""

from typing import Any

from console_world import ONLINE, World, until
from playwright.sync_api import Page

from longwire.console import words


def tile(page: Page, label: str) -> str:
    """The number on a tile."""
    return page.locator(".lw-tile", has=page.get_by_text(label, exact=True)).locator(".lw-number").inner_text()


def shown(page: Page) -> dict[str, Any]:
    """What the page says."""
    return {
        "online": tile(page, "Online"),
        "connects": tile(page, "Connects"),
        "closes": tile(page, "Closes"),
        "up": tile(page, "Up"),
        "down": tile(page, "Down"),
        "p99": tile(page, "Ack p99"),
        "attention": page.locator(".lw-notices .lw-notice > span:not(.lw-strong)").all_inner_texts(),
        "nodes": [row.split("\t")[:2] for row in page.locator(".lw-table tbody tr").all_inner_texts()],
    }


def told(stats: dict[str, Any]) -> dict[str, Any]:
    """The same, as /v1 tells it."""
    return {
        "online": words.count(stats["online"]),
        "connects": words.rate(stats["connects_per_s"]),
        "closes": words.rate(stats["closes_per_s"]),
        "up": words.rate(stats["uplink_per_s"]),
        "down": words.rate(stats["downlink_per_s"]),
        "p99": words.millis(stats["recent_ack_latency_ms"]["p99"]),
        "attention": [notice["text"] for notice in stats["attention"]] or ["Nothing needs attention."],
        "nodes": [[node["node_id"], words.count(node["connections"])] for node in stats["nodes"]],
    }


def test_the_numbers_are_those_of_the_api(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/")

    def agree() -> bool:
        said = told(world.call("GET", "/v1/stats"))
        page.wait_for_timeout(50)
        return shown(page) == said

    until(agree, "page and API say the same")
    assert int(tile(page, "Online")) >= len(ONLINE)
    desk.look("overview")


def test_what_happens_is_seen_within_two_seconds(signed_in, world: World) -> None:
    page = signed_in("viewer").visit("/")
    online = page.locator(".lw-tile", has=page.get_by_text("Online", exact=True)).locator(".lw-number")
    before = int(online.inner_text())
    world.connect("overview-1")
    page.wait_for_function(
        "n => [...document.querySelectorAll('.lw-tile')].some(t => t.innerText.startsWith('Online')"
        " && t.querySelector('.lw-number').innerText == String(n))",
        arg=before + 1,
    )
    world.call("POST", "/v1/devices/overview-1/disconnect", {})
    page.get_by_text("Closes by reason").wait_for()


def test_the_charts_show_the_span_that_is_chosen(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/?span=1h")
    assert page.locator(".lw-choice [aria-current]").inner_text() == "1 h"
    charts = page.locator(".lw-chart [role=img]")
    assert charts.count() == 6
    assert charts.first.get_attribute("aria-label").startswith("Devices online: online ")
    page.get_by_text("24 h", exact=True).click()
    page.wait_for_url("**/?span=24h")
    desk.wait()
    assert page.locator(".lw-choice [aria-current]").inner_text() == "24 h"
