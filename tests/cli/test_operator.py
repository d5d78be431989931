"""What the operators' commands share."""

from longwire.cli.operator import quoted


def test_a_name_is_one_segment_whatever_it_is() -> None:
    assert [quoted(name) for name in (".", "..", "a.b", "a/b", "")] == ["%2E", "%2E%2E", "a.b", "a%2Fb", "-"]
