"""Imports: what lines may say, what is refused, and that a job is done whatever happens to the process."""

import asyncio
import contextlib
import fcntl
import os
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from longwire.accounts import imports
from longwire.accounts.import_lines import CSV, MAX_LINE_BYTES, NDJSON
from longwire.accounts.imports import Imports
from longwire.accounts.refusals import Refused
from longwire.accounts.registration import Admission
from longwire.accounts.tokens import hash_of
from longwire.adapters.sql.audiences import SqlAudiences
from longwire.adapters.sql.imports import SqlImports
from longwire.errors import StoreUnavailable
from longwire.limits import Limits
from longwire.ports.accounts import NewDevice
from longwire.push_model import SetKind


async def pieces(text: str | bytes, size: int = 7) -> AsyncIterator[bytes]:
    content = text.encode() if isinstance(text, str) else text
    for at in range(0, len(content), size):
        yield content[at : at + size]


class Room:
    """The service with its folder, and a way to let it work until a job is done."""

    def __init__(self, house, folder: Path) -> None:
        self.house = house
        self.folder = folder
        self.sets = SqlAudiences(house.database)
        self.service = self.make()

    def make(self, *, is_shared: bool = False, **limits: int) -> Imports:
        store = SqlImports(self.house.database)
        return Imports(
            self.house.store,
            store,
            self.house.clock,
            Limits(**limits),
            self.folder,
            lambda _: asyncio.sleep(0),
            is_shared=is_shared,
        )

    async def until_done(self, import_id: bytes, service: Imports | None = None):
        service = service or self.service
        task = asyncio.create_task(service.run())
        async with asyncio.timeout(20):
            while (job := await service.find(import_id)).status == "running":
                await asyncio.sleep(0.005)
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        return job

    async def done(self, text: str | bytes, form: str):
        return await self.until_done((await self.service.take(pieces(text), form)).import_id)


@pytest.fixture
def room(house, tmp_path) -> Room:
    return Room(house, tmp_path / "imports")


async def test_a_csv_registers_its_devices_with_what_it_says_of_them(room) -> None:
    job = await room.done(
        'device_id,tags,user,platform\n"d-1",vip beijing,ann,ios\r\nd-2,,,\n\nd-3,"a  b",,"mac, os"', CSV
    )
    assert (job.status, job.lines, job.done, job.failed, job.errors) == ("completed", 5, 3, 0, ())
    assert job.ended_at_ms == room.house.clock.now_ms()
    one, two, three = await room.house.store.find_devices(["d-1", "d-2", "d-3"])
    assert (one.user, one.platform, two.user, three.platform) == ("ann", "ios", None, "mac, os")
    assert await room.sets.names_of([one.device_no, two.device_no, three.device_no], SetKind.TAG) == [
        ("beijing", "vip"),
        (),
        ("a", "b"),
    ]
    assert len(await room.sets.everyone()) == 3
    assert list(room.folder.iterdir()) == []


async def test_ndjson_registers_its_devices(room) -> None:
    job = await room.done('{"device_id": "d-1", "user": "ann", "tags": ["x"]}\n{"device_id":"d-2"}\n', NDJSON)
    assert (job.status, job.done, job.failed) == ("completed", 2, 0)
    assert (await room.house.store.find_devices(["d-1"]))[0].user == "ann"


BAD_NDJSON = [
    (b'{"device_id": "a b"}', "invalid-parameter", "device_id"),
    (b'{"device_id": "d", "user": ""}', "invalid-parameter", "user"),
    (b'{"device_id": "d", "tags": ["sys:x"]}', "invalid-parameter", "sys:"),
    (b'{"device_id": "d", "tags": [' + b",".join(b'"t%d"' % n for n in range(201)) + b"]}", "invalid-parameter", "201"),
    (b'{"device_id": "d", "platform": "a\\u0007"}', "invalid-parameter", "platform"),
    (b'{"device_id": 1}', "invalid-parameter", "device_id"),
    (b'{"user": "u"}', "invalid-parameter", "device_id"),
    (b'{"device_id": "d", "tagz": []}', "unknown-field", "tagz"),
    (b'{"device_id": "d"', "malformed-json", ""),
    (b'["d"]', "invalid-parameter", ""),
    (b'{"device_id": "\xff"}', "invalid-parameter", "UTF-8"),
    (b'{"device_id": "' + b"x" * MAX_LINE_BYTES + b'"}', "payload-too-large", str(MAX_LINE_BYTES)),
]


