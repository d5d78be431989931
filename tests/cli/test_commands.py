"""The commands that talk to a running Longwire: what they print, and how they tell what went wrong."""

import json
import re
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from longwire import __version__


def test_nothing_slow_is_imported_before_a_command_runs() -> None:
    code = "import sys, longwire.cli.root; print(*sys.modules)"
    loaded = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout.split()
    assert not {"fastapi", "sqlalchemy", "httpx", "uvloop", "pydantic", "longwire.client"} & set(loaded)


@pytest.mark.parametrize("words", [("version",), ("--version",)])
def test_the_version_is_told(run, words) -> None:
    assert run(*words) == (0, f"longwire {__version__}\n", "")


@pytest.mark.parametrize(
    "group", ["keys", "devices", "pushes", "tags", "groups", "nodes", "webhooks", "device", "dead-letters", "config"]
)
def test_every_group_tells_its_commands(run, group: str) -> None:
    outcome = run(group, "--help")
    assert outcome.status == 0
    assert "Commands" in outcome.out


# -- reaching the API -------------------------------------------------------------------------------------------------


def test_where_nothing_answers_it_says_how_to_start_something(run) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
    outcome = run("keys", "list", "--url", url, "--api-key", "lwk_1_2")
    assert outcome.status == 1
    assert f"no Longwire answers at {url}" in outcome.err
    assert "start one with `longwire dev`" in outcome.err


def test_without_a_key_it_says_where_one_could_come_from(run) -> None:
    outcome = run("devices", "list")
    assert outcome.status == 1
    assert "there is no longwire-data/dev-credentials.json" in outcome.err


def test_a_key_of_the_credentials_file_is_not_sent_to_another_address(dev, run) -> None:
    outcome = run("devices", "list", "--url", "http://127.0.0.1:9", "--data", dev.data)
    assert outcome.status == 1
    assert "is of another address" in outcome.err


def test_url_and_key_come_from_the_environment_too(dev, run, monkeypatch) -> None:
    credentials = dev.ready()
    monkeypatch.setenv("LONGWIRE_URL", credentials["http_url"])
    monkeypatch.setenv("LONGWIRE_API_KEY", credentials["api_key"])
    assert run("keys", "list").status == 0


def test_a_key_that_is_not_taken_and_one_without_the_scope_are_told_apart(dev, run, at_dev) -> None:
    wrong = at_dev("keys", "list", "--api-key", "lwk_0_0")
    assert (wrong.status, "the API key is not taken (auth-invalid)" in wrong.err) == (1, True)
    weak = at_dev("keys", "create", "--name", "weak", "--scope", "device:read").out.strip()
    refused = at_dev("keys", "list", "--api-key", weak)
    assert (refused.status, "the API key lacks the scope admin" in refused.err) == (1, True)
    assert at_dev("devices", "list", "--api-key", weak).status == 0


def test_a_problem_is_shown_with_its_code_and_where_it_lies(at_dev) -> None:
    outcome = at_dev("keys", "create", "--name", "x", "--scope", "everything")
    assert outcome.status == 1
    assert "400 invalid-parameter" in outcome.err
    assert "#/scopes/0" in outcome.err


def test_what_is_not_longwire_is_told_so(run) -> None:
    code = "import http.server as h; s = h.HTTPServer(('127.0.0.1', 0), h.BaseHTTPRequestHandler);"
    code += "print(s.server_port, flush=True); s.serve_forever()"
    with subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL) as other:
        assert other.stdout is not None
        url = f"http://127.0.0.1:{int(other.stdout.readline())}"
        outcome = run("keys", "list", "--url", url, "--api-key", "lwk_1_2")
        other.kill()
    assert outcome.status == 1
    assert "is it the right URL?" in outcome.err


# -- keys -------------------------------------------------------------------------------------------------------------


def test_a_key_is_made_listed_and_revoked(at_dev) -> None:
    made = at_dev("keys", "create", "--name", "ci", "--scope", "device:read,device:write", "--scope", "stats:read")
    assert re.fullmatch(r"lwk_[0-9a-f]{32}_\S+\n", made.out)
    key_id = made.err.split()[0]
    (line,) = [line for line in at_dev("keys", "list").out.splitlines() if line.startswith(key_id)]
    assert line.split("\t")[1:3] == ["ci", "device:read device:write stats:read"]
    assert at_dev("keys", "revoke", key_id).status == 0
    assert at_dev("devices", "list", "--api-key", made.out.strip()).status == 1
    again = at_dev("keys", "revoke", key_id)
    assert (again.status, "404 not-found" in again.err) == (1, True)
    assert any(key["key_id"] == key_id for key in json.loads(at_dev("keys", "list", "--json").out))


# -- devices ----------------------------------------------------------------------------------------------------------


