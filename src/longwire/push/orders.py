"""Orders: what a caller wants, whether it can be, and the push that is kept for it."""

import msgspec
from msgspec import Struct

from longwire.accounts.refusals import RefusalCode, Refused
from longwire.ids import message_id_text, new_message_id, prefixed
from longwire.limits import MAX_KIND_CHARACTERS, MAX_TTL_S
from longwire.push.audience import PUSH_PREFIX, Resolved
from longwire.push_model import Audience, NewPush, Priority, Push, PushMessage

MAX_COLLAPSE_KEY_CHARACTERS = 255
MAX_RATE_PER_S = 1_000_000
MAX_AHEAD_S = 30 * 86_400
SYSTEM_KINDS = "longwire."
"""Kinds that begin so are the system's own."""
WITHDRAWN_KIND = "longwire.withdrawn"
NOTICE_TTL_S = 86_400
"""A notice of withdrawal waits at least this long for whoever is away."""
ACK_GRACE_MS = 5_000
"""How long a push of TTL 0 waits for the acknowledgements of those it was written to."""
_LATE_MS = 1_000


class PushOrder(Struct, frozen=True):
    """A push that a caller wants."""

    audience: Audience
    kind: str
    payload: bytes
    ttl_s: int = 86_400
    """0: only who is online now."""
    priority: Priority = Priority.NORMAL
    collapse_key: str = ""
    send_at_ms: int | None = None
    rate_per_s: int | None = None
    trace: bytes = b""
    caller: str = ""
    """Who wants it, as the audit says it."""


def check_order(order: PushOrder, max_payload_bytes: int, now_ms: int) -> None:
    """Refuses an order that cannot be, whatever the state of the system; its audience apart."""
    limit, size = max_payload_bytes, len(order.payload)
    if size > limit:
        raise Refused(
            RefusalCode.PAYLOAD_TOO_LARGE,
            f"payload of {size} bytes exceeds {limit}",
            more={"limit": limit, "actual": size},
        )
    if not 0 <= order.ttl_s <= MAX_TTL_S:
        raise Refused(
            RefusalCode.TTL_OUT_OF_RANGE,
            f"ttl_s {order.ttl_s} is not 0 to {MAX_TTL_S}",
            more={"limit": MAX_TTL_S, "actual": order.ttl_s},
        )
    if not 1 <= len(order.kind) <= MAX_KIND_CHARACTERS:
        raise _invalid(f"kind of {len(order.kind)} characters is not 1 to {MAX_KIND_CHARACTERS}")
    if order.kind.startswith(SYSTEM_KINDS):
        raise _invalid(f"kind begins with {SYSTEM_KINDS}, which is the system's own")
    if len(order.collapse_key) > MAX_COLLAPSE_KEY_CHARACTERS:
        raise _invalid(f"collapse_key is longer than {MAX_COLLAPSE_KEY_CHARACTERS} characters")
    check_rate(order.rate_per_s)
    if order.send_at_ms is not None:
        ahead_ms = order.send_at_ms - now_ms
        if ahead_ms < -_LATE_MS:
            raise Refused(RefusalCode.SCHEDULE_IN_PAST, f"send_at is {-ahead_ms / 1000:.3f} s ago")
        if ahead_ms > MAX_AHEAD_S * 1000:
            raise _invalid(f"send_at is more than {MAX_AHEAD_S // 86_400} days ahead")


def check_rate(rate_per_s: int | None) -> None:
    if rate_per_s is not None and not 1 <= rate_per_s <= MAX_RATE_PER_S:
        raise _invalid(f"rate_per_s {rate_per_s} is not 1 to {MAX_RATE_PER_S}")


def new_push(order: PushOrder, resolved: Resolved, now_ms: int, retry_of: int | None = None) -> NewPush:
    """The push as it is to be kept. Its time to live counts from when it is to be sent."""
    push_id = new_message_id()
    begins_ms = now_ms if order.send_at_ms is None else order.send_at_ms
    lives_ms = order.ttl_s * 1000
    if order.ttl_s == 0:
        lives_ms = ACK_GRACE_MS + (1000 * len(resolved.devices) // order.rate_per_s if order.rate_per_s else 0)
    return NewPush(
        push_id,
        order.audience,
        PushMessage(push_id, order.kind, order.payload, begins_ms, "", "", order.collapse_key, order.trace),
        now_ms,
        begins_ms + lives_ms,
        caller=order.caller,
        priority=order.priority,
        ttl_s=order.ttl_s,
        send_at_ms=order.send_at_ms,
        rate_per_s=order.rate_per_s,
        unresolved=resolved.unresolved,
        unresolved_sample=resolved.sample,
        retry_of=retry_of,
    )


def notice_for(push: Push, now_ms: int) -> NewPush:
    """The push that tells whoever has this one to forget it."""
    notice_id = new_message_id()
    ttl_s = max(NOTICE_TTL_S, (push.new.expires_at_ms - now_ms) // 1000)
    payload = msgspec.json.encode({"message_id": message_id_text(push.new.message.message_id)})
    return NewPush(
        notice_id,
        Audience(notice_of=prefixed(PUSH_PREFIX, push.new.push_id)),
        PushMessage(notice_id, WITHDRAWN_KIND, payload, now_ms),
        now_ms,
        now_ms + ttl_s * 1000,
        caller=push.new.caller,
        priority=Priority.HIGH,
        ttl_s=ttl_s,
        notice_of=push.push_no,
    )


def warnings_about(order: PushOrder, resolved: Resolved, online: int) -> list[str]:
    """What a caller may not have meant."""
    targeted = len(resolved.devices)
    said = []
    if resolved.unresolved:
        said.append(f"{resolved.unresolved} of the targets mean nothing or are registered no more")
    if not targeted:
        said.append("the audience is empty")
    elif order.ttl_s == 0 and not online:
        said.append("ttl_s is 0 and nobody of the audience is online")
    if order.rate_per_s and order.ttl_s and online > order.rate_per_s * order.ttl_s:
        said.append(f"at {order.rate_per_s} a second, {online} devices take longer than ttl_s {order.ttl_s}")
    if order.send_at_ms is not None:
        said.append("the audience is resolved when the push is sent; it may be another by then")
    return said


def _invalid(message: str) -> Refused:
    return Refused(RefusalCode.INVALID_PARAMETER, message)
