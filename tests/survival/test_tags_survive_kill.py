"""kill -9 while tags are given and a file is imported: what was answered is kept, and the import is done."""

import contextlib
import random
import threading
import time
from collections.abc import Iterator

import httpx
import pytest

from longwire.testing.process import NodeProcess

DEVICES = 8
LINES = 30_000
WITHIN_S = 60.0


@contextlib.contextmanager
def calling(node: NodeProcess) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {node.credentials()['api_key']}"}
    with httpx.Client(base_url=node.http_url, headers=headers, timeout=30) as client:
        yield client


@pytest.mark.parametrize("run", [0, *(pytest.param(n, marks=pytest.mark.chaos) for n in range(1, 11))])
def test_tags_that_were_answered_and_an_import_that_was_taken_outlive_a_kill(node, run) -> None:
    chance = random.Random(run or None)
    names = [f"d-{n}" for n in range(DEVICES)]
    node.register(names)
    answered: dict[str, set[str]] = {name: set() for name in names}
    kill_at, enough = chance.randrange(40, 200), threading.Event()

    def give_tags(name: str) -> None:
        with calling(node) as client, contextlib.suppress(httpx.TransportError):
            for n in range(200):
                done = client.patch(f"/v1/devices/{name}/tags", json={"add": [f"t{n}"]})
                if done.status_code == 429:
                    time.sleep(float(done.headers["retry-after"]))
                    continue
                assert done.status_code == 200, done.text
                answered[name].add(f"t{n}")
                if sum(map(len, answered.values())) >= kill_at:
                    enough.set()

    with calling(node) as client:
        content = "device_id,tags\n" + "".join(f"i-{n:05},imported\n" for n in range(LINES))
        taken = client.post("/v1/device-imports", content=content, headers={"Content-Type": "text/csv"})
        assert taken.status_code == 202, taken.text
    threads = [threading.Thread(target=give_tags, args=(name,), daemon=True) for name in names]
    for thread in threads:
        thread.start()
    assert enough.wait(WITHIN_S)
    node.kill()
    for thread in threads:
        thread.join(WITHIN_S)
    node.start()
    with calling(node) as client:
        for name in names:
            lost = answered[name] - set(client.get(f"/v1/devices/{name}").json()["tags"])
            assert not lost, f"{name} lost {sorted(lost)}"
        ends_at = time.monotonic() + WITHIN_S
        while (job := client.get(taken.headers["location"]).json())["status"] == "running":
            assert time.monotonic() < ends_at, job
            time.sleep(0.2)
        assert (job["status"], job["done"], job["failed"], job["lines"]) == ("completed", LINES, 0, LINES + 1)
        counts = {tag["tag"]: tag["devices"] for tag in client.get("/v1/tags?prefix=imported").json()["items"]}
        assert counts == {"imported": LINES}
