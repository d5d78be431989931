"""The registry on a real ZooKeeper: what other processes see, also while ZooKeeper is not well."""

import asyncio
import shutil
import signal
import subprocess
import sys
import time

import msgspec
import pytest
from members import Cluster, Member, node, until

from longwire.adapters.zookeeper.client import ZooKeeperClient
from longwire.errors import RegistryUnavailable
from longwire.testing.engines import free_ports

SILENT = """
import asyncio, sys
from longwire.adapters.zookeeper.client import ZooKeeperClient
from longwire.adapters.zookeeper.registry import ZooKeeperRegistry
from longwire.clock import SystemClock
from longwire.model import NodeInfo

async def main(hosts, base, *names):
    client = ZooKeeperClient(hosts, session_timeout_s=1.0)
    registry = ZooKeeperRegistry(client, SystemClock(), base=base)
    await client.start()
    await registry.start()
    for name in names:
        await registry.register(NodeInfo(name, "h", 1, None, "ws://h:1/ws"))
    print("registered", flush=True)
    await asyncio.to_thread(sys.stdin.read)   # ends with whoever started it

asyncio.run(main(*sys.argv[1:]))
"""


class Elsewhere:
    """Another operating system process that has registered ``names``."""

    def __init__(self, cluster: Cluster, *names: str) -> None:
        command = [sys.executable, "-c", SILENT, cluster.engine.hosts, cluster.base, *names]
        self.process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)

    async def __aenter__(self) -> subprocess.Popen[bytes]:
        assert self.process.stdout is not None
        assert await asyncio.to_thread(self.process.stdout.readline) == b"registered\n"
        return self.process

    async def __aexit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()


async def test_processes_see_each_others_nodes_and_their_figures(cluster: Cluster) -> None:
    one, other = await cluster.join(), await cluster.join()
    await one.registry.register(node("a~1", weight=2.0, capacity=100, internal_url="http://h:7381", link_version=2))
    await other.registry.register(node("b~1"))
    await until(lambda: one.ids == other.ids == {"a~1", "b~1"})
    one.registry.update(node("a~1", connections=7, cpu_share=0.25, loop_lag_ms=1.5))
    await until(lambda: node("a~1", connections=7, cpu_share=0.25, loop_lag_ms=1.5) in other.registry.nodes())
    await one.registry.leave("a~1")
    await until(lambda: other.ids == {"b~1"})


async def test_of_many_updates_the_last_is_what_others_see(cluster: Cluster) -> None:
    one, other = await cluster.join(), await cluster.join()
    await one.registry.register(node("a~1"))
    for count in range(500):
        one.registry.update(node("a~1", connections=count))
    await until(lambda: other.registry.nodes() == [node("a~1", connections=499)])


async def test_who_joins_later_finds_all_that_live(cluster: Cluster) -> None:
    one = await cluster.join()
    for count in range(20):
        await one.registry.register(node(f"n{count}~1"))
    assert len((await cluster.join()).ids) == 20


async def test_a_killed_process_is_off_the_list_when_its_session_ends(cluster: Cluster) -> None:
    watcher = await cluster.join()
    await watcher.registry.register(node("a~1"))
    changes: list[set[str]] = []
    watcher.registry.on_change(lambda: changes.append(watcher.ids))
    async with Elsewhere(cluster, "b~1") as process:
        await until(lambda: watcher.ids == {"a~1", "b~1"})
        process.kill()
        await until(lambda: watcher.ids == {"a~1"})
    assert changes == [{"a~1", "b~1"}, {"a~1"}]


async def test_a_process_that_was_paused_past_its_session_is_listed_again(cluster: Cluster) -> None:
    watcher = await cluster.join()
    await watcher.registry.register(node("a~1"))
    async with Elsewhere(cluster, "b~1") as process:
        await until(lambda: watcher.ids == {"a~1", "b~1"})
        process.send_signal(signal.SIGSTOP)
        await until(lambda: watcher.ids == {"a~1"})
        process.send_signal(signal.SIGCONT)
        await until(lambda: watcher.ids == {"a~1", "b~1"})


async def test_most_nodes_gone_at_once_stay_listed_until_it_is_confirmed(cluster: Cluster) -> None:
    watcher = await cluster.join(confirm_after_s=2.0)
    await watcher.registry.register(node("a~1"))
    fresh = await cluster.join()
    async with Elsewhere(cluster, "b~1", "c~1", "d~1") as process:
        await until(lambda: len(watcher.ids) == 4)
        process.kill()
        await until(lambda: watcher.registry._view.is_doubting)
        began = time.monotonic()
        assert len(watcher.ids) == 4
        await until(lambda: fresh.ids == {"a~1"})
        await until(lambda: watcher.ids == {"a~1"})
    assert time.monotonic() - began >= 1.5


async def test_a_lost_session_is_followed_by_a_new_one_with_its_nodes(cluster: Cluster) -> None:
    one, other = await cluster.join(), await cluster.join()
    await one.registry.register(node("a~1"))
    await until(lambda: other.ids == {"a~1"})
    before = one.client.session_id
    one.lose_session()
    await until(lambda: one.client.session_id not in (0, before))
    one.registry.update(node("a~1", connections=3))
    await until(lambda: other.registry.nodes() == [node("a~1", connections=3)])
    assert one.ids == {"a~1"}


