"""What pages are tested against: a real ``longwire dev`` with its console, devices that are there, and people.

    world.api        httpx client of /v1 with every scope           world.url    where the console is
    world.fleet      devices of the SDK that are online             world.people name and password by role

Tests share it: make what you change yourself, and count on nothing but that there is at least what ``populate`` made.
"""

import asyncio
import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx

from longwire.client import Device
from longwire.testing.engines import free_ports

WITHIN_S = 180.0
APPLICATION = """\
from longwire import Longwire
from longwire.application import Context, Reject

app = Longwire()


@app.uplink("order")
async def order(text: str, ctx: Context) -> None:
    if text == "broken":
        raise Reject("no such article")
    await ctx.reply("done", text)
"""
CITIES = ("berlin", "hamburg", "leipzig")
ONLINE = tuple(f"kiosk-{number:03}" for number in range(1, 7))
GONE = "kiosk-007"
"""Was online once."""
NEVER = "kiosk-020"
"""Never came."""
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
"""A text from outside that must stay a text."""
ROLES = ("viewer", "operator", "admin")


def until(is_so: Callable[[], Any], what: str) -> Any:
    """Asks until it is so; what it answered."""
    deadline = time.monotonic() + WITHIN_S
    while time.monotonic() < deadline:
        if found := is_so():
            return found
        time.sleep(0.02)
    raise AssertionError(f"not within {WITHIN_S:g} s: {what}")


class World:
    """One process and what it serves."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.output = folder / "output.txt"
        self.people: dict[str, tuple[str, str]] = {}
        self.cookies: dict[str, dict[str, str]] = {}
        """Of each role, as the console gave them at sign-in."""
        self.push_id = ""
        """A push to all in Berlin."""
        self.acked_id = self.waiting_id = ""
        """A message that its device acknowledged, and one whose device never came."""
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Starts the process and waits until it and its console serve."""
        (self.folder / "shop.py").write_text(APPLICATION)
        clean = {name: value for name, value in os.environ.items() if not name.startswith("LONGWIRE_")}
        (port,) = free_ports(1)
        self.url = f"http://127.0.0.1:{port}"
        ports = ("--port", "0", "--http-port", "0", "--console-port", str(port))
        command = (sys.executable, "-m", "longwire.cli", "dev", "shop:app", "--data", "data", *ports)
        with self.output.open("ab") as output:
            self._process = subprocess.Popen(command, cwd=self.folder, env=clean, stdout=output, stderr=output)
        until(self._serves, "the console serves")
        self.credentials: dict[str, str] = json.loads((self.folder / "data/dev-credentials.json").read_text())
        self.api = httpx.Client(
            base_url=self.credentials["http_url"],
            headers={"Authorization": f"Bearer {self.credentials['api_key']}"},
            timeout=WITHIN_S,
        )
        self.fleet = Fleet(self.credentials["device_address"])

    def stop(self) -> None:
        """Ends devices and process; the console goes with it."""
        if hasattr(self, "fleet"):
            self.fleet.close()
            self.api.close()
        if self._process is not None and self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
            try:
                self._process.wait(15)
            except subprocess.TimeoutExpired:
                self._process.kill()
                self._process.wait()

    def call(self, method: str, path: str, body: object = None, **params: object) -> Any:
        """A call that must succeed; its answer."""
        answer = self.api.request(method, path, json=body, params=params)  # type: ignore[arg-type]
        assert answer.is_success, f"{method} {path}: {answer.status_code} {answer.text}"
        return answer.json() if answer.content else None

    def register(self, *device_ids: str, **more: object) -> dict[str, str]:
        """Registers devices; their tokens."""
        items = [{"device_id": one, **more} for one in device_ids]
        return {
            one["device_id"]: one["token"] for one in self.call("POST", "/v1/devices/batch", {"items": items})["items"]
        }

    def connect(self, device_id: str, **more: object) -> None:
        """Registers a device where it is new, and has it online."""
        self.fleet.connect(device_id, self.register(device_id, **more)[device_id])

    def add_people(self) -> None:
        """One of each role, signed in at the console."""
        self.people["admin"] = (self.credentials["console_name"], self.credentials["console_password"])
        for role in ROLES[:2]:
            made = self.call("POST", "/v1/people", {"name": f"{role}-1", "role": role})
            with httpx.Client(base_url=self.credentials["http_url"], timeout=WITHIN_S) as client:
                first = {"name": f"{role}-1", "password": made["one_time_password"]}
                token = client.post("/v1/sessions", json=first).raise_for_status().json()["token"]
                change = {"password": made["one_time_password"], "new_password": f"a long password of {role}"}
                client.post(
                    "/v1/sessions/current/password", json=change, headers={"Authorization": f"Bearer {token}"}
                ).raise_for_status()
            self.people[role] = (f"{role}-1", f"a long password of {role}")
        for role, (name, password) in self.people.items():
            self.cookies[role] = sign_in(self.url, name, password)

    def populate(self) -> None:
        """Sixty devices, six of them online; groups, messages, a push, a command, a letter that nobody could handle."""
        everyone = [f"kiosk-{number:03}" for number in range(1, 61)]
        tokens: dict[str, str] = {}
        for place, city in enumerate(CITIES):
            tokens |= self.register(*everyone[place::3], tags=[f"city:{city}", "kiosk"], user=f"shop-{city}")
        self.call("PUT", "/v1/devices/kiosk-001/tags", {"tags": ["city:berlin", "kiosk", "pilot"]})
        for group_id, name in (("night-shift", "Night shift"), ("hostile", HOSTILE), ("empty", "Nobody yet")):
            self.call("POST", "/v1/groups", {"group_id": group_id, "name": name})
        members = [{"device": one} for one in everyone[:12]] + [{"user": "shop-hamburg"}]
        self.call("POST", "/v1/groups/night-shift/members", {"add": members})
        for device_id in (*ONLINE, GONE):
            self.fleet.connect(device_id, tokens[device_id])
        self.fleet.leave(GONE)
        self.call("POST", "/v1/devices/kiosk-030/disable")
        self.call("POST", "/v1/devices/kiosk-031/disconnect", {"ban_s": 86_400})
        message = {"to": f"device:{ONLINE[0]}", "kind": "news", "payload": {"text": "hello"}, "wait_ack_ms": 20_000}
        sent = self.call("POST", "/v1/messages", message)
        assert sent["acked"], sent
        self.acked_id = sent["message_id"]
        for number in range(3):
            offer = {"to": f"device:{NEVER}", "kind": "offer", "payload": {"number": number}}
            self.waiting_id = self.call("POST", "/v1/messages", offer)["message_id"]
        self.call("POST", f"/v1/devices/{ONLINE[0]}/commands", {"method": "echo", "payload": {"say": "hi"}})
        self.fleet.run(self.fleet.devices[ONLINE[0]].send("", "broken", "order"))
        push: dict[str, object] = {"audience": {"tags": {"any": ["city:berlin"]}}}
        push |= {"message": {"kind": "prices", "payload": {"coffee": 2.4}}}
        self.push_id = self.call("POST", "/v1/pushes", push)["id"]
        until(lambda: self.call("GET", f"/v1/pushes/{self.push_id}")["stats"]["acked"] >= 2, "the push is acknowledged")

    def _serves(self) -> bool:
        assert self._process is not None
        assert self._process.poll() is None, self.output.read_text(errors="replace")
        try:
            return httpx.get(f"{self.url}/sign-in").is_success
        except httpx.HTTPError:
            return False