async def test_a_line_that_cannot_be_says_why_and_the_others_are_done(room) -> None:
    lines = [b'{"device_id": "first"}']
    for line, _, _ in BAD_NDJSON:
        lines += [line, b""]
    job = await room.done(b"\n".join([*lines, b'{"device_id": "last"}']), NDJSON)
    assert (job.status, job.done, job.failed) == ("completed", 2, len(BAD_NDJSON))
    assert [line for line, _, _ in job.errors] == [2 * n + 2 for n in range(len(BAD_NDJSON))]
    for (_, code, words), (_, found, detail) in zip(BAD_NDJSON, job.errors, strict=True):
        assert (found, words in detail) == (code, True), detail
    assert None not in await room.house.store.find_devices(["first", "last"])


async def test_lines_of_a_csv_must_have_the_headers_fields(room) -> None:
    job = await room.done('device_id,user\nd-1\nd-2,ann\nd-3,"ann\nd-4,a,b', CSV)
    assert [(line, code) for line, code, _ in job.errors] == [(n, "invalid-parameter") for n in (2, 4, 5)]
    assert job.done == 1


@pytest.mark.parametrize(
    "header", ["", "user,tags\n", "device_id,device_id\n", "device_id,colour\n", '"device_id\n', "\n"]
)
async def test_a_csv_without_a_header_is_refused_whole(room, header) -> None:
    with pytest.raises(Refused, match="line 1"):
        await room.service.take(pieces(header + "d-1"[: len(header)]), CSV)
    assert list(room.folder.iterdir()) == []
    assert (await room.service.page(b"", 10))[0] == []


async def test_more_lines_than_are_allowed_are_refused_and_not_kept(room) -> None:
    service = room.make(max_upload_ids=3)
    job = await service.take(pieces("device_id\na\nb\nc\n"), CSV)
    assert (await room.until_done(job.import_id, service)).done == 3
    with pytest.raises(Refused) as caught:
        await service.take(pieces("device_id\na\nb\nc\nd"), CSV)
    assert (caught.value.code, caught.value.more["limit"]) == ("payload-too-large", 3)
    assert list(room.folder.iterdir()) == []


async def test_a_job_goes_on_where_it_stood_after_a_restart(room, monkeypatch) -> None:
    """The third step fails; another process does the rest, and no line twice."""
    monkeypatch.setattr(imports, "_STEP_LINES", 10)
    job = await room.service.take(pieces("device_id\n" + "".join(f"d-{n}\n" for n in range(95)) + "no way\n"), CSV)
    steps = 0
    register = room.house.store.register

    async def dying(devices, now_ms):
        nonlocal steps
        steps += 1
        if steps == 3:
            raise asyncio.CancelledError
        return await register(devices, now_ms)

    monkeypatch.setattr(room.house.store, "register", dying)
    with pytest.raises(asyncio.CancelledError):
        await room.service.run()
    stood = await room.service.find(job.import_id)
    assert (stood.status, stood.lines, stood.done) == ("running", 20, 19)
    (room.folder / "orphan").write_text("of a crash")
    os.utime(room.folder / "orphan", (0, 0))
    done = await room.until_done(job.import_id, room.make())
    assert (done.status, done.lines, done.done, done.failed) == ("completed", 97, 95, 1)
    assert [line for line, _, _ in done.errors] == [97]
    assert len(await room.sets.everyone()) == 95
    assert list(room.folder.iterdir()) == []


async def test_a_store_that_is_away_is_waited_for(room, monkeypatch) -> None:
    job = await room.service.take(pieces("device_id\nd-1"), CSV)
    register, failures = room.house.store.register, 3

    async def away(devices, now_ms):
        nonlocal failures
        failures -= 1
        if failures >= 0:
            raise StoreUnavailable("away")
        return await register(devices, now_ms)

    monkeypatch.setattr(room.house.store, "register", away)
    assert (await room.until_done(job.import_id)).done == 1


async def test_a_file_that_is_gone_fails_its_job_and_not_the_others(room) -> None:
    first = await room.service.take(pieces("device_id\nd-1"), CSV)
    second = await room.service.take(pieces("device_id\nd-2"), CSV)
    (room.folder / first.import_id.hex()).unlink()
    assert (await room.until_done(second.import_id)).status == "completed"
    assert (await room.service.find(first.import_id)).status == "failed"


async def test_a_job_that_another_process_does_is_left_to_it(room) -> None:
    first = await room.service.take(pieces("device_id\nd-1"), CSV)
    second = await room.service.take(pieces("device_id\nd-2"), CSV)
    with (room.folder / first.import_id.hex()).open("rb") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        assert (await room.until_done(second.import_id)).status == "completed"
        assert (await room.service.find(first.import_id)).status == "running"
    assert (await room.until_done(first.import_id)).status == "completed"


