"""``longwire logs`` on a running `longwire dev`."""

import json

import pytest


def test_a_level_is_set_listed_and_reset(at_dev) -> None:
    rows = [line.split("\t") for line in at_dev("logs", "levels").out.splitlines()]
    assert {"gateway", "hops", "sql"} <= {row[0] for row in rows}
    assert {row[1] for row in rows} == {"info"}
    told = at_dev("logs", "set", "zookeeper", "debug", "--for", "10m")
    assert told.err.startswith("zookeeper logs at debug until ")
    assert [one["area"] for one in json.loads(at_dev("logs", "levels", "--json").out)["items"]] == ["zookeeper"]
    (row,) = [line.split("\t") for line in at_dev("logs", "levels").out.splitlines() if line.startswith("zookeeper")]
    assert row[1] == "debug"
    assert at_dev("logs", "reset", "zookeeper").status == 0
    assert json.loads(at_dev("logs", "levels", "--json").out)["items"] == []


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("set", "gateway", "loud"), "400 invalid-parameter"),
        (("set", "nothing", "debug"), "400 invalid-parameter"),
        (("set", "gateway", "debug", "--for", "soon"), "--for soon is neither"),
        (("reset", "gateway"), "404 not-found"),
    ],
)
def test_what_cannot_be_is_told(at_dev, words, why) -> None:
    outcome = at_dev("logs", *words)
    assert outcome.status != 0
    assert why in outcome.err