class Fleet:
    """Devices of the SDK in a thread of their own."""

    def __init__(self, address: str) -> None:
        self._address = address
        self.devices: dict[str, Device] = {}
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="fleet", daemon=True)
        self._thread.start()

    def run(self, call: Any) -> Any:
        """Awaits it in the devices' loop."""
        return asyncio.run_coroutine_threadsafe(call, self._loop).result(WITHIN_S)

    def connect(self, device_id: str, token: str) -> None:
        """Has the device online; it acknowledges all it gets, and knows the method ``echo``."""

        async def enter() -> Device:
            device = Device(device_id=device_id, token=token, address=self._address, platform="linux")

            @device.on()
            async def take() -> None: ...

            @device.method("echo")
            async def echo(payload: bytes) -> bytes:
                return payload

            return await device.__aenter__()

        self.devices[device_id] = self.run(enter())

    def leave(self, device_id: str) -> None:
        """Has the device close its connection."""
        self.run(self.devices.pop(device_id).close())

    def close(self) -> None:
        for device_id in list(self.devices):
            with contextlib.suppress(Exception):
                self.leave(device_id)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()


def sign_in(url: str, name: str, password: str) -> dict[str, str]:
    """Signs in at the console as the form does; the cookies that it gave."""
    with httpx.Client(base_url=url, timeout=WITHIN_S) as client:
        form = client.get("/sign-in")
        token = re.search(r'name="token" value="([0-9a-f]+)"', form.text)
        assert token is not None, form.text
        given = {"token": token[1], "next": "/", "name": name, "password": password}
        answer = client.post("/sign-in", data=given, headers={"Origin": url})
        assert answer.status_code == 303, f"{answer.status_code} {answer.text}"
        return dict(client.cookies)
