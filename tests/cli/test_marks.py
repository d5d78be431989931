"""``longwire marks`` on a running `longwire dev`."""

import json

import pytest


def test_a_mark_is_added_listed_and_removed(at_dev) -> None:
    push = "psh_" + "0" * 32
    assert at_dev("marks", "list").err.strip() == "no marks"
    added = at_dev("marks", "add", "--push", push, "--for", "90s")
    assert added.err.startswith(f"push {push} is marked until ")
    (line,) = at_dev("marks", "list").out.splitlines()
    mark_id, what, *_ = line.split("\t")
    assert (mark_id in added.err, what) == (True, f"push {push}")
    (told,) = json.loads(at_dev("marks", "list", "--json").out)
    assert (told["id"], told["push_id"]) == (mark_id, push)
    assert at_dev("marks", "remove", mark_id).status == 0
    assert at_dev("marks", "list").err.strip() == "no marks"


@pytest.mark.parametrize(
    ("words", "why"),
    [
        ((), "give one of --device, --user and --push"),
        (("--device", "a", "--user", "b"), "give one of"),
        (("--device", "a", "--for", "soon"), "--for soon is neither"),
        (("--device", "a", "--for", "31m"), "400 invalid-parameter"),
        (("--device", "nobody"), "404 not-found"),
    ],
)
def test_what_cannot_be_marked_is_told_why(at_dev, words, why) -> None:
    outcome = at_dev("marks", "add", *words)
    assert outcome.status != 0
    assert why in outcome.err
