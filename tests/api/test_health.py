"""Health, documents and the internal port."""

import httpx
import pytest

from longwire.api import Unready, create_internal_api


async def test_health_needs_no_key_and_tells_no_version(site) -> None:
    client = site.client()
    assert (await client.get("/livez")).json() == {"status": "live"}
    assert (await client.get("/readyz")).json() == {"status": "ready"}


@pytest.mark.parametrize("code", ["draining", "overloaded", "store-unavailable", "no-node"])
async def test_a_process_that_takes_no_work_lives_and_is_not_ready(site, check_problem, code) -> None:
    site.unready = Unready(code, "not now")
    client = site.client()
    assert check_problem(await client.get("/readyz"), 503, code)["detail"] == "not now"
    assert (await client.get("/livez")).status_code == 200


async def test_the_internal_port_has_the_health_pages_and_nothing_else(check_problem) -> None:
    transport = httpx.ASGITransport(create_internal_api(lambda: Unready("draining", "leaving")))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        assert (await client.get("/livez")).status_code == 200
        check_problem(await client.get("/readyz"), 503, "draining")
        check_problem(await client.get("/v1/devices"), 404, "not-found")


async def test_what_other_nodes_ask_goes_to_the_link_and_the_rest_to_the_pages() -> None:
    async def link(scope, _receive, send) -> None:
        await send({"type": "http.response.start", "status": 299, "headers": []})
        await send({"type": "http.response.body", "body": scope["path"].encode()})

    transport = httpx.ASGITransport(create_internal_api(lambda: None, link))
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        answer = await client.post("/link/1/report")
        assert (answer.status_code, answer.text) == (299, "/link/1/report")
        assert (await client.get("/readyz")).status_code == 200
        assert (await client.get("/linked")).status_code == 404


async def test_the_document_names_doors_scopes_and_problems(site) -> None:
    made = (await site.client().get("/openapi.json")).json()
    assert made["openapi"] == "3.1.0"
    listing = made["paths"]["/v1/devices"]["get"]
    assert listing["x-scope"] == "device:read"
    assert listing["security"] == [{"apiKey": []}, {"masterSecret": []}, {"session": []}]
    assert "422" not in listing["responses"]
    assert set(listing["responses"]["429"]["content"]) == {"application/problem+json"}
    assert "HTTPValidationError" not in made["components"]["schemas"]
    assert set(made["paths"]["/device/v1/register"]["post"]["responses"]) >= {"200", "201", "401", "503"}


async def test_the_page_to_try_it_needs_nothing_from_elsewhere(site) -> None:
    answer = await site.client().get("/docs")
    assert answer.headers["content-type"].startswith("text/html")
    policy = answer.headers["content-security-policy"]
    assert "default-src 'none'" in policy
    assert "script-src 'sha256-" in policy
    assert "https://" not in answer.text
    assert "http://" not in answer.text
