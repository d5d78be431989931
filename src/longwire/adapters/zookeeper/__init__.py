"""Which nodes live and who leads, in ZooKeeper."""