def test_devices_are_made_in_bulk_with_a_line_for_each(at_dev, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("old")
    tokens.chmod(0o644)
    outcome = at_dev("devices", "create", "--count", 2_500, "--prefix", "bulk-", "--tokens", tokens)
    assert outcome.status == 0
    lines = [line.split(",") for line in tokens.read_text().splitlines()]
    assert [device_id for device_id, _ in lines] == [f"bulk-{n:06d}" for n in range(1, 2_501)]
    assert len({token for _, token in lines}) == 2_500
    assert tokens.stat().st_mode & 0o777 == 0o600
    assert list(tmp_path.glob(".*")) == []


def test_a_token_of_the_file_connects_its_device(at_dev, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    at_dev("devices", "create", "--count", 1, "--prefix", "p", "--start", 7, "--tokens", tokens)
    device_id, token = tokens.read_text().strip().split(",")
    assert device_id == "p000007"
    outcome = at_dev("device", "send", "--as", device_id, "--token", token, f"device:{device_id}", "hi")
    assert outcome.out.startswith("SENT 0 ok")


def test_ids_that_cannot_be_are_refused_before_anything_is_made(at_dev, tmp_path: Path) -> None:
    outcome = at_dev("devices", "create", "--count", 1, "--prefix", "a b", "--tokens", tmp_path / "t.csv")
    assert outcome.status == 1
    assert "1-64 characters" in outcome.err
    assert not (tmp_path / "t.csv").exists()


def test_a_tokens_file_that_cannot_be_written_is_told(at_dev, tmp_path: Path) -> None:
    outcome = at_dev("devices", "create", "--count", 1, "--prefix", "a", "--tokens", tmp_path / "gone" / "t.csv")
    assert outcome.status == 1
    assert "cannot be written: No such file or directory" in outcome.err


def test_a_device_is_shown_cut_off_let_in_and_deleted(at_dev, tmp_path: Path) -> None:
    at_dev("devices", "create", "--count", 1, "--prefix", "life-", "--tokens", tmp_path / "t.csv")
    device_id, token = (tmp_path / "t.csv").read_text().strip().split(",")
    sending = ("device", "send", "--as", device_id, "--token", token, f"device:{device_id}", "hi")
    assert at_dev("devices", "list", "--limit", 1).out.startswith(device_id)
    assert json.loads(at_dev("devices", "show", device_id, "--json").out)["is_disabled"] is False
    assert "had no session" in at_dev("devices", "disconnect", device_id, "--code", 4000).err
    assert at_dev("devices", "disable", device_id).status == 0
    assert re.search(r"disabled +yes", at_dev("devices", "show", device_id).out)
    refused = at_dev(*sending)
    assert (refused.status, "is disabled" in refused.err) == (1, True)
    assert at_dev("devices", "enable", device_id).status == 0
    assert at_dev(*sending).status == 0
    assert at_dev("devices", "revoke", device_id).status == 0
    assert at_dev(*sending).status == 1
    assert at_dev("devices", "delete", device_id).status == 0
    assert "404 not-found" in at_dev("devices", "show", device_id).err


# -- being a device ---------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("transport", ["tcp", "websocket"])
def test_what_one_sends_the_other_prints_a_line_for_each(dev, at_dev, launch, transport: str) -> None:
    listener = launch("device", "listen", f"ear-{transport}", "--transport", transport, "--count", "3",
                      "--data", str(dev.data))  # fmt: skip
    listener.wait_until(lambda: "is connected to" in listener.output.read_text(), "connected")
    for payload in ("plain", "two\nlines \x1b[31m", "grüße"):
        sent = at_dev("device", "send", "--as", "mouth", f"device:ear-{transport}", payload, "--kind", "chat")
        assert re.fullmatch(r"SENT 0 ok  msg_[0-9a-f]{32}  [\d.]+ ms\n", sent.out)
    assert listener.process.wait(20) == 0
    lines = [line for line in listener.output.read_text().splitlines() if "  chat  " in line]
    assert [line.split("  ", 1)[1] for line in lines] == [
        "device:mouth  chat  plain",
        r"device:mouth  chat  two\nlines \x1b[31m",
        "device:mouth  chat  grüße",
    ]


def test_listening_ends_with_status_0_when_it_is_told_to(dev, launch) -> None:
    listener = launch("device", "listen", "patient", "--data", str(dev.data))
    listener.wait_until(lambda: "is connected to" in listener.output.read_text(), "connected")
    assert listener.stop() == 0


def test_the_application_answers_requests(at_dev) -> None:
    assert at_dev("device", "request", "--as", "asker", "double", "21").out == "42\n"
    unknown = at_dev("device", "request", "--as", "asker", "triple", "1")
    assert (unknown.status, "unsupported (15)" in unknown.err) == (1, True)


def test_a_message_to_nobody_is_refused_with_its_status(at_dev) -> None:
    outcome = at_dev("device", "send", "--as", "mouth", "device:nobody", "hi")
    assert outcome.status == 1
    assert "unknown_target (10)" in outcome.err


def test_without_credentials_a_device_is_told_what_it_needs(run) -> None:
    outcome = run("device", "listen", "alice")
    assert outcome.status == 1
    assert "start `longwire dev` here" in outcome.err


def test_an_app_key_that_is_not_known_is_refused_and_not_tried_again(dev, run, monkeypatch) -> None:
    monkeypatch.setenv("LONGWIRE_APP_KEY", "app_1")
    monkeypatch.setenv("LONGWIRE_APP_SECRET", "wrong")
    outcome = run("device", "send", "--as", "a", "device:b", "hi", "--url", dev.ready()["http_url"])
    assert outcome.status == 1
    assert "does not let this device in" in outcome.err


# -- dead letters -----------------------------------------------------------------------------------------------------


def test_a_message_that_the_application_would_not_take_is_listed_shown_and_replayed(dev, at_dev) -> None:
    assert at_dev("device", "send", "--as", "buyer", "application", "broken", "--kind", "order").status == 0
    (line,) = dev.wait_until(lambda: at_dev("dead-letters", "list").out.splitlines(), "a dead letter")
    letter_id, sender, kind, _, replayed, error = line.split("\t")
    assert (sender, kind, replayed) == ("buyer", "order", "")
    assert "no such article" in error
    shown = at_dev("dead-letters", "show", letter_id).out
    assert re.search(r"payload +broken", shown)

    at_dev("device", "request", "--as", "buyer", "fix", "")
    assert at_dev("dead-letters", "replay", "--all").status == 0
    answer = at_dev("device", "listen", "buyer", "--count", 1, "--json").out
    assert json.loads(answer)["payload"] == "broken"
    assert json.loads(at_dev("dead-letters", "show", letter_id, "--json").out)["replayed_at"] is not None
    assert "left as it is" in at_dev("dead-letters", "replay", letter_id).err
    assert "no dead letters to replay" in at_dev("dead-letters", "replay", "--all").err


def test_replay_wants_to_know_what(at_dev) -> None:
    assert at_dev("dead-letters", "replay").status == 2
    unknown = at_dev("dead-letters", "replay", "ltr_999")
    assert (unknown.status, "404 not-found" in unknown.err) == (1, True)


# -- config -----------------------------------------------------------------------------------------------------------


def test_config_shows_each_value_and_where_it_came_from(run, monkeypatch) -> None:
    Path("longwire.toml").write_text("http_port = 8080\n")
    monkeypatch.setenv("LONGWIRE_NODE_NAME", "oslo")
    shown = dict(line.split("\t", 1) for line in run("config", "show", "--limit", "window=9").out.splitlines())
    assert shown["port"] == "7300\tdefault"
    assert shown["http_port"] == "8080\tlongwire.toml"
    assert shown["node_name"] == "oslo\tenvironment LONGWIRE_NODE_NAME"
    assert shown["limits.window"] == "9\t--limit window"


def test_config_masks_the_api_key(dev, run, monkeypatch) -> None:
    key = dev.ready()["api_key"]
    from_file = run("config", "show", "--data", dev.data).out
    monkeypatch.setenv("LONGWIRE_API_KEY", "lwk_" + "0123456789" * 5)
    from_environment = run("config", "show").out
    assert key not in from_file
    assert f"{key[:8]}…\t{dev.data}/dev-credentials.json" in from_file
    assert "lwk_0123…\tenvironment LONGWIRE_API_KEY" in from_environment


def test_a_wrong_setting_is_told_by_config_too(run, monkeypatch) -> None:
    monkeypatch.setenv("LONGWIRE_PORT", "many")
    outcome = run("config", "show")
    assert outcome.status == 2
    assert "port = 'many' (environment LONGWIRE_PORT)" in outcome.err


# -- a cluster --------------------------------------------------------------------------------------------------------


def test_one_role_without_shared_engines_is_refused_with_what_they_are(run) -> None:
    outcome = run("serve", "--roles", "gateway")
    assert outcome.status == 2
    assert "roles = gateway needs shared engines" in outcome.err
    assert "store_url, redis_url, kafka_servers, zookeeper_hosts and cluster_secret" in outcome.err


def test_migrate_says_what_it_lacks_and_what_it_cannot_reach(run) -> None:
    outcome = run("migrate")
    assert (outcome.status, "store_url is not set" in outcome.err) == (2, True)
    outcome = run("migrate", "--store-url", "mysql://db/lw")
    assert (outcome.status, "the store cannot stand on mysql" in outcome.err) == (1, True)
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    outcome = run("migrate", "--check", "--store-url", f"postgresql+asyncpg://lw:hunter2@127.0.0.1:{port}/lw")
    assert (outcome.status, "postgresql" in outcome.err, "hunter2" in outcome.err) == (1, True, False)


def test_the_settings_are_shown_without_their_secrets(run, monkeypatch) -> None:
    for name, value in {
        "STORE_URL": "mysql+asyncmy://lw:hunter2@db/lw",
        "REDIS_URL": "redis://:hunter2@cache",
        "KAFKA_SERVERS": "log:9092",
        "ZOOKEEPER_HOSTS": "zoo:2181",
        "CLUSTER_SECRET": "hunter2-" * 4,
    }.items():
        monkeypatch.setenv(f"LONGWIRE_{name}", value)
    outcome = run("config", "show")
    assert outcome.status == 0
    assert "mysql+asyncmy://lw:…@db/lw" in outcome.out
    assert "hunter2" not in outcome.out
