"""Pushes, tags, groups, nodes, webhooks from the command line, on a running `longwire dev`."""

import json
import re
import threading
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import pytest

from longwire.testing.process import RawClient

Fleet = Callable[..., list[str]]


@pytest.fixture
def fleet(at_dev, tmp_path: Path) -> Fleet:
    """`fleet("a-", 3)`: devices a-000001 to a-000003, registered; nobody is connected."""

    def make(prefix: str, count: int) -> list[str]:
        tokens = tmp_path / "tokens.csv"
        assert at_dev("devices", "create", "--count", count, "--prefix", prefix, "--tokens", tokens).status == 0
        return [line.split(",")[0] for line in tokens.read_text().splitlines()]

    return make


def funnel(out: str) -> dict[str, int]:
    """The rows of a funnel that a command printed."""
    rows = (line.split("\t") for line in out.splitlines() if line.count("\t") == 2)
    return {state: int(count) for state, count, _ in rows}


def pushed(outcome) -> str:
    """The push's id, which is all that a push prints."""
    assert outcome.status == 0, outcome.err
    assert re.fullmatch(r"psh_[0-9a-f]{32}\n", outcome.out), outcome.out
    return outcome.out.strip()


# -- what is wrong before anything is sent ----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ((), "name one audience"),
        (("--all", "--device", "a"), "name one audience"),
        (("--all", "--payload", "a", "--json", "1"), "one of --payload, --json and --file"),
        (("--all", "--json", "{"), "--json is not JSON"),
        (("--all", "--at", "soon"), "--at soon is no time"),
    ],
)
def test_a_push_that_cannot_be_meant_is_refused_with_status_2(at_dev, words, said: str) -> None:
    outcome = at_dev("push", *words)
    assert (outcome.status, said in outcome.err) == (2, True), outcome.err


@pytest.mark.parametrize("flag", ["--file", "--upload"])
def test_a_file_that_is_not_there_is_told(at_dev, flag: str) -> None:
    outcome = at_dev("push", *(("--all",) if flag == "--file" else ()), flag, "gone.txt")
    assert (outcome.status, "gone.txt cannot be read: No such file" in outcome.err) == (1, True)


@pytest.mark.parametrize(
    ("words", "code"),
    [
        (("--device", "ghost"), "422 no-target"),
        (("--tag-none", "a"), "400 invalid-parameter"),
        (("--all", "--ttl", "999999999"), "422 ttl-out-of-range"),
        (("--all", "--at", "2020-01-01T00:00:00Z"), "422 schedule-in-past"),
        (("--all", "--payload", "x" * 5_000), "413 payload-too-large"),
    ],
)
def test_what_the_server_refuses_is_told_with_its_code(at_dev, words, code: str) -> None:
    outcome = at_dev("push", *words)
    assert (outcome.status, code in outcome.err) == (1, True), outcome.err


# -- audiences and messages -------------------------------------------------------------------------------------------


def test_a_listener_gets_what_is_pushed_and_the_funnel_is_told(dev, at_dev, launch) -> None:
    listener = launch("device", "listen", "push-ear", "--count", "3", "--data", str(dev.data))
    listener.wait_until(lambda: "is connected to" in listener.output.read_text(), "connected")
    payload = Path("payload.bin")
    payload.write_bytes(b"from a file")
    to = ("--device", "push-ear", "--kind", "news", "--watch")
    for words in (("--payload", "grüße"), ("--json", '{"a": [1, null]}'), ("--file", payload)):
        outcome = at_dev("push", *to, *words)
        assert outcome.status == 0, outcome.err
        assert funnel(outcome.out) == {"targeted": 1, "acked": 1, "pending": 0}
        push_id = outcome.out.splitlines()[0]
        assert f"{push_id} is completed" in outcome.err
    assert listener.process.wait(20) == 0
    lines = [line.split("  news  ")[1] for line in listener.output.read_text().splitlines() if "  news  " in line]
    assert lines == ["grüße", '{"a":[1,null]}', "from a file"]


def test_a_dry_run_tells_whom_it_would_reach_and_sends_nothing(at_dev, fleet) -> None:
    names = fleet("dry-", 3)
    before = at_dev("pushes", "list", "--limit", 1).out
    outcome = at_dev("push", "--dry-run", "--device", ",".join(names), "--payload", "hello")
    assert outcome.status == 0
    assert re.search(r"targeted +3\n", outcome.out)
    assert re.search(r"online +0\n", outcome.out)
    assert re.search(r"payload +5 bytes\n", outcome.out)
    assert at_dev("pushes", "list", "--limit", 1).out == before


