"""``longwire trace``: the verdict first, then the way, for eyes and for programs."""

import json

import httpx


def send(dev, device_id: str) -> str:
    credentials = dev.ready()
    answer = httpx.post(
        f"{credentials['http_url']}/v1/messages",
        json={"to": {"device": device_id}, "kind": "news", "payload": "x"},
        headers={"Authorization": f"Bearer {credentials['api_key']}"},
    )
    return answer.json()["message_id"]


def test_a_message_is_shown_with_its_verdict_and_its_way(dev, at_dev, tmp_path) -> None:
    words = ("--count", 1, "--prefix", "traced-", "--tokens", tmp_path / "tokens.csv")
    assert at_dev("devices", "create", *words).status == 0
    message = send(dev, "traced-000001")
    shown = at_dev("trace", message)
    assert shown.status == 0, shown.err
    assert shown.out.startswith("traced-000001 has never connected")
    assert "✓ accepted" in shown.out
    assert "… expires" in shown.out
    assert message in shown.out
    told = json.loads(at_dev("trace", message, "--device", "traced-000001", "--json").out)
    assert (told["verdict"]["code"], told["id"]) == ("waiting-never-connected", message)
    device = at_dev("trace", "traced-000001")
    assert f"message  {message}" in device.out


def test_what_nobody_knows_is_said_and_no_failure(at_dev) -> None:
    shown = at_dev("trace", "nobody-home")
    assert (shown.status, "no device and no user of this name" in shown.out) == (0, True)
    wrong = at_dev("trace", "two words")
    assert (wrong.status, "400 invalid-parameter" in wrong.err) == (1, True)
