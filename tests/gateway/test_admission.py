"""Who may connect now: how many, how fast, and how many from one address."""

import asyncio

from longwire.gateway.admission import Admission
from longwire.gateway.counters import Counters
from longwire.limits import Limits
from longwire.net.connection import DevicePort
from longwire.net.trusted import TrustedProxies
from longwire.net.wheel import Wheel
from longwire.reasons import CloseCode
from longwire.testing import ManualClock
from longwire.wire.packets import Connect


class FromAddress:
    """A transport as far as admission looks at it."""

    def __init__(self, address: object) -> None:
        self.address = address

    def get_extra_info(self, name: str) -> object:
        return self.address


class Someone:
    """A connection as far as admission looks at it."""


def judge(limits: Limits, clock: ManualClock | None = None) -> Admission:
    clock = clock or ManualClock()
    port: DevicePort = DevicePort(None, Wheel(clock.monotonic), limits)  # type: ignore[arg-type]
    return Admission(port, clock, limits, Counters())


async def test_beyond_the_limit_a_connection_is_told_to_come_back_at_a_random_moment(houses, flavour) -> None:
    house = await houses(max_connections=3).start()
    for n in range(3):
        await house.device(f"d-{n}", flavour)
    waits = set()
    for _ in range(6):
        peer = await house.peer()
        peer.send(Connect("t-d-0", "d-0"), 1)
        close = await peer.ended()
        assert close.code == CloseCode.OVERLOADED
        assert close.may_reconnect
        assert "3" in close.reason
        waits.add(close.retry_after_ms)
        await house.until(lambda: len(house.node.device_port.open) == 3)
    assert len(waits) > 1
    assert house.node.counters.shed == 6
    await house.peers[0].drop()
    await house.until(lambda: len(house.node.device_port.open) == 2)
    await house.device("d-0", flavour)


async def test_beyond_the_rate_connections_are_shed_until_time_has_passed(houses) -> None:
    house = await houses(accept_per_s=4).start()
    await house.register("d-1")
    outcomes = []
    for _ in range(6):
        peer = await house.peer()
        peer.send(Connect("t-d-1", "d-1"), 1)
        outcomes.append(type((await peer.next()).packet).__name__)
    assert outcomes == ["Connected"] * 4 + ["Close"] * 2
    house.clock.advance(0.25)
    await house.device("d-1")


async def test_limits_of_an_address_do_not_apply_to_loopback(houses) -> None:
    house = await houses(max_connections_per_address=1).start()
    for n in range(5):
        await house.device(f"d-{n}")
    assert not house.node.device_port.address_counts


def test_an_address_has_its_limit_and_gets_room_back() -> None:
    admission = judge(Limits(max_connections_per_address=2))
    port, ours = admission._port, [Someone() for _ in range(4)]
    assert [admission.judge(one, FromAddress(("10.0.0.1", 5))) is None for one in ours[:3]] == [True, True, False]
    assert admission.judge(ours[3], FromAddress(("10.0.0.2", 5))) is None
    code, reason = admission.judge(Someone(), FromAddress(("10.0.0.1", 6)))
    assert code is CloseCode.OVERLOADED
    assert "2" in reason
    port.forget(ours[0])
    port.forget(ours[0])
    assert admission.judge(Someone(), FromAddress(("10.0.0.1", 7))) is None
    for one in ours:
        port.forget(one)
    assert port.address_counts["10.0.0.1"] == 1
    assert "10.0.0.2" not in port.address_counts


def test_a_client_behind_a_trusted_proxy_is_judged_by_its_own_address() -> None:
    admission = judge(Limits(max_connections_per_address=1))
    port, proxy = admission._port, FromAddress(("10.0.0.1", 5))
    port.trusted_proxies = TrustedProxies(["10.0.0.1"])
    ours = [Someone() for _ in range(4)]
    for one in ours[:3]:
        port.client_addresses[one] = "192.0.2.7"
    assert admission.judge(ours[0], proxy) is None
    assert admission.judge(ours[1], proxy) is not None
    # The address may be learned after the connection was let in; the proxy's own was not counted.
    assert admission.judge(ours[3], proxy) is None
    assert admission.judge(Someone(), proxy) is None
    refusal = admission.judge_client(ours[2], "192.0.2.7")
    assert refusal is not None
    assert refusal[0] is CloseCode.OVERLOADED
    assert admission._counters.shed == 2
    assert admission.judge_client(ours[3], "192.0.2.8") is None
    for one in ours:
        port.forget(one)
    assert not port.address_counts
    assert not port.client_addresses
    assert judge(Limits()).judge_client(Someone(), "192.0.2.7") is None


def test_addresses_of_version_6_and_none_are_understood() -> None:
    admission = judge(Limits(max_connections_per_address=1))
    assert admission.judge(Someone(), FromAddress(("fe80::1%eth0", 5, 0, 2))) is None
    assert admission.judge(Someone(), FromAddress(("fe80::1%eth0", 6, 0, 2))) is not None
    for address in ("", None, ("::1", 5, 0, 0), ("127.9.9.9", 5)):
        for _ in range(3):
            assert admission.judge(Someone(), FromAddress(address)) is None


def test_the_rate_allows_a_burst_of_a_second_and_no_more_after_an_hour() -> None:
    clock = ManualClock()
    admission = judge(Limits(accept_per_s=10), clock)
    someone = FromAddress(("10.0.0.1", 1))
    assert sum(admission.judge(Someone(), someone) is None for _ in range(30)) == 10
    clock.advance(3_600)
    assert sum(admission.judge(Someone(), someone) is None for _ in range(30)) == 10
    assert admission._counters.shed == 40


def test_a_node_that_drains_takes_nobody_and_says_so() -> None:
    admission = judge(Limits())
    admission.is_draining = True
    refusal = admission.judge(Someone(), FromAddress(("10.0.0.1", 1)))
    assert refusal is not None
    assert refusal[0] is CloseCode.DRAINING


async def test_a_thousand_that_say_nothing_leave_after_the_deadline(house) -> None:
    connections = await asyncio.gather(
        *(asyncio.open_connection("127.0.0.1", house.node.port_number) for _ in range(1_000))
    )
    await house.until(lambda: len(house.node.device_port.open) == 1_000)
    await (await house.device("d-1")).ping()
    await house.pass_time(6)
    await house.until(lambda: len(house.node.device_port.open) == 1)
    for _, writer in connections:
        writer.transport.abort()
