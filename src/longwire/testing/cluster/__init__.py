"""A whole cluster for tests: real engines, one process a role, and devices that keep account of what they got.

    engines = SharedEngines.start(folder)
    with Cluster(folder, engines) as cluster, Mesh(cluster, 12) as mesh:
        mesh.talk_for(5)
        cluster.gateways[0].kill()
        mesh.check()
        cluster.routes_equal_nodes()

Blocking and in subprocesses; all of it dies with the process that started it.
"""

from longwire.testing.cluster.devices import Mesh
from longwire.testing.cluster.harness import Cluster, RoleProcess, SharedEngines

__all__ = ["Cluster", "Mesh", "RoleProcess", "SharedEngines"]
