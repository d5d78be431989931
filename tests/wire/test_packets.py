"""The packets' table, against PROTOCOL §2."""

import msgspec
import pytest

from longwire.wire.packets import FROM_DEVICE, FROM_NODE, Ack, AnyPacket, Command, Received, Send

BOTH = {Command.PING, Command.PONG, Command.CLOSE, Command.REQUEST, Command.REPLY}
OF_DEVICE = {
    Command.CONNECT,
    Command.RENEW,
    Command.SEND,
    Command.ACK,
    Command.SUBSCRIBE,
    Command.UNSUBSCRIBE,
}


def test_every_command_has_one_packet_and_comes_from_its_sides() -> None:
    assert [kind.command for kind in FROM_DEVICE] == sorted(OF_DEVICE | BOTH)
    assert sorted(kind.command for kind in FROM_NODE) == sorted(set(Command) - OF_DEVICE)


@pytest.mark.parametrize("kind", dict.fromkeys(FROM_DEVICE + FROM_NODE))
def test_fields_with_a_default_stand_at_the_end(kind: type[AnyPacket]) -> None:
    required = [field.required for field in msgspec.structs.fields(kind)]
    assert required == sorted(required, reverse=True)


def test_an_ack_has_no_further_handles_unless_told() -> None:
    assert Ack().handles == []
    assert Ack().handles is not Ack().handles


@pytest.mark.parametrize(("flags", "wanted"), [(0, False), (2, True), (4, False), (6, True)])
def test_a_receipt_is_wanted_where_flag_2_says_so(flags: int, wanted: bool) -> None:
    assert Received(Command.SEND, flags, 0, Send(b"", "", "", b"")).wants_receipt is wanted