async def test_jobs_whose_files_are_elsewhere_are_left_to_those_who_have_them(room) -> None:
    first = await room.service.take(pieces("device_id\nd-1"), CSV)
    elsewhere = Room(room.house, room.folder.parent / "elsewhere")
    elsewhere.service = elsewhere.make(is_shared=True)
    second = await elsewhere.service.take(pieces("device_id\nd-2"), CSV)
    assert (await elsewhere.until_done(second.import_id)).status == "completed"
    assert (await room.service.find(first.import_id)).status == "running"
    assert (await room.until_done(first.import_id)).status == "completed"


async def test_a_file_that_is_being_written_is_no_orphan(room) -> None:
    await room.done("device_id\nd-1", CSV)
    (room.folder / "new").touch()
    await room.done("device_id\nd-2", CSV)
    async with asyncio.timeout(20):
        while [path.name for path in room.folder.iterdir()] != ["new"]:
            await asyncio.sleep(0.01)  # a file goes right behind its job's end


async def test_only_the_first_thousand_faults_are_kept(room) -> None:
    job = await room.done("device_id\n" + "a b\n" * 1_500, CSV)
    assert (job.failed, len(job.errors), job.errors[-1][0]) == (1_500, 1_000, 1_001)


async def test_a_device_that_would_have_too_many_tags_is_told_by_its_line(room) -> None:
    many = " ".join(f"t{n}" for n in range(200))
    await room.done(f"device_id,tags\nd-1,{many}", CSV)
    job = await room.done("device_id,tags\nd-0,x\nd-1,more\nd-2,x", CSV)
    assert (job.done, job.failed, [line for line, _, _ in job.errors]) == (2, 1, [3])


async def test_an_imported_device_is_claimed_once_by_the_applications_key(room) -> None:
    """The second to come needs the refresh token, as for any device that is known."""
    house = room.house
    await room.done("device_id,user,tags\nd-1,ann,vip", CSV)
    first = await house.registration.register(house.claim("d-1", "n-1", platform="ios"))
    assert (first.is_new, first.device.user, first.device.platform) == (False, "ann", "ios")
    assert (await house.tokens.authenticate(first.token)).device_id == "d-1"
    with pytest.raises(Refused, match="refresh token is needed"):
        await house.registration.register(house.claim("d-1", "n-2"))
    again = await house.registration.register(house.claim("d-1", "n-3", refresh_token=first.refresh_token))
    assert again.device.device_no == first.device.device_no
    await room.done("device_id\nd-1", CSV)
    with pytest.raises(Refused, match="refresh token is needed"):
        await house.registration.register(house.claim("d-1", "n-4"))


async def test_of_those_who_claim_an_imported_device_at_once_one_gets_it(room) -> None:
    await room.done("device_id\nd-1", CSV)
    house = room.house
    claims = [house.registration.register(house.claim("d-1", f"n-{n}")) for n in range(20)]
    outcomes = await asyncio.gather(*claims, return_exceptions=True)
    assert sum(not isinstance(outcome, Exception) for outcome in outcomes) == 1
    assert sum(isinstance(outcome, Refused) for outcome in outcomes) == 19


async def test_the_applications_judgement_sees_an_imported_device_as_new(room) -> None:
    await room.done("device_id,user\nd-1,ann", CSV)
    asked = []

    async def judge(applicant):
        asked.append(applicant)
        return Admission()

    done = await room.house.registering(authenticate=judge).register(room.house.claim("d-1"))
    assert (asked[0].is_known, done.device.user) == (False, "ann")


async def test_revoking_an_unclaimed_device_keeps_it_from_being_claimed(room) -> None:
    await room.done("device_id\nd-1", CSV)
    await room.house.devices.revoke("d-1")
    with pytest.raises(Refused, match="refresh token is needed"):
        await room.house.registration.register(room.house.claim("d-1"))


async def test_an_import_gives_no_token_and_takes_none(room) -> None:
    store = room.house.store
    made = await store.register([NewDevice("d-1", hash_of("t"), 2**50, None)], 1)
    await room.done("device_id,user\nd-1,ann\nd-2,", CSV)
    assert (await store.check_tokens([hash_of("t"), b"\0" * 32], 1))[0].device_no == made[0][0].device_no
    count = await room.house.database.read(lambda c: c.exec_driver_sql("SELECT COUNT(*) FROM tokens").scalar())
    assert count == 1
