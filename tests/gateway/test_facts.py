"""What a node's facts say of its connections, however they come and go."""

from raw_peer import FLAVOURS

from longwire.net.connection import Flavour


async def test_sessions_are_counted_by_transport_through_takeovers_and_ends(house) -> None:
    await house.register("d-1")
    counters = house.node.facts.counters
    assert counters.connected == [0, 0, 0]
    for flavour in FLAVOURS:
        peer = await house.device("d-1", flavour)
        await house.until(lambda: sum(counters.connected) == 1)
    assert counters.connects == counters.handshake_ms.total == len(FLAVOURS)
    await peer.drop()
    await house.until(lambda: counters.connected == [0] * len(Flavour))


async def test_a_connection_that_never_proved_itself_is_in_no_count_of_sessions(house, flavour) -> None:
    stranger = await house.peer(flavour)
    await house.until(lambda: len(house.node.facts.port.open) == 1)
    await stranger.drop()
    await house.until(lambda: not house.node.facts.port.open)
    assert house.node.facts.counters.connected == [0, 0, 0]


async def test_the_watch_keeps_how_late_the_loop_was(house) -> None:
    watch = house.node.facts.watch
    watch.start()
    await house.until(lambda: watch.lag.total > 3)
    assert watch.longest_s >= 0
