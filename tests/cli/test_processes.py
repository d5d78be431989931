"""`longwire dev` and `longwire serve` as processes: first start, second start, what is in the way, and the end."""

import json
import re
import signal
import socket
import struct
from pathlib import Path

import httpx
import pytest

FREE = ("--port", "0", "--http-port", "0")
DEV = ("dev", "--data", "data", *FREE)
SERVE = ("serve", "--data", "data", *FREE, "--internal-port", "0")


def listed(credentials: dict[str, str], path: str = "/v1/keys") -> int:
    headers = {"Authorization": f"Bearer {credentials['api_key']}"}
    return httpx.get(f"{credentials['http_url']}{path}", headers=headers, verify=False).status_code


def test_the_first_start_makes_keys_that_work_and_tells_them_to_their_owner_alone(launch) -> None:
    program = launch(*DEV)
    credentials = program.ready()
    file = program.data / "dev-credentials.json"
    assert set(credentials) == {"app_key", "app_secret", "api_key", "device_address", "http_url"}
    assert file.stat().st_mode & 0o777 == 0o600
    assert [path.name for path in program.data.glob("*credentials*")] == [file.name]
    assert listed(credentials) == 200
    assert program.stop() == 0
    said = program.output.read_text()
    for value in credentials.values():
        assert value in said
    assert "longwire device listen alice --data data" in said


def test_the_second_start_keeps_keys_and_file_and_tells_the_new_addresses(launch) -> None:
    program = launch(*DEV)
    first = program.ready()
    program.stop()
    program = launch(*DEV)
    program.wait_until(lambda: json.loads((program.data / "dev-credentials.json").read_text()) != first, "new address")
    second = program.ready()
    for name in ("app_key", "app_secret", "api_key"):
        assert second[name] == first[name]
    assert second["device_address"] != first["device_address"]
    assert listed(second) == 200


def test_keys_whose_file_was_lost_are_made_anew_and_that_is_said(launch) -> None:
    program = launch(*DEV)
    first = program.ready()
    program.stop()
    (program.data / "dev-credentials.json").unlink()
    program = launch(*DEV)
    second = program.ready()
    assert second["api_key"] != first["api_key"]
    assert second["app_key"] != first["app_key"]
    assert listed(second) == 200
    assert listed(first | {"http_url": second["http_url"]}) == 200
    program.stop()
    assert "dev-credentials.json was gone: made an app key and an API key anew" in program.output.read_text()


def test_a_file_whose_keys_the_folder_does_not_know_is_put_right(launch, tmp_path: Path) -> None:
    data = tmp_path / "data"
    data.mkdir()
    strange = {"app_key": "app_x", "app_secret": "y", "api_key": "lwk_0_z", "device_address": "", "http_url": ""}
    (data / "dev-credentials.json").write_text(json.dumps(strange))
    program = launch(*DEV)
    program.wait_until(lambda: json.loads((data / "dev-credentials.json").read_text()) != strange, "new keys")
    assert listed(program.ready()) == 200
    program.stop()
    assert "named keys that this data folder does not know" in program.output.read_text()


def test_serve_says_where_its_first_keys_are_and_never_what_they_are(launch) -> None:
    program = launch(*SERVE)
    credentials = program.ready("credentials.json")
    assert set(credentials) == {"app_key", "app_secret", "master_secret", "api_key", "device_address", "http_url"}
    assert listed(credentials) == 200
    assert program.stop() == 0
    said = program.output.read_text()
    assert "data/credentials.json" in said
    assert re.search(r"health pages at http://127\.0\.0\.1:\d+", said)
    for name in ("app_secret", "master_secret", "api_key"):
        assert credentials[name] not in said
    assert (program.data / "credentials.json").stat().st_mode & 0o777 == 0o600


def test_serve_does_not_bring_back_keys_that_were_moved_away_unless_it_is_asked(launch) -> None:
    program = launch(*SERVE)
    program.ready("credentials.json")
    program.stop()
    file = program.data / "credentials.json"
    file.unlink()
    program = launch(*SERVE)
    program.wait_until(lambda: program.output.read_text().count("ready: devices at") == 2, "ready again")
    assert not file.exists()
    program.stop()
    assert listed(launch(*SERVE, "--new-credentials").ready("credentials.json")) == 200


def test_sigterm_ends_it_with_status_0_though_devices_keep_their_connections(launch) -> None:
    program = launch(*DEV)
    credentials = program.ready()
    host, port = credentials["device_address"].split(":")
    half_open = [socket.create_connection((host, int(port))) for _ in range(50)]
    for peer in half_open[::2]:
        peer.sendall(b"\xa7\x10\x01")  # the beginning of a frame, and never the rest
    device = connected(launch, program)
    assert program.stop() == 0
    for peer in (*half_open, device):
        peer.close()


