"""A level that is set at one process is every process's."""


def test_a_level_reaches_every_process_within_its_next_looks_and_ends(cluster) -> None:
    def told(gateway) -> int:
        gateway.is_ready()  # a call of its internal port
        return sum("DEBUG" in line and "longwire.api.calls" in line for line in gateway.log_text().splitlines())

    assert [told(gateway) for gateway in cluster.gateways] == [0] * len(cluster.gateways)
    cluster.call("PUT", "/v1/log-levels", json={"area": "api", "level": "debug", "for_s": 120})
    cluster.wait_until(lambda: all(told(gateway) for gateway in cluster.gateways), "every gateway logs calls", 20)
    cluster.call("DELETE", "/v1/log-levels/api", number=1)

    def is_quiet(gateway) -> bool:
        return told(gateway) == told(gateway)

    cluster.wait_until(lambda: all(is_quiet(gateway) for gateway in cluster.gateways), "every gateway is quiet", 20)
