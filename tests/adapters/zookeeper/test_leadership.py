"""One process at a time leads a job, as ZooKeeper has it."""

from contextlib import AsyncExitStack

import pytest
from members import Cluster, Member, until

from longwire.adapters.embedded.leadership import EmbeddedLeadership
from longwire.adapters.zookeeper.leadership import ZooKeeperLeadership


class Candidate:
    """A process that stands for jobs."""

    def __init__(self, member: Member, name: str, base: str) -> None:
        self.member = member
        self.leadership = ZooKeeperLeadership(member.client, name, base=base)
        self.leadership.start()

    def leads(self) -> bool:
        return self.leadership.leads("sweep")


@pytest.fixture
async def stack():
    async with AsyncExitStack() as stack:
        yield stack


async def candidates(cluster: Cluster, stack: AsyncExitStack, count: int) -> list[Candidate]:
    made = [Candidate(await cluster.join(), f"p{at}", cluster.base) for at in range(count)]
    for one in made:
        stack.push_async_callback(one.leadership.stop)
    return made


async def leader(of: list[Candidate]) -> Candidate:
    await until(lambda: sum(one.leads() for one in of))
    leading = [one for one in of if one.leads()]
    assert len(leading) == 1
    return leading[0]


async def test_one_leads_and_when_it_resigns_another_does(cluster: Cluster, stack) -> None:
    everyone = await candidates(cluster, stack, 3)
    first = await leader(everyone)
    others = [one for one in everyone if one is not first]
    assert (await others[0].member.client.call("get", f"{cluster.base}/leaders/sweep"))[0] == (
        first.leadership._name.encode()
    )
    await first.leadership.resign("sweep")
    assert await leader(others)


async def test_jobs_have_leaders_of_their_own_and_resigning_from_none_is_no_error(cluster: Cluster, stack) -> None:
    one, other = await candidates(cluster, stack, 2)
    await until(lambda: one.leadership.leads("a"))
    await until(lambda: other.leadership.leads("b"))
    await one.leadership.resign("never stood")
    await other.leadership.resign("a")
    assert one.leadership.leads("a")


async def test_a_leader_that_loses_its_session_leads_no_more_until_it_is_elected_again(cluster: Cluster, stack) -> None:
    first, second = await candidates(cluster, stack, 2)
    await until(first.leads)
    assert not second.leads()
    first.member.lose_session()
    await until(lambda: not first.leads() or second.leads())
    await until(lambda: first.leads() != second.leads())


async def test_who_deletes_the_mark_of_a_leader_brings_an_election(cluster: Cluster, stack) -> None:
    everyone = await candidates(cluster, stack, 2)
    first = await leader(everyone)
    await first.member.client.call("delete", f"{cluster.base}/leaders/sweep")
    await until(lambda: sum(one.leads() for one in everyone) == 1)


async def test_nobody_leads_while_zookeeper_is_away(fragile: Cluster, stack) -> None:
    everyone = await candidates(fragile, stack, 2)
    await leader(everyone)
    fragile.engine.stop()
    await until(lambda: sum(one.leads() for one in everyone) == 0)
    fragile.engine.restart()
    await leader(everyone)


async def test_without_a_cluster_the_only_process_leads() -> None:
    leadership = EmbeddedLeadership()
    assert leadership.leads("sweep")
    await leadership.resign("sweep")
