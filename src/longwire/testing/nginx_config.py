"""``deploy/nginx`` as one text for ``engines.Nginx``: the files as they stand, with other ports and addresses.

Its ports: 0 is HTTP, 1 the device port, 2 the device port with TLS where there is a certificate.
"""

import re
from collections.abc import Callable, Sequence
from pathlib import Path

FOLDER = Path(__file__).parents[3] / "deploy" / "nginx"

_TLS = "stream_tls.conf"
_INCLUDE = re.compile(r"^ *include (\w+\.conf);\n", re.MULTILINE)
_LISTENS = {"80": "@PORT0@", "7300": "@PORT1@", "7301": "@PORT2@"}


def nginx_config(
    apis: Sequence[str], nodes: Sequence[str], certificate: tuple[Path | str, Path | str] | None = None
) -> str:
    """For these apis and nodes (``host:port``), on loopback. ``certificate``: chain and key, both PEM."""

    def content(found: re.Match[str]) -> str:
        return "" if found[1] == _TLS and certificate is None else (FOLDER / found[1]).read_text()

    text = _INCLUDE.sub(content, (FOLDER / "nginx.conf").read_text())
    for upstream, servers in (("api", apis), ("websockets", nodes), ("devices", nodes)):
        head = rf"upstream longwire_{upstream} {{[^}}]*?"
        text = _replaced(rf"({head}) *server \S+( [^;]*;\n)", _each(servers), text)
    for written, port in _LISTENS.items():
        if port != "@PORT2@" or certificate is not None:
            text = _replaced(rf"listen {written}([ ;])", rf"listen 127.0.0.1:{port}\1", text)
    if certificate is not None:
        text = _replaced(r"certificate chain\.pem", f"certificate {certificate[0]}", text)
        text = _replaced(r"certificate_key key\.pem", f"certificate_key {certificate[1]}", text)
    return text


def _each(servers: Sequence[str]) -> Callable[[re.Match[str]], str]:
    return lambda found: found[1] + "".join(f"    server {one}{found[2]}" for one in servers)


def _replaced(pattern: str, by: str | Callable[[re.Match[str]], str], text: str) -> str:
    made, count = re.subn(pattern, by, text)
    if count != 1:
        raise ValueError(f"deploy/nginx has {pattern!r} {count} times, not once")
    return made
