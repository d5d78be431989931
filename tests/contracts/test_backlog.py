"""What waits, counted on every database."""

from longwire.adapters.sql.backlog import SqlBacklog
from longwire.adapters.sql.tables import dead_letters, events, inbox, messages
from longwire.ids import new_message_id


async def test_an_empty_store_has_nothing_that_waits(pushing) -> None:
    found = await SqlBacklog(pushing.database, pushing.clock).look()
    assert found == (pushing.clock.now_ms(), 0, None, 0, 0, 0)


async def test_each_kind_is_counted_and_the_oldest_is_told(pushing) -> None:
    await pushing.push([1, 2, 3])
    ended = await pushing.push([1])
    await pushing.send(ended, [1])
    await pushing.ack(ended, [1])

    def message(seq: int, sent_at_ms: int) -> dict[str, object]:
        return {
            "seq": seq,
            "sender_no": 1,
            "message_id": new_message_id(),
            "sender": "device:a",
            "to": "device:b",
            "kind": "k",
            "payload": b"",
            "collapse_key": "",
            "sent_at_ms": sent_at_ms,
            "expires_at_ms": 9_000,
            "trace": b"",
        }

    def letter(replayed_at_ms: int | None) -> dict[str, object]:
        return {
            "consumer": "app",
            "offset": 1,
            "device_no": 1,
            "device_id": "a",
            "message_id": new_message_id(),
            "kind": "k",
            "payload": b"",
            "sent_at_ms": 1,
            "trace": b"",
            "error": "e",
            "buried_at_ms": 2,
            "replayed_at_ms": replayed_at_ms,
        }

    waiting = [{"device_no": no, "seq": seq, "expires_at_ms": 9_000} for no, seq in ((9, 5), (1, 6), (2, 6))]
    event = {"webhook_no": 0, "kind": "device.online", "at_ms": 1, "device_no": 1, "body": b"{}"}
    rows = (
        (messages, [message(5, 1_000), message(6, 2_000)]),
        (inbox, waiting),
        (dead_letters, [letter(None) | {"letter_no": 1}, letter(3) | {"letter_no": 2}]),
        (events, [event | {"event_no": 1}, event | {"event_no": 2}]),
    )

    def fill(connection) -> None:
        for table, wanted in rows:
            connection.execute(table.insert(), wanted).close()

    await pushing.database.write(fill)
    found = await SqlBacklog(pushing.database, pushing.clock).look()
    assert (found.inbox, found.oldest_ms, found.push_pending) == (3, 1_000, 3)
    assert (found.webhook_events, found.dead_letters) == (2, 1)