def test_a_second_sigint_ends_it_on_the_spot(launch) -> None:
    program = launch(*DEV)
    credentials = program.ready()
    device = connected(launch, program)
    program.process.send_signal(signal.SIGINT)
    device.recv(100)  # it is told to go, and does not
    host, port = credentials["device_address"].split(":")
    assert program.stop(signal.SIGINT) == 130
    assert "stopped at once" in program.output.read_text()
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection((host, int(port)))
    device.close()


def connected(launch, program) -> socket.socket:
    """A device that has a session and neither reads nor closes."""
    tokens = program.folder / "t.csv"
    maker = launch("devices", "create", "--count", "1", "--prefix", "x", "--tokens", str(tokens), "--data", "data")
    assert maker.process.wait(60) == 0
    device_id, token = tokens.read_text().strip().split(",")
    credentials = json.loads((program.data / "dev-credentials.json").read_text())
    host, port = credentials["device_address"].split(":")
    peer = socket.create_connection((host, int(port)))
    body = b"\x92" + b"\xd9" + bytes([len(token)]) + token.encode() + b"\xa7" + device_id.encode()
    peer.sendall(struct.pack(">BBBBII", 0xA7, 0x10, 0x01, 0, len(body), 1) + body)
    peer.settimeout(10)
    answer = b""
    while len(answer) < 12 or len(answer) < 12 + int.from_bytes(answer[4:8], "big"):
        answer += peer.recv(65_536)
    assert answer[2] == 0x02  # CONNECTED
    return peer


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_during_the_start_ends_it_too(launch, number: int) -> None:
    program = launch(*SERVE, "--log-level", "debug")
    program.wait_until(lambda: (program.data / "lock").exists(), "the store opens")
    assert program.stop(number) == 0


def test_a_port_in_use_is_one_line_that_names_port_and_setting(launch) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        port = other.getsockname()[1]
        program = launch("dev", "--data", "data", "--port", str(port), "--http-port", "0", "--log-level", "warning")
        assert program.process.wait(60) == 1
    (line,) = program.output.read_text().splitlines()
    assert line.startswith(f"error: port {port} on 127.0.0.1 (setting port) is in use")
    assert not (program.data / "dev-credentials.json").exists()


def test_a_data_folder_in_use_is_one_line(launch) -> None:
    program = launch(*DEV)
    program.ready()
    before = program.output.read_text()
    second = launch(*DEV)
    assert second.process.wait(60) == 1
    said = second.output.read_text().removeprefix(before)
    assert said == "error: data folder data is in use by another Longwire process\n"


def test_settings_come_from_the_environment_and_the_file_as_well(launch, tmp_path: Path) -> None:
    (tmp_path / "longwire.toml").write_text('data_dir = "data"\nhttp_port = 0\n[limits]\nmax_inbox = 7\n')
    program = launch("dev", LONGWIRE_PORT="0")
    credentials = program.ready()
    headers = {"Authorization": f"Bearer {credentials['api_key']}"}
    answer = httpx.get(f"{credentials['http_url']}/v1/limits", headers=headers, verify=False)
    assert answer.json()["device"]["max_inbox"] == 7


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--port", "70000"), "error: port = 70000 (--port)"),
        (("--limit", "max_inbox"), "is not NAME=VALUE"),
        (("--limit", "max_inbux=3"), "did you mean limits.max_inbox?"),
        (("gone:app",), "module 'gone' of application 'gone:app' was not found"),
        (("--certificate", "gone.pem"), "certificate gone.pem does not load"),
    ],
)
def test_what_is_wrong_with_the_call_is_told_without_a_stack(run, words, said) -> None:
    outcome = run(*DEV, *words, "--log-level", "error")
    assert outcome.status in (1, 2)
    assert said in outcome.err
    assert "Traceback" not in outcome.err


def test_with_a_certificate_it_offers_tls_and_tells_where(launch, tmp_path: Path) -> None:
    make_certificate(tmp_path)
    program = launch(*DEV, "--certificate", "c.pem", "--certificate-key", "k.pem", "--tls-port", "0")
    credentials = program.ready()
    host, port = credentials["device_tls_address"].split(":")
    import ssl

    context = ssl.create_default_context(cafile=str(tmp_path / "c.pem"))
    with (
        socket.create_connection((host, int(port))) as plain,
        context.wrap_socket(plain, server_hostname="127.0.0.1") as line,
    ):
        assert line.version() in ("TLSv1.2", "TLSv1.3")


def make_certificate(folder: Path) -> None:
    import datetime as dt
    import ipaddress

    from cryptography import x509
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "127.0.0.1")])
    now = dt.datetime.now(dt.UTC)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(now - dt.timedelta(days=1))
        .not_valid_after(now + dt.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), True)
        .sign(key, hashes.SHA256())
    )
    (folder / "c.pem").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / "k.pem").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
