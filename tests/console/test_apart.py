"""A console apart from the API, and one behind nginx as ``deploy/nginx/console.conf`` has it."""

import os
import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest
import websockets.sync.client
from console_world import World, until

from longwire.console.sessions import COOKIE
from longwire.testing.engines import Nginx
from longwire.testing.nginx_config import FOLDER


@pytest.fixture
def apart(world: World, tmp_path: Path) -> Iterator[tuple[str, str, subprocess.Popen[bytes]]]:
    """Where its pages and its health pages are, and the process. The store that is set for others is not there."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")} | {
        "LONGWIRE_STORE_URL": "postgresql+asyncpg://nobody@127.0.0.1:1/nowhere",
        "LONGWIRE_CONSOLE_API_URL": str(world.api.base_url),
        "LONGWIRE_CONSOLE_PORT": "0",
        "LONGWIRE_INTERNAL_PORT": "0",
        "LONGWIRE_LOG_FORMAT": "text",
    }
    log = tmp_path / "console.log"
    with log.open("ab") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "longwire.cli", "serve", "--roles", "console"],
            cwd=tmp_path,
            env=environment,
            stdout=output,
            stderr=output,
        )
    try:

        def told() -> "re.Match[str] | None":
            assert process.poll() is None, log.read_text()
            return re.search(r"pages at port (\d+), health pages at port (\d+)", log.read_text())

        pages, health = until(told, "the console serves").groups()
        yield f"http://127.0.0.1:{pages}", f"http://127.0.0.1:{health}", process
    finally:
        process.kill()
        process.wait()


def test_a_console_apart_stands_on_the_api_alone_and_says_whether_it_answers(world: World, apart) -> None:
    url, health, process = apart
    assert httpx.get(f"{health}/livez").status_code == 200
    until(lambda: httpx.get(f"{health}/readyz").status_code == 200, "it is ready")
    with httpx.Client(base_url=url, headers={"Origin": url}) as browser:
        token = re.search(r'name="token" value="(\w+)"', browser.get("/sign-in").text)
        assert token is not None
        name, password = world.people["viewer"]
        answer = browser.post(
            "/sign-in", data={"token": token[1], "name": name, "password": password, "next": "/nodes"}
        )
        assert answer.headers["location"] == "/nodes"
        assert "Nodes · Longwire" in browser.get("/nodes").text
    process.send_signal(signal.SIGTERM)
    assert process.wait(30) == 0


def test_the_pages_and_their_socket_come_through_nginx(world: World, tmp_path: Path) -> None:
    site = (FOLDER / "console.conf").read_text()
    for written, ours in (
        ("127.0.0.1:7390", urlsplit(world.url).netloc),
        ("listen 443 ssl;", "listen 127.0.0.1:@PORT0@;"),
        (" ssl_certificate chain.pem;", ""),
        (" ssl_certificate_key key.pem;", ""),
    ):
        assert site.count(written) == 1, written
        site = site.replace(written, ours)
    with Nginx(tmp_path, f"events {{ }}\nhttp {{\n{site}}}\n") as nginx:
        address = f"127.0.0.1:{nginx.ports[0]}"
        cookies = world.cookies["viewer"]
        page = httpx.get(f"http://{address}/nodes", cookies=cookies)
        assert (page.status_code, "Nodes · Longwire" in page.text) == (200, True)
        socket = f"ws://{address}/_nicegui_ws/socket.io/?EIO=4&transport=websocket"
        headers = {"Cookie": f"{COOKIE}={cookies[COOKIE]}"}
        with websockets.sync.client.connect(
            socket,
            origin=f"http://{address}",  # type: ignore[arg-type]
            additional_headers=headers,
        ) as opened:
            assert opened.recv().startswith("0{")
