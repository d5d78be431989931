"""A real Prometheus, as it is shipped configured, scrapes every process; each query of the dashboard has an answer."""

import json
import math
import re
import shutil
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from longwire.testing.cluster import Cluster, Mesh
from longwire.testing.engines import Prometheus

ROOT = Path(__file__).parents[2]
SHIPPED = ROOT / "deploy/prometheus"
DASHBOARD = json.loads((ROOT / "deploy/grafana/longwire.json").read_text())
WITHIN_S = 60.0
ENGINES = {"sql_read", "sql_commit", "redis", "kafka", "zookeeper", "link"}
# Grafana's own, as it would fill them in.
FILLED = {"$__rate_interval": "30s", "$instance": ".*"}
ROW = re.compile(r"\| `(\w+)` \| (\w+) \| ([^|]*) \|")


def dashboard_queries() -> list[str]:
    found = [target["expr"] for panel in DASHBOARD["panels"] for target in panel.get("targets", ())]
    for name, value in FILLED.items():
        found = [query.replace(name, value) for query in found]
    return found


def page_of(port: int) -> str:
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        return answer.read().decode()


@pytest.fixture
def prometheus(cluster: Cluster, tmp_path: Path) -> Iterator[Prometheus]:
    folder = tmp_path / "prometheus"
    (folder / "targets").mkdir(parents=True)
    shutil.copy(SHIPPED / "alerts.yml", folder)
    addresses = [f"127.0.0.1:{process.internal_port}" for process in cluster.processes()]
    (folder / "targets/cluster.yml").write_text(json.dumps([{"targets": addresses}]))
    config = (SHIPPED / "prometheus.yml").read_text().replace("_interval: 15s", "_interval: 1s")
    with Prometheus(folder, config) as prometheus:
        yield prometheus


def test_every_query_of_the_dashboard_has_an_answer(cluster: Cluster, prometheus: Prometheus, prefix: str) -> None:
    queries = dashboard_queries()
    assert len(queries) > 50
    assert not any("$" in query for query in queries)
    with Mesh(cluster, 6, prefix=prefix, via=lambda number: number % 3) as mesh:
        with mesh.talking(100):
            mesh.push()
            mesh.wait_talked(100)
        deadline = time.monotonic() + WITHIN_S
        unanswered = queries
        while unanswered := [query for query in unanswered if not prometheus.query(query)]:
            assert time.monotonic() < deadline, unanswered
            time.sleep(0.5)
        assert sum(float(one["value"][1]) for one in prometheus.query("longwire_connections")) >= 6
        asked = prometheus.query("sum by (engine) (longwire_engine_request_seconds_count) > 0")
        assert {one["metric"]["engine"] for one in asked} == ENGINES
        acked = "histogram_quantile(0.99, sum by (le) (longwire_ack_latency_seconds_bucket))"
        assert not math.isnan(float(prometheus.query(acked)[0]["value"][1]))
    targets = prometheus.targets()
    assert {target["health"] for target in targets} == {"up"}
    assert len(targets) == len(cluster.processes())


def test_the_document_has_every_metric_that_some_process_tells_and_no_other(cluster: Cluster) -> None:
    told: dict[str, tuple[str, frozenset[str]]] = {}
    for process in cluster.processes():
        for family in text_string_to_metric_families(page_of(process.internal_port)):
            name = family.name + ("_total" if family.type == "counter" else "")
            labels = frozenset(label for sample in family.samples for label in sample.labels) - {"le"}
            told[name] = (family.type, labels)
    rows = ROW.findall((ROOT / "docs/metrics.md").read_text())
    written = {name: (kind, frozenset(re.findall(r"`(\w+)`", labels))) for name, kind, labels in rows}
    assert written == told