def test_tags_are_given_listed_taken_and_pushed_to(at_dev, fleet) -> None:
    names = fleet("tag-", 4)
    assert "added to 3 of 4 devices; 1 are not registered" in at_dev("tags", "add", "t-any", *names[:3], "ghost").err
    assert at_dev("devices", "tag", names[0], "t-all", "t-none").status == 0
    assert at_dev("devices", "tag", names[1], "t-all").status == 0
    assert "has the tags t-all" in at_dev("devices", "untag", names[1], "t-any", "nothing").err
    listed = dict(line.split("\t")[:2] for line in at_dev("tags", "list", "--prefix", "t-").out.splitlines())
    assert listed == {"t-any": "2", "t-all": "2", "t-none": "1"}
    assert "kept by the system" in at_dev("tags", "list", "--prefix", "sys:").out
    shown = at_dev("devices", "list", "--tag", "t-any").out
    assert [line.split("\t")[0] for line in shown.splitlines()] == [names[2], names[0]]
    push_id = pushed(at_dev("push", "--tag-any", "t-any,t-all", "--tag-none", "t-none"))
    assert funnel(at_dev("pushes", "show", push_id).out) == {"targeted": 2, "acked": 0, "pending": 2}
    assert "removed from 2 of 2" in at_dev("tags", "remove", "t-any", names[0], names[2]).err
    nobody = pushed(at_dev("push", "--tag-all", "t-any"))
    assert json.loads(at_dev("pushes", "show", nobody, "--json").out)["status"] == "completed"


def test_groups_are_made_filled_pushed_to_and_ended(at_dev, fleet) -> None:
    names = fleet("group-", 3)
    assert at_dev("groups", "create", "crew", "--name", "The crew").out == "crew\n"
    again = at_dev("groups", "create", "crew")
    assert (again.status, "409 already-exists" in again.err) == (1, True)
    assert at_dev("groups", "add", "crew", "--device", ",".join(names), "--user", "ann").status == 0
    assert at_dev("groups", "remove", "crew", "--device", names[0]).status == 0
    members = sorted(tuple(line.split("\t")) for line in at_dev("groups", "members", "crew").out.splitlines())
    assert members == [("device", names[1]), ("device", names[2]), ("user", "ann")]
    (line,) = [line for line in at_dev("groups", "list").out.splitlines() if line.startswith("crew\t")]
    assert line.split("\t")[1:4] == ["The crew", "2", "1"]
    push_id = pushed(at_dev("push", "--group", "crew"))
    assert funnel(at_dev("pushes", "show", push_id).out)["targeted"] == 2
    assert len(at_dev("devices", "list", "--group", "crew").out.splitlines()) == 2
    assert at_dev("groups", "delete", "crew").status == 0
    assert "404 not-found" in at_dev("groups", "members", "crew").err
    assert at_dev("groups", "add", "crew").status == 2


def test_a_file_of_ids_is_an_audience(at_dev, fleet, tmp_path: Path) -> None:
    ids = tmp_path / "ids.txt"
    ids.write_text("\n".join([*fleet("up-", 1_500), "ghost"]))
    outcome = at_dev("push", "--upload", ids)
    assert "1 ids of" in outcome.err
    push_id = outcome.out.strip()
    assert funnel(at_dev("pushes", "show", push_id).out)["targeted"] == 1_500


def test_who_is_not_registered_is_told_and_the_others_get_it(at_dev, fleet) -> None:
    (name,) = fleet("some-", 1)
    outcome = at_dev("push", "--device", name, "--device", "ghost")
    pushed(outcome)
    assert "1 are not registered, among them ghost" in outcome.err


def test_the_same_idempotency_key_is_the_same_push(at_dev, fleet) -> None:
    (name,) = fleet("idem-", 1)
    words = ("push", "--device", name, "--idempotency-key", "order-7")
    assert pushed(at_dev(*words)) == pushed(at_dev(*words))
    assert "422 idempotency-key-reused" in at_dev(*words, "--payload", "other").err


# -- looking at pushes, and steering them -----------------------------------------------------------------------------


