"""What a tag may be called."""

import re

from longwire.errors import LongwireError
from longwire.ids import is_device_id

MAX_TAGS = 200
"""Tags of one device (API §4)."""
RESERVED_TAGS = "sys:"
"""Tags that begin so are kept by the system."""
USER_RULE = "is not 1-64 characters of A-Z a-z 0-9 . _ : @ -"

_TAG = re.compile(r"[A-Za-z0-9._:@=/-]{1,64}")


class BadIdentity(LongwireError):
    """The application's own judgement named a user or a tag that cannot be."""


def tag_fault(tag: str) -> str | None:
    """What is wrong with a tag, None where nothing is."""
    if _TAG.fullmatch(tag) is None:
        return "is not 1-64 characters of A-Z a-z 0-9 . _ : @ = / -"
    if tag.startswith(RESERVED_TAGS):
        return f"begins with {RESERVED_TAGS}, which is the system's own"
    return None


def check_identity(user: str | None, tags: tuple[str, ...]) -> None:
    """Raises BadIdentity for a user or tags that cannot be kept."""
    if user is not None and not is_device_id(user):
        raise BadIdentity(f"user {user!r} {USER_RULE}")
    if len(tags) > MAX_TAGS:
        raise BadIdentity(f"{len(tags)} tags; at most {MAX_TAGS}")
    for tag in tags:
        if fault := tag_fault(tag):
            raise BadIdentity(f"tag {tag!r} {fault}")
