"""The works of the API and the store: audiences, messages over HTTP, memory of a push, connects beside live pushes."""

import json
import subprocess
import sys
import time
from pathlib import Path
from statistics import median

from bench.api import Api, ApiFailedError, api_key, api_of, devices_of
from bench.generator import Result, held_fleet, number, run
from bench.processes import ServerFailedError, ServerProcess
from bench.servers import Endpoint, Longwire, Server
from bench.work import Measured, Metric, Scale, Work

AUDIENCE_WITHIN_S = 600.0
POLL_S = 0.05


def _audience(_server: Server, _protocol: str, _folder: Path, scale: Scale) -> Measured:
    """bench/audience.py: the expression against the store, without a server."""
    done = subprocess.run(
        [sys.executable, "-m", "bench.audience", "--json", "--devices", str(scale.registered)],
        cwd=Path(__file__).resolve().parent.parent,
        capture_output=True,
        text=True,
        check=False,
        timeout=AUDIENCE_WITHIN_S,
    )
    if done.returncode != 0:
        raise ServerFailedError(f"bench.audience: {(done.stderr or done.stdout).strip()[-500:]}")
    result: Result = json.loads(done.stdout.splitlines()[-1])
    return Measured({"worst_ms": number(result, "worst_ms"), "median_ms": number(result, "median_ms")}, [result])