def test_a_scheduled_push_is_listed_and_cancelled(at_dev, fleet) -> None:
    (name,) = fleet("later-", 1)
    at = (datetime.now(UTC) + timedelta(hours=1)).isoformat()
    push_id = pushed(at_dev("push", "--device", name, "--at", at, "--priority", "high", "--collapse-key", "k"))
    (line,) = at_dev("pushes", "list", "--status", "scheduled").out.splitlines()
    assert line.split("\t")[:3] == [push_id, "scheduled", f"devices {name}"]
    shown = at_dev("pushes", "show", push_id).out
    assert re.search(r"priority +high\n", shown)
    assert re.search(r"send at +20", shown)
    outcome = at_dev("pushes", "cancel", push_id)
    assert (outcome.status, f"{push_id} is canceled" in outcome.err) == (0, True)
    withdrawn = at_dev("pushes", "withdraw", push_id)
    assert (withdrawn.status, "is withdrawn" in withdrawn.err) == (0, True)
    refused = at_dev("pushes", "cancel", push_id)
    assert (refused.status, "409 state-conflict" in refused.err) == (1, True)


def test_a_push_is_paused_paced_and_goes_on(dev, at_dev, tmp_path: Path) -> None:
    tokens = tmp_path / "tokens.csv"
    at_dev("devices", "create", "--count", 60, "--prefix", "pace-", "--tokens", tokens)
    port = int(dev.ready()["device_address"].rpartition(":")[2])
    with ExitStack() as stack:
        names = []
        for line in tokens.read_text().splitlines():
            name, token = line.split(",")
            stack.enter_context(RawClient(port)).connect(name, token)
            names.append(name)
        push_id = pushed(at_dev("push", "--device", ",".join(names), "--rate", 1))
        assert f"{push_id} is paused" in at_dev("pushes", "pause", push_id).err
        assert "is paused, at most 50 devices a second" in at_dev("pushes", "rate", push_id, 50).err
        assert at_dev("pushes", "rate", push_id, "fast").status == 2
        assert "is paused, without a rate" in at_dev("pushes", "rate", push_id, "none").err
        assert "is going on" in at_dev("pushes", "resume", push_id).err
        watched = at_dev("pushes", "watch", push_id)
    assert (watched.status, funnel(watched.out)) == (0, {"targeted": 60, "acked": 0, "pending": 60})
    assert "60 devices have not acknowledged it" in watched.err
    refused = at_dev("pushes", "pause", push_id)
    assert (refused.status, "409 state-conflict" in refused.err) == (1, True)


def test_recipients_are_listed_by_state_and_one_is_explained(at_dev, fleet) -> None:
    names = fleet("who-", 3)
    push_id = pushed(at_dev("push", "--device", ",".join(names)))
    rows = [line.split("\t") for line in at_dev("pushes", "recipients", push_id).out.splitlines()]
    assert sorted(row[0] for row in rows) == names
    assert {row[1] for row in rows} == {"pending"}
    assert "no devices are acked" in at_dev("pushes", "recipients", push_id, "--state", "acked").err
    one = at_dev("pushes", "recipients", push_id, names[0]).out
    assert re.search(r"targeted +yes\n", one)
    assert re.search(r"verdict +\S", one)


def test_what_expired_is_sent_again_as_another_push(dev, at_dev, fleet) -> None:
    (name,) = fleet("again-", 1)
    push_id = pushed(at_dev("push", "--device", name, "--ttl", 1))
    dev.wait_until(lambda: "completed" in at_dev("pushes", "show", push_id).out, "the end of its time")
    again = pushed(at_dev("pushes", "retry", push_id, "--state", "expired"))
    assert again != push_id
    assert funnel(at_dev("pushes", "show", again).out) == {"targeted": 1, "acked": 0, "pending": 1}


def test_a_push_that_does_not_exist_is_told(at_dev) -> None:
    for words in (("show",), ("cancel",), ("watch",), ("recipients",), ("retry",), ("rate", 1)):
        outcome = at_dev("pushes", words[0], "psh_" + "0" * 32, *words[1:])
        assert (outcome.status, "404 not-found" in outcome.err) == (1, True), outcome.err


# -- devices ----------------------------------------------------------------------------------------------------------


def test_presence_says_who_is_online_and_how_the_others_left(dev, at_dev, launch, fleet) -> None:
    (never,) = fleet("never-", 1)
    listener = launch("device", "listen", "seen", "--data", str(dev.data))
    listener.wait_until(lambda: "is connected to" in listener.output.read_text(), "connected")
    rows = [line.split("\t") for line in at_dev("devices", "presence", "seen", never).out.splitlines()]
    assert [row[:2] for row in rows] == [["seen", "online"], [never, "offline"]]
    assert "seen" in at_dev("devices", "list", "--online").out
    assert listener.stop() == 0
    dev.wait_until(lambda: "\toffline\t" in at_dev("devices", "presence", "seen").out, "offline")
    assert re.search(r"seen\t", at_dev("devices", "list", "--offline", "--prefix", "seen").out)


