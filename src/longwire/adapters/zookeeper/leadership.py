"""Leadership in ZooKeeper: ``<base>/leaders/<job>``, ephemeral; whose session made it leads.

There is no queue: when a leader is gone, all candidates try, and one succeeds. That is cheap for the few processes
of a cluster. A leader stands down as soon as its connection is away, which is before ZooKeeper ends its session.
"""

import asyncio
import contextlib
import logging

from longwire.adapters.zookeeper.client import NodeExists, NoNode, ZooKeeperClient
from longwire.errors import RegistryUnavailable

log = logging.getLogger(__name__)

_AGAIN_AFTER_S = 1.0


class ZooKeeperLeadership:
    """ports.leadership.Leadership on ZooKeeper. ``name`` is what operators read in the node of a job."""

    def __init__(self, client: ZooKeeperClient, name: str, *, base: str = "/longwire") -> None:
        self._client = client
        self._name = name
        self._path = f"{base}/leaders"
        self._jobs: dict[str, bool] = {}
        self._unsettled: set[str] = set()
        self._wake = asyncio.Event()
        self._changed = client.watch(self._leader_changed)
        self._task: asyncio.Task[None] | None = None
        client.on_state(self._connection_changed)

    def start(self) -> None:
        """Begins to stand for jobs, on the running loop; the client is started before and stopped after."""
        self._task = asyncio.create_task(self._stand_for_jobs(), name="leadership")

    async def stop(self) -> None:
        """Leads nothing any more."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
        for job in list(self._jobs):
            await self.resign(job)

    # -- ports.leadership.Leadership ---------------------------------------------------------------------------------

    def leads(self, job: str) -> bool:
        if job not in self._jobs:
            self._jobs[job] = False
            self._look_at(job)
        return self._jobs[job]

    async def resign(self, job: str) -> None:
        self._unsettled.discard(job)
        if not self._jobs.pop(job, False):
            return
        try:
            await self._client.call("delete", f"{self._path}/{job}")
        except NoNode:
            pass
        except RegistryUnavailable as error:
            log.info("leadership of %s ends with the session: %s", job, error)

    # -- what ZooKeeper tells ----------------------------------------------------------------------------------------

    def _connection_changed(self) -> None:
        for job in self._jobs:
            self._jobs[job] = False
            self._look_at(job)

    def _leader_changed(self, path: str) -> None:
        self._look_at(path.rpartition("/")[2])

    def _look_at(self, job: str) -> None:
        self._unsettled.add(job)
        self._wake.set()

    async def _stand_for_jobs(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            try:
                while self._unsettled and self._client.is_connected:
                    await self._stand(next(iter(self._unsettled)))
            except RegistryUnavailable as error:
                log.debug("%s", error)
                await asyncio.sleep(_AGAIN_AFTER_S)
                self._wake.set()
            except Exception:
                log.exception("standing for a job failed")
                await asyncio.sleep(_AGAIN_AFTER_S)
                self._wake.set()

    async def _stand(self, job: str) -> None:
        """Tries to lead, or waits for the end of who does. Raises RegistryUnavailable."""
        self._unsettled.discard(job)
        if job not in self._jobs:
            return
        path, session_id = f"{self._path}/{job}", self._client.session_id
        try:
            with contextlib.suppress(NodeExists):
                await self._client.call("create", path, self._name.encode(), ephemeral=True, makepath=True)
            _, stat = await self._client.call("get", path, watch=self._changed)
        except NoNode:
            self._look_at(job)  # who led is gone
            return
        except RegistryUnavailable:
            self._look_at(job)
            raise
        leads = stat.ephemeralOwner == session_id and self._client.is_connected
        if job not in self._jobs:  # resigned meanwhile
            if leads:
                await self._client.call("delete", path)
            return
        if leads and not self._jobs[job]:
            log.info("this process does %s from now on", job)
        self._jobs[job] = leads
