"""Which items of a batch can be provisioned: values are judged one by one, so that one typo stops one device."""

from longwire.accounts.refusals import Refused
from longwire.accounts.tags import MAX_TAGS, USER_RULE, tag_fault
from longwire.api.problems import Code
from longwire.api.shapes import BatchItem, ItemProblem
from longwire.ids import is_device_id


def check_item(index: int, item: BatchItem, seen: set[str]) -> ItemProblem | None:
    """What is wrong with an item, None where nothing is. ``seen`` are the ids before it."""
    where = f"#/items/{index}"
    if not is_device_id(item.device_id):
        return _invalid(f"{where}/device_id", USER_RULE)
    if item.device_id in seen:
        return _invalid(f"{where}/device_id", "stands twice in this batch")
    if item.user is not None and not is_device_id(item.user):
        return _invalid(f"{where}/user", USER_RULE)
    if len(item.tags) > MAX_TAGS:
        return _invalid(f"{where}/tags", f"{len(item.tags)} tags; at most {MAX_TAGS}")
    for at, tag in enumerate(item.tags):
        if fault := tag_fault(tag):
            return _invalid(f"{where}/tags/{at}", fault)
    return None


def refused_item(index: int, refused: Refused) -> ItemProblem:
    """What the registry refused of an item: its tags."""
    return ItemProblem(pointer=f"#/items/{index}/tags", code=str(refused.code), detail=str(refused))


def _invalid(pointer: str, detail: str) -> ItemProblem:
    return ItemProblem(pointer=pointer, code=str(Code.INVALID_PARAMETER), detail=detail)