def test_devices_are_imported_and_each_line_that_is_refused_is_told(at_dev, tmp_path: Path) -> None:
    file = tmp_path / "fleet.csv"
    file.write_text("device_id,user,tags\nimp-1,ann,red blue\nno good,,\nimp-2,,\n")
    outcome = at_dev("devices", "import", file)
    assert outcome.status == 1
    assert "line 3: " in outcome.err
    assert "2 registered, 1 refused" in outcome.err
    shown = json.loads(at_dev("devices", "show", "imp-1", "--json").out)
    assert (shown["user"], sorted(shown["tags"])) == ("ann", ["blue", "red"])
    lines = tmp_path / "fleet.ndjson"
    lines.write_text("".join(json.dumps({"device_id": f"nd-{n}"}) + "\n" for n in range(3)))
    outcome = at_dev("devices", "import", lines)
    assert (outcome.status, "3 devices are registered" in outcome.err) == (0, True)


def test_a_command_to_a_device_that_is_away_or_knows_no_methods_is_told(dev, at_dev, launch, fleet) -> None:
    (name,) = fleet("cmd-", 1)
    offline = at_dev("devices", "command", name, "blink")
    assert (offline.status, "409 device-offline" in offline.err) == (1, True)
    listener = launch("device", "listen", "cmd-ear", "--data", str(dev.data))
    listener.wait_until(lambda: "is connected to" in listener.output.read_text(), "connected")
    refused = at_dev("devices", "command", "cmd-ear", "blink", "now", "--timeout", 5)
    assert (refused.status, "failed" in refused.err) == (1, True), refused.err
    command_id = at_dev("devices", "command", "cmd-ear", "blink", "--async").out.strip()
    assert command_id.startswith("cmd_")
    assert command_id in at_dev("devices", "reply", command_id).err


def test_a_banned_device_stays_away(dev, at_dev, fleet) -> None:
    (name,) = fleet("ban-", 1)
    assert at_dev("devices", "disconnect", name, "--ban", 60).status == 0
    refused = at_dev("device", "send", "--as", name, f"device:{name}", "hi")
    assert refused.status == 1


# -- nodes and webhooks -----------------------------------------------------------------------------------------------


def test_the_node_is_listed_and_shown(at_dev) -> None:
    (line,) = at_dev("nodes", "list").out.splitlines()
    node_id = line.split("\t")[0]
    shown = at_dev("nodes", "show", node_id).out
    assert re.search(rf"node +{re.escape(node_id)}\n", shown)
    assert re.search(r"memory +\d+ MB\n", shown)
    assert "404 not-found" in at_dev("nodes", "show", "nobody~00000000").err


@pytest.fixture
def consumer() -> Iterator[str]:
    """The address of a server that takes every POST."""

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            self.rfile.read(int(self.headers["Content-Length"]))
            self.send_response(204)
            self.end_headers()

        def log_message(self, *_: object) -> None:
            pass

    server = HTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}/hook"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_webhook_to_a_private_address_is_refused(at_dev, consumer: str) -> None:
    outcome = at_dev("webhooks", "add", consumer, "--kind", "push.*")
    assert (outcome.status, "is not public" in outcome.err) == (1, True), outcome.err


def test_a_webhook_is_added_tested_listed_and_removed(launch, run, consumer: str) -> None:
    program = launch(
        "dev", "--data", "data", "--port", "0", "--http-port", "0", LONGWIRE_WEBHOOK_PRIVATE_ADDRESSES="true"
    )
    program.ready()

    def there(*words: object):
        return run(*words, "--data", program.data)

    made = there("webhooks", "add", consumer, "--kind", "push.*,presence.online")
    assert made.status == 0, made.err
    assert len(made.out.strip()) >= 32
    webhook_id = made.err.split()[0]
    assert "answered 204" in there("webhooks", "test", webhook_id).err
    (line,) = there("webhooks", "list").out.splitlines()
    assert line.split("\t")[:3] == [webhook_id, consumer, "presence.online push.*"]
    assert "no letters" in there("webhooks", "letters").err
    assert there("webhooks", "replay", "--all").status == 0
    assert there("webhooks", "replay").status == 2
    assert there("webhooks", "remove", webhook_id).status == 0
    assert "404 not-found" in there("webhooks", "test", webhook_id).err
