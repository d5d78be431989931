"""The data folder and the certificates that settings name."""

import datetime as dt
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from longwire.adapters.sql.sqlite import SqliteDatabase
from longwire.app.doctor import certificates, files
from longwire.app.doctor.report import State

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)


# -- the data folder --------------------------------------------------------------------------------------------------


def test_a_folder_that_is_not_made_yet_is_looked_at_where_it_will_be(tmp_path: Path) -> None:
    room, sync, store = files.look(tmp_path / "a" / "b", has_store=True)
    assert (room.state, sync.state, store.fact) == (State.OK, State.OK, "not made yet")
    assert "made at the first start" in room.fact
    assert list(tmp_path.iterdir()) == []


async def test_a_store_is_read_beside_the_process_that_has_it_open(tmp_path: Path) -> None:
    database = SqliteDatabase(tmp_path)
    await database.start()
    try:
        finding = files.store(tmp_path / "longwire.db")
    finally:
        await database.stop()
    assert finding.state is State.OK
    assert "journal wal" in finding.fact


def test_a_store_that_is_none_fails(tmp_path: Path) -> None:
    (tmp_path / "longwire.db").write_bytes(b"not a database" * 100)
    assert files.store(tmp_path / "longwire.db").state is State.FAILURE


def test_a_folder_that_cannot_be_written_to_fails() -> None:
    assert files.sync_time(Path("/proc")).state is State.FAILURE


# -- certificates -----------------------------------------------------------------------------------------------------


def made(folder: Path, name: str, *, days: float, begun: float = -1) -> tuple[Path, Path]:
    """A chain and its key that end so many days from NOW."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW + timedelta(days=begun))
        .not_valid_after(NOW + timedelta(days=days))
        .sign(key, hashes.SHA256())
    )
    chain, private = folder / f"{name}.pem", folder / f"{name}.key"
    chain.write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    private.write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return chain, private


@pytest.mark.parametrize(
    ("days", "state"), [(90, State.OK), (29, State.WARNING), (2, State.FAILURE), (-0.5, State.FAILURE)]
)
def test_a_certificate_is_told_of_before_it_ends(tmp_path: Path, days: float, state: State) -> None:
    chain, key = made(tmp_path, "one", days=days)
    ends, matches = certificates.look("certificate", chain, key, NOW)
    assert (ends.state, matches.state) == (state, State.OK)
    assert f"{NOW + timedelta(days=days):%Y-%m-%d}" in ends.fact


def test_a_certificate_that_has_not_begun_fails(tmp_path: Path) -> None:
    chain, _ = made(tmp_path, "one", days=90, begun=1)
    assert certificates.dates("certificate", chain, NOW).state is State.FAILURE


def test_of_a_chain_the_first_end_counts(tmp_path: Path) -> None:
    one, _ = made(tmp_path, "one", days=300)
    two, _ = made(tmp_path, "two", days=10)
    one.write_bytes(one.read_bytes() + two.read_bytes())
    assert certificates.dates("certificate", one, NOW).state is State.WARNING


def test_a_key_of_another_certificate_fails(tmp_path: Path) -> None:
    chain, _ = made(tmp_path, "one", days=90)
    _, key = made(tmp_path, "two", days=90)
    _, matches = certificates.look("certificate", chain, key, NOW)
    assert matches.state is State.FAILURE
    assert "KEY_VALUES_MISMATCH" in matches.fact


@pytest.mark.parametrize("content", [b"", b"-----BEGIN CERTIFICATE-----\nMAA=\n-----END CERTIFICATE-----\n", b"\xff"])
def test_a_file_that_is_no_certificate_fails(tmp_path: Path, content: bytes) -> None:
    chain = tmp_path / "chain.pem"
    chain.write_bytes(content)
    assert {finding.state for finding in certificates.look("certificate", chain, None, NOW)} == {State.FAILURE}


def test_a_certificate_that_is_not_there_fails(tmp_path: Path) -> None:
    found = list(certificates.look("certificate", tmp_path / "none.pem", None, NOW))
    assert {finding.state for finding in found} == {State.FAILURE}
    assert "No such file" in found[0].fact


def test_years_beyond_2050_are_read(tmp_path: Path) -> None:
    chain, _ = made(tmp_path, "one", days=20_000)
    holds = certificates.dates("certificate", chain, NOW)
    assert f"{NOW + dt.timedelta(days=20_000):%Y-%m-%d}" in holds.fact
