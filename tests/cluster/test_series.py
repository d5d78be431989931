"""Ten minutes of every fault, at random, on a cluster that is at work."""

import random
import time

import pytest
from cluster_house import back

from longwire.testing.cluster import Mesh

LASTS_S = 600.0


@pytest.mark.chaos
@pytest.mark.parametrize("seed", range(3))
def test_whatever_fails_in_whatever_order_nothing_that_was_confirmed_is_lost(cluster, engines, prefix, seed) -> None:
    rng = random.Random(seed)
    with Mesh(cluster, 30, prefix=prefix) as mesh:
        mesh.talk(60)
        ends = time.monotonic() + LASTS_S
        while time.monotonic() < ends:
            victim = rng.choice([*cluster.processes(), *engines.all()])
            how = rng.choice(["stop", "kill", "freeze"])
            getattr(victim, how)()
            time.sleep(rng.uniform(1, 20))
            if rng.random() < 0.5 and engines.store.is_running and victim not in cluster.apis:
                answer = cluster.api().get("/readyz")
                if answer.status_code == 200 and victim is not engines.store:
                    mesh.push()
            back(victim)
            time.sleep(rng.uniform(0, 10))
        # A sender that changed nodes may overtake itself: docs/operations.md.
        mesh.check(in_order=False)
    cluster.routes_equal_nodes()
