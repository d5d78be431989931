"""What ``deploy/`` says, held against the program: its settings, its flags, its services."""

import re
import shlex
from pathlib import Path

import pytest
import yaml
from pydantic import SecretStr
from typer.main import get_command

from longwire.app.settings import Settings, load
from longwire.cli.root import app

DEPLOY = Path(__file__).parents[2] / "deploy"
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
SECRET = "0123456789abcdef" * 2
ROLES = {"gateway", "api", "route", "sink"}


def variables(text: str) -> dict[str, str]:
    pairs = (line.split("=", 1) for line in text.splitlines() if line and not line.startswith("#"))
    return {name: value for name, value in pairs if name.startswith("LONGWIRE_")}


def flags_of(command: str) -> set[str]:
    found = get_command(app).commands[command]  # type: ignore[attr-defined]
    return {flag for parameter in found.params for flag in parameter.opts}


def test_the_environment_file_is_settings_of_a_cluster() -> None:
    given = variables((DEPLOY / "env/longwire.env").read_text())
    assert given.pop("LONGWIRE_CLUSTER_SECRET") == ""
    settings = load({}, given | {"LONGWIRE_CLUSTER_SECRET": SECRET}).settings
    assert settings.is_cluster
    assert settings.cluster_secret == SecretStr(SECRET)


def test_the_console_s_environment_file_is_settings_of_a_console_and_has_no_secret() -> None:
    given = variables((DEPLOY / "env/console.env").read_text())
    settings = load({"roles": "console"}, given).settings
    assert settings.console_url == "https://console.example.com"
    assert not [name for name in given if "SECRET" in name or "STORE" in name or "REDIS" in name]


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_a_unit_starts_a_command_with_flags_that_there_are(unit: Path) -> None:
    (line,) = re.findall(r"^ExecStart=(.+)$", unit.read_text(), re.MULTILINE)
    program, command, *words = shlex.split(line)
    assert program == "/opt/longwire/bin/longwire"
    assert {word for word in words if word.startswith("--")} <= flags_of(command)
    if "--roles" in words:
        assert words[words.index("--roles") + 1] in ROLES | {"console"}


def test_a_unit_waits_longer_than_its_node_needs_to_stop() -> None:
    drain_s = float(variables((DEPLOY / "env/longwire.env").read_text())["LONGWIRE_DRAIN_S"])
    (waits_s,) = re.findall(r"^TimeoutStopSec=(\d+)$", (DEPLOY / "systemd/longwire-gateway@.service").read_text(), re.M)
    assert int(waits_s) > drain_s + 15


def test_the_compose_file_has_every_role_with_settings_that_there_are() -> None:
    content = yaml.safe_load((DEPLOY / "compose/compose.yaml").read_text())
    services = content["services"]
    assert {*ROLES, "migrate", "nginx", "mariadb", "redis", "zookeeper", "kafka"} == services.keys()
    known = {f"LONGWIRE_{name.upper()}" for name in Settings.model_fields}
    for role in ROLES:
        service = services[role]
        assert service["environment"].keys() <= known
        assert f"--roles {role}" in service["command"][2]
        assert service["depends_on"]["migrate"]["condition"] == "service_completed_successfully"
    # By name alone: whose registry they come from is for whoever runs them.
    images = [service["image"] for service in services.values()]
    assert all(re.fullmatch(r"[a-z/]+(:[\d.]+)?", image) for image in images), images


def test_what_the_compose_file_changes_of_nginx_is_there_to_be_changed() -> None:
    for name, servers in (("http.conf", ("127.0.0.1:7380", "127.0.0.1:7300")), ("stream.conf", ("127.0.0.1:7300",))):
        text = (DEPLOY / "nginx" / name).read_text()
        assert all(text.count(f"server {server}") == 1 for server in servers)
    assert "stream_tls.conf" in (DEPLOY / "nginx/nginx.conf").read_text()
