"""The certificates that the settings name: whether they load, match their keys, and how long they hold."""

import re
import ssl
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path

from longwire.app.doctor.report import Finding, failure, ok, warning

AREA = "certificates"
_WARN_DAYS = 30
_FAIL_DAYS = 3
_PEM = re.compile(r"-----BEGIN CERTIFICATE-----.+?-----END CERTIFICATE-----", re.DOTALL)
_SEQUENCE, _VERSION, _UTC_TIME = 0x30, 0xA0, 0x17


def look(setting: str, chain: Path, key: Path | None, now: datetime) -> Iterator[Finding]:
    """A server's chain and its key; the key may stand in the chain's file."""
    yield dates(setting, chain, now)
    name = f"key of {setting}"
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        # A key with a passphrase would ask for it on the terminal.
        context.load_cert_chain(chain, key, password=lambda: "")
    except (OSError, ValueError) as error:  # ssl.SSLError is an OSError
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or type(error).__name__
        place = f"{chain}" if key is None else f"{chain} and {key}"
        yield failure(AREA, name, f"{place} do not load: {reason}", f"set {setting} and {setting}_key to a pair in PEM")
    else:
        yield ok(AREA, name, "matches")


def dates(setting: str, chain: Path, now: datetime) -> Finding:
    """How long every certificate of a file holds."""
    try:
        holds = [validity(ssl.PEM_cert_to_DER_cert(pem)) for pem in _PEM.findall(chain.read_text("ascii"))]
    except OSError as error:
        return failure(AREA, setting, f"{chain}: {error.strerror}", f"set {setting} to a PEM file that can be read")
    except (ValueError, IndexError):
        return failure(AREA, setting, f"{chain} is not PEM", f"set {setting} to a chain in PEM")
    if not holds:
        return failure(AREA, setting, f"{chain} has no certificate in it", f"set {setting} to a chain in PEM")
    begin, end = max(begin for begin, _ in holds), min(end for _, end in holds)
    days = (end - now).total_seconds() / 86_400
    fact = f"{chain}: until {end:%Y-%m-%d %H:%M} UTC"
    command = f"openssl x509 -in {chain} -noout -subject -dates"
    if begin > now:
        return failure(AREA, setting, f"{chain}: not before {begin:%Y-%m-%d %H:%M} UTC", "look at the clock", command)
    if days < 0:
        return failure(AREA, setting, f"{fact}: it has ended", "renew it", command)
    fact = f"{fact}, {days:.0f} days"
    if days < _FAIL_DAYS:
        return failure(AREA, setting, fact, "renew it now", command)
    if days < _WARN_DAYS:
        return warning(AREA, setting, fact, "renew it", command)
    return ok(AREA, setting, fact)


def validity(certificate: bytes) -> tuple[datetime, datetime]:
    """The dates in a certificate (RFC 5280, 4.1): DER down to ``validity``. Raises ValueError, IndexError.

    Certificate { tbsCertificate { [0] version?, serial, signature, issuer, validity { notBefore, notAfter } … } … }
    """
    tag, outer, _ = _element(certificate, 0)
    if tag != _SEQUENCE:
        raise ValueError("not a certificate")
    _, body, _ = _element(outer, 0)
    at = 0
    if body[0] == _VERSION:
        _, _, at = _element(body, at)
    for _ in ("serial", "signature", "issuer"):
        _, _, at = _element(body, at)
    _, dates, _ = _element(body, at)
    tag, begin, at = _element(dates, 0)
    tag_end, end, _ = _element(dates, at)
    return _time(tag, begin), _time(tag_end, end)


def _element(data: bytes, at: int) -> tuple[int, bytes, int]:
    """(tag, content, where the next one begins)."""
    tag, size, at = data[at], data[at + 1], at + 2
    if size & 0x80:
        digits = size & 0x7F
        size, at = int.from_bytes(data[at : at + digits], "big"), at + digits
    return tag, data[at : at + size], at + size


def _time(tag: int, content: bytes) -> datetime:
    text = content.decode("ascii")
    if tag == _UTC_TIME:  # two digits of the year: 1950 to 2049
        text = ("19" if text >= "50" else "20") + text
    return datetime.strptime(text, "%Y%m%d%H%M%SZ").replace(tzinfo=UTC)