async def test_a_node_that_somebody_deletes_is_listed_again(cluster: Cluster) -> None:
    one = await cluster.join()
    await one.registry.register(node("a~1"))
    await one.client.call("delete", f"{cluster.base}/nodes/a~1")
    made: list[object] = []
    while not made:
        made = await one.client.call("get_children", f"{cluster.base}/nodes")
    assert one.ids == {"a~1"}


async def test_rubbish_and_later_releases_in_the_list_harm_nobody(cluster: Cluster) -> None:
    one = await cluster.join()
    later = msgspec.json.encode({**msgspec.to_builtins(node("c~1")), "colour": "green"})
    for name, data in {"a~1": b"\xff", "b~1": b"{}", "d~1": later, "c~1": later}.items():
        await one.client.call("create", f"{cluster.base}/nodes/{name}", data)
    await until(lambda: one.ids == {"c~1"})
    await one.client.call("set", f"{cluster.base}/nodes/c~1", b"rubbish")
    await one.client.call("set", f"{cluster.base}/nodes/a~1", msgspec.json.encode(node("a~1")))
    await until(lambda: one.ids == {"a~1", "c~1"})


# -- ZooKeeper is not well -------------------------------------------------------------------------------------------


async def away(member: Member) -> None:
    await until(lambda: member.registry.stale_since_ms is not None)


async def back(*members: Member) -> None:
    await until(lambda: all(member.registry.stale_since_ms is None for member in members), 30.0)


@pytest.mark.parametrize("how", ["stopped", "killed", "frozen"])
async def test_while_zookeeper_is_away_the_last_known_nodes_stay_and_are_marked_stale(fragile: Cluster, how) -> None:
    one, other = await fragile.join(confirm_after_s=5.0), await fragile.join(confirm_after_s=5.0)
    await one.registry.register(node("a~1"))
    await other.registry.register(node("b~1"))
    await until(lambda: one.ids == other.ids == {"a~1", "b~1"})
    seen: list[set[str]] = []
    one.registry.on_change(lambda: seen.append(one.ids))
    engine = fragile.engine
    {"stopped": engine.stop, "killed": engine.kill, "frozen": engine.freeze}[how]()
    await away(one)
    await away(other)
    assert one.ids == other.ids == {"a~1", "b~1"}
    one.registry.update(node("a~1", connections=9))
    assert node("a~1", connections=9) in one.registry.nodes()
    engine.thaw() if how == "frozen" else engine.restart()
    await back(one, other)
    await until(lambda: node("a~1", connections=9) in other.registry.nodes())
    assert one.ids == other.ids == {"a~1", "b~1"}
    assert seen == []


async def test_a_zookeeper_that_lost_everything_is_told_everything_again(fragile: Cluster) -> None:
    members = [await fragile.join(confirm_after_s=5.0) for _ in range(4)]
    for count, member in enumerate(members):
        await member.registry.register(node(f"n{count}~1"))
    everyone = {f"n{count}~1" for count in range(4)}
    await until(lambda: all(member.ids == everyone for member in members))
    seen: list[set[str]] = []
    for member in members:
        member.registry.on_change(lambda member=member: seen.append(member.ids))
    fragile.engine.kill()
    shutil.rmtree(fragile.engine.folder / "data")
    fragile.engine.restart()
    for member in members:
        await away(member)
    await back(*members)
    late = await fragile.join()
    await until(lambda: late.ids == everyone)
    assert all(member.ids == everyone for member in members)
    assert seen == []


async def test_leaving_while_zookeeper_is_away_takes_no_longer_than_its_deadline(fragile: Cluster) -> None:
    one = await fragile.join()
    await one.registry.register(node("a~1"))
    fragile.engine.freeze()
    began = time.monotonic()
    await one.registry.leave("a~1")
    assert one.ids == set()
    await one.registry.stop()
    await one.client.stop()
    assert time.monotonic() - began < 6.0
    fragile.engine.thaw()
    other = await fragile.join()
    await until(lambda: other.ids == set())


async def test_a_node_that_left_while_zookeeper_was_away_is_not_listed_when_it_is_back(fragile: Cluster) -> None:
    one, other = await fragile.join(), await fragile.join()
    await one.registry.register(node("a~1"))
    await other.registry.register(node("b~1"))
    await until(lambda: other.ids == {"a~1", "b~1"})
    fragile.engine.stop()
    await away(one)
    await one.registry.leave("a~1")
    fragile.engine.restart()
    await back(one, other)
    await until(lambda: other.ids == one.ids == {"b~1"})


async def test_registering_while_zookeeper_is_away_says_so(fragile: Cluster, monkeypatch) -> None:
    monkeypatch.setattr("longwire.adapters.zookeeper.registry._REGISTERS_WITHIN_S", 0.5)
    one = await fragile.join()
    fragile.engine.stop()
    await away(one)
    with pytest.raises(RegistryUnavailable, match=r"did not list node a~1 within 0\.5 s"):
        await one.registry.register(node("a~1"))
    assert one.ids == set()
    fragile.engine.restart()
    await back(one)
    assert one.ids == set()
    assert await one.client.call("get_children", "/longwire/nodes") == []


async def test_a_start_without_zookeeper_names_it_and_the_setting() -> None:
    client = ZooKeeperClient(f"127.0.0.1:{free_ports(1)[0]}", connect_within_s=0.5)
    with pytest.raises(RegistryUnavailable, match=r"ZooKeeper at 127\.0\.0\.1:\d+ did not answer .* zookeeper_hosts"):
        await client.start()