def _messages_http(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """Messages to online devices, which acknowledge them: one a call, then many, each on a fresh server."""
    with server.running(folder / "single", protocol) as endpoint:
        single = _post_messages(endpoint, folder, scale, scale.callers, batch=1)
    with server.running(folder / "batch", protocol) as endpoint:
        many = _post_messages(endpoint, folder, scale, scale.batch_callers, scale.batch)
    return Measured(
        {
            "calls_per_s": number(single[0], "rate_per_s"),
            "p99_ms": number(single[0], "latency", "p99_us") / 1000,
            "server_cpu_us": number(single[0], "server_cpu_us_per_message"),
            "batch_per_s": number(many[0], "rate_per_s"),
            "batch_p99_ms": number(many[0], "latency", "p99_us") / 1000,
            "batch_cpu_us": number(many[0], "server_cpu_us_per_message"),
        },
        [*single, *many],
    )


def _post_messages(endpoint: Endpoint, folder: Path, scale: Scale, callers: int, batch: int) -> list[Result]:
    """What the callers were told, and what the devices got; a message that was taken and did not come is a fault."""
    assert endpoint.data is not None
    bodies = folder / f"bodies-{batch}"
    bodies.write_text(_bodies(devices_of(endpoint, scale.relay_connections), batch, scale.payload_bytes))
    with held_fleet(endpoint, scale.relay_connections, names_receiver=1, lists=0) as fleet:
        posted = run(
            "post",
            Endpoint(endpoint.process, "native", _http_port(endpoint)),
            callers,
            path="/v1/messages/batch" if batch > 1 else "/v1/messages",
            key=api_key(endpoint.data),
            bodies=bodies,
            count='"message_id"',
            seconds=scale.seconds,
            warmup=scale.warmup_s,
            server_pid=endpoint.process.pid,
        )
        time.sleep(scale.settle_s / 2)
    missing = number(posted, "counted") - number(fleet.final, "distinct")
    return [posted, {**fleet.final, "lost_confirmed": max(0, int(missing))}]


def _http_port(endpoint: Endpoint) -> int:
    return int((endpoint.http_url or "").rpartition(":")[2])


def _bodies(devices: list[str], batch: int, payload_bytes: int) -> str:
    """JSON, a call a line, for each device the same number of messages; each says for whom it is."""
    messages = [_message(device, payload_bytes) for device in devices]
    if batch == 1:
        calls: list[object] = list(messages)
    else:
        endless = messages * (batch // len(messages) + 2)
        calls = [{"items": endless[at % len(messages) :][:batch]} for at in range(0, len(messages) * 2, batch)]
    return "".join(json.dumps(call, separators=(",", ":")) + "\n" for call in calls)


def _message(device: str, payload_bytes: int) -> dict[str, object]:
    payload = {"for": device, "text": ""}
    payload["text"] = "x" * max(0, payload_bytes - len(json.dumps(payload, separators=(",", ":"))))
    return {"to": {"device": device}, "kind": "note", "payload": payload}


def _push_memory(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """A push to a million devices of which none is there: the most that the process held meanwhile, beyond before.

    The first push is not measured: it loads code, and fills caches that the next ones use again.
    """
    assert isinstance(server, Longwire)
    server = server.seeded(("devices", scale.registered))
    peaks, lefts = list[float](), list[float]()
    with server.running(folder, protocol) as endpoint:
        api, process = api_of(endpoint), endpoint.process
        process.settled_memory(at_least_s=scale.settle_s)
        first_kb = _pushed_kb(api, process, scale)[0]
        for _ in range(3):
            peak_kb, left_kb = _pushed_kb(api, process, scale)
            peaks.append(peak_kb)
            lefts.append(left_kb)
        empty_kb = process.rss_kb()
    return Measured(
        {
            "peak_kb": median(peaks),
            "left_kb": median(lefts),
            "first_peak_kb": first_kb,
            "process_mb": empty_kb / 1024,
        },
        [{"peaks_kb": peaks, "lefts_kb": lefts}],
    )


def _pushed_kb(api: Api, process: ServerProcess, scale: Scale) -> tuple[float, float]:
    """What a push to all took at its most and when it was sent, in KB beyond what there was."""
    process.settled_memory(at_least_s=2.0)
    before_kb = process.rss_kb()
    process.forget_peak()
    push_id = api.push_to_all("to a million")
    deadline = time.monotonic() + 60
    while (push := api.call("GET", f"/v1/pushes/{push_id}"))["status"] != "dispatched":
        if time.monotonic() > deadline:
            raise ApiFailedError(f"the push is still {push['status']} after a minute")
        time.sleep(POLL_S)
    targeted = api.stats(push_id)["targeted"]
    if targeted < scale.registered:
        raise ApiFailedError(f"the push is for {targeted} of {scale.registered} devices")
    peak_kb = process.peak_kb() - before_kb
    process.settled_memory(at_least_s=2.0)
    return peak_kb, process.rss_kb() - before_kb


def _connect_live_pushes(server: Server, protocol: str, folder: Path, scale: Scale) -> Measured:
    """Connects with none and with many live pushes that all who connect have acknowledged, in turns."""
    assert isinstance(server, Longwire)
    away = ("devices", scale.away)
    servers = {
        "none": server.seeded(away),
        "live": server.seeded(away, ("pushes", scale.live_pushes, scale.devices)),
    }
    rates: dict[str, list[float]] = {"none": [], "live": []}
    cpu_us: dict[str, list[float]] = {"none": [], "live": []}
    raw, notes = list[Result](), list[str]()
    for turn in range(scale.connect_turns):
        for name in sorted(servers, reverse=turn % 2 == 0):
            with servers[name].running(folder / f"{name}-{turn}", protocol) as endpoint:
                if name == "live" and turn == 0:
                    notes += _not_live(api_of(endpoint), scale)
                endpoint.process.settled_memory(at_least_s=scale.settle_s)
                cpu_s = endpoint.process.cpu_s()
                with held_fleet(endpoint, scale.connects, connecting=server.connecting, lists=0) as fleet:
                    time.sleep(scale.settle_s / 2)
                    cpu_us[name].append((endpoint.process.cpu_s() - cpu_s) * 1e6 / fleet.connected)
            rates[name].append(fleet.connects_per_s)
            raw.append(fleet.final)
            if fleet.final["deliveries"]:
                notes.append(f"devices that had acknowledged got {fleet.final['deliveries']} pushes again")
    none, live = median(rates["none"]), median(rates["live"])
    return Measured(
        {
            "share": live / none,
            "live_per_s": live,
            "none_per_s": none,
            "live_cpu_us": median(cpu_us["live"]),
            "none_cpu_us": median(cpu_us["none"]),
        },
        raw,
        notes,
    )


def _not_live(api: Api, scale: Scale) -> list[str]:
    """A remark where the pushes that were seeded are not what they must be."""
    page = api.call("GET", "/v1/pushes?status=dispatched&limit=1")["items"]
    assert isinstance(page, list)
    stats = page[0]["stats"] if page else {}
    if stats.get("acked") == scale.devices and stats.get("pending", 0) >= scale.away:
        return []
    return [f"the pushes are not live, or not acknowledged: {stats}"]


API_WORKS = (
    Work(
        "audience",
        "tags any + all + none over 1,000,000 devices",
        (Metric("worst_ms", "ms, the slowest expression", 1), Metric("median_ms", "ms, the median one", 1)),
        ("longwire",),
        "native",
        _audience,
        "≤ 100 ms, equal to brute force",
    ),
    Work(
        "messages-http",
        "POST /v1/messages to online devices: 16 callers; and 500 a call, 4 callers",
        (
            Metric("calls_per_s", "calls/s, one message each", higher_is_better=True),
            Metric("p99_ms", "p99 ms", 1),
            Metric("server_cpu_us", "server CPU µs a call", 1),
            Metric("batch_per_s", "messages/s in batches", higher_is_better=True),
            Metric("batch_p99_ms", "p99 ms of a batch", 1),
            Metric("batch_cpu_us", "server CPU µs a message in batches", 1),
        ),
        ("longwire",),
        "native",
        _messages_http,
        "≥ 3,000/s; in batches ≥ 20,000/s",
    ),
    Work(
        "push-memory",
        "push to 1,000,000 registered devices, none connected",
        (
            Metric("peak_kb", "KB at most while it is sent"),
            Metric("left_kb", "KB when it is sent"),
            Metric("first_peak_kb", "KB at most, the process's first push"),
            Metric("process_mb", "MB, the process", 1),
        ),
        ("longwire",),
        "native",
        _push_memory,
        "≤ 1,024 KB",
    ),
    Work(
        "connect-live-pushes",
        "connects with 1,000 live pushes that all have acknowledged, and with none",
        (
            Metric("share", "with ÷ without", 2, higher_is_better=True),
            Metric("live_per_s", "connects/s with them", higher_is_better=True),
            Metric("none_per_s", "connects/s without", higher_is_better=True),
            Metric("live_cpu_us", "server CPU µs a connect with them", 1),
            Metric("none_cpu_us", "server CPU µs a connect without", 1),
        ),
        ("longwire",),
        "native",
        _connect_live_pushes,
        "no slower than with none",
    ),
)
