"""The pages of nodes: numbers as /v1 tells them, draining, evening out, and who may."""

from console_world import World, until

from longwire.console import words


def test_each_node_is_listed_with_the_numbers_of_the_api(signed_in, world: World) -> None:
    desk = signed_in("viewer")
    page = desk.visit("/nodes")

    def agree() -> bool:
        (node,) = world.call("GET", "/v1/nodes")["items"]
        cells = page.locator(".lw-table tbody td").all_inner_texts()
        connections = f"{words.count(node['connections'])} of {words.count(node['max_connections'])}"
        return [cells[0], cells[1], cells[2], cells[-1]] == [node["node_id"], "live", connections, "0"]

    until(agree, "page and API say the same")
    assert page.get_by_role("button", name="Rebalance").count() == 0
    desk.look("nodes")


def test_a_node_is_looked_at_alone_and_a_viewer_cannot_drain_it(signed_in, world: World) -> None:
    (node,) = world.call("GET", "/v1/nodes")["items"]
    desk = signed_in("viewer")
    page = desk.visit("/nodes")
    page.locator(".lw-table tbody tr").first.focus()
    page.keyboard.press("Enter")
    page.wait_for_url(f"**/nodes/{node['node_id']}")
    desk.wait()
    assert page.get_by_text(node["ws_url"]).is_visible()
    assert page.get_by_role("button", name="Drain").count() == 0
    desk.look("node")


def test_a_drain_with_nowhere_to_go_is_refused_in_words(signed_in, world: World) -> None:
    (node,) = world.call("GET", "/v1/nodes")["items"]
    desk = signed_in("operator")
    page = desk.visit(f"/nodes/{node['node_id']}")
    page.get_by_role("button", name="Drain").click()
    dialog = page.get_by_role("dialog", name="Drain this node?")
    dialog.get_by_text("Within 60 s all its devices").wait_for()
    dialog.get_by_role("button", name="Drain").click()
    page.get_by_text("have nowhere to go: no other node takes devices").wait_for()
    assert world.call("GET", f"/v1/nodes/{node['node_id']}")["state"] == "live"


def test_a_rebalance_shows_what_each_node_was_told(signed_in, world: World) -> None:
    desk = signed_in("operator")
    page = desk.visit("/nodes")
    page.get_by_role("button", name="Rebalance").click()
    page.get_by_role("dialog", name="Rebalance the nodes?").get_by_role("button", name="Rebalance").click()
    moves = page.get_by_role("dialog", name="Rebalance", exact=True)
    moves.get_by_text("The nodes are even: nobody moves.").wait_for()
    moves.get_by_role("button", name="Close").click()
    moves.wait_for(state="hidden")


def test_a_node_that_is_not_there_is_told_with_what_to_do(signed_in) -> None:
    page = signed_in("viewer").visit("/nodes/gone~00")
    assert page.get_by_role("alert").get_by_text("There is no live node gone~00").is_visible()
    assert page.get_by_role("button", name="Again").is_visible()
