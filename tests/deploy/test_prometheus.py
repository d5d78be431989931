"""The rules and the dashboard that are shipped: promtool takes them, alerts fire, and each metric is one of ours."""

import re
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy/prometheus"
NAME = re.compile(r"\b(?:longwire|process|python)_[a-z_]+\b")
OF_HISTOGRAMS = re.compile(r"_(?:bucket|count|sum)$")


@pytest.mark.parametrize(
    "words",
    [["check", "config", "prometheus.yml"], ["check", "rules", "alerts.yml"], ["test", "rules", "alerts_test.yml"]],
)
def test_promtool_takes_what_is_shipped(words: list[str]) -> None:
    done = subprocess.run(["promtool", *words], cwd=FOLDER, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("shipped", ["deploy/prometheus/alerts.yml", "deploy/grafana/longwire.json"])
def test_every_metric_that_is_asked_for_is_in_the_document(shipped: str) -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\w+) \|", (ROOT / "docs/metrics.md").read_text(), re.MULTILINE)
    known, histograms = {name for name, _ in rows}, {name for name, kind in rows if kind == "histogram"}
    text = (ROOT / shipped).read_text()
    named = set(NAME.findall(text))
    assert len(named) > 10
    assert [one for one in named - known if OF_HISTOGRAMS.sub("", one) not in histograms] == []
