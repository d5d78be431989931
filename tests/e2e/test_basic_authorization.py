"""Backends that come with the application's key and master secret (API §1), against a process that listens."""

import httpx


async def test_the_master_secret_opens_the_operators_door_and_the_secret_of_devices_does_not(start) -> None:
    running = await start()
    app = await running.process.system.apps.create()
    body = {"audience": {"all": True}, "message": {"kind": "news"}}
    async with httpx.AsyncClient(base_url=running.http_url) as http:
        made = await http.post("/v1/pushes", json=body, auth=(app.app_key, app.master_secret))
        assert (made.status_code, made.json()["status"]) == (202, "completed")
        found = await http.get(made.headers["location"], auth=(app.app_key, app.master_secret))
        assert found.status_code == 200
        for wrong in (app.app_secret, "", app.master_secret[:-1]):
            refused = await http.get("/v1/pushes", auth=(app.app_key, wrong))
            assert (refused.status_code, refused.json()["code"]) == (401, "auth-invalid")
