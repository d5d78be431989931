"""The document and the API say the same: schemathesis makes requests from the one and holds the other to it.

Through the real server, with every check it has, and the same requests each time. Devices that its requests are
likely to name exist, so that more than refusals are seen.
"""

import asyncio
import dataclasses
import sys
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import uvicorn

from longwire.accounts.api_keys import Scope
from longwire.accounts.people import PersonRole

CONFIG = """\
# What a value is worth at this moment is not the document's to say: nobody of this name (422), one byte too many (413).
[checks.positive_data_acceptance]
expected-statuses = ["2xx", "401", "403", "404", "409", "413", "422", "429", "5xx"]
[auth.openapi.apiKey]
bearer = "{key}"
[auth.openapi.session]
bearer = "{session}"
[auth.openapi.deviceToken]
bearer = "{token}"
[auth.openapi.masterSecret]
username = "{app_key}"
password = "{master}"
# It would end the session that the others come with; and a name is asked for a few times only.
[[operations]]
include-name = "DELETE /v1/sessions/current"
enabled = false
[[operations]]
include-name = "POST /v1/sessions"
checks.positive_data_acceptance.expected-statuses = ["2xx", "401", "429"]
[[operations]]
include-name = "POST /v1/sessions/current/password"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "429"]
# A schema cannot say that a time lies within the next 30 days.
[[operations]]
include-name = "POST /v1/pushes"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "413", "422", "429"]
# A schema cannot say that exactly one of several names is given.
[[operations]]
include-name = "GET /v1/trace"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "403"]
[[operations]]
include-name = "POST /v1/marks"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "409", "422"]
# A schema cannot say what a line of CSV is, nor that a tag which is listed may be the system's own.
[[operations]]
include-name = "POST /v1/device-imports"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422"]
[[operations]]
include-name = "POST /v1/tags/{{tag}}/devices"
checks.positive_data_acceptance.expected-statuses = ["2xx", "400", "404", "422"]
"""


@pytest.fixture
async def url(site) -> AsyncIterator[str]:
    site.settings = dataclasses.replace(site.settings, calls_per_s=0)
    config = uvicorn.Config(site.build(), port=0, http="httptools", ws="none", lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    task = asyncio.create_task(server._serve())
    while not server.started:
        await asyncio.sleep(0.001)
    yield f"http://127.0.0.1:{server.servers[0].sockets[0].getsockname()[1]}"
    server.should_exit = True
    await task


async def test_schemathesis_finds_nothing(site, operator, url, tmp_path: Path) -> None:
    items = [{"device_id": device_id} for device_id in ["0", "1", "A", "a", "-", ".", "_", ":", "@", "00"]]
    given = (await operator.post("/v1/devices/batch", json={"items": items})).json()["items"]
    _, key = await site.keys.create("schemathesis", [Scope.ADMIN])
    _, password = await site.people.create("anna", PersonRole.ADMIN, is_one_time=False)
    session, _ = await site.people.log_in("anna", password)
    config = tmp_path / "schemathesis.toml"
    config.write_text(
        CONFIG.format(
            key=key,
            session=session,
            token=given[-1]["token"],
            app_key=site.app.app_key,
            master=site.app.master_secret,
        )
    )
    # By itself: it learns names from answers, and the calls of /v1/people end the session of whom they name.
    await _run(tmp_path, config, url, "--include-path-regex", "^/v1/sessions")
    assert (await site.client(f"Bearer {session}").get("/v1/sessions/current")).status_code == 200
    await _run(tmp_path, config, url, "--exclude-path-regex", "^/v1/sessions")


async def _run(folder: Path, config: Path, url: str, *which: str) -> None:
    """Has schemathesis make its requests to the paths that ``which`` says."""
    command = [
        *("--config-file", str(config), "run", f"{url}/openapi.json", "--checks", "all", *which),
        *("--seed", "1", "--generation-deterministic", "--max-examples", "8", "--no-color", "--workers", "1"),
    ]
    program = Path(sys.executable).with_name("schemathesis")
    process = await asyncio.create_subprocess_exec(
        program, *command, cwd=folder, stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT
    )
    output, _ = await process.communicate()
    assert process.returncode == 0, output.decode()[-20_000:]
