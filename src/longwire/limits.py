"""Every bound of the device port with its default, in one place.

A limit is a setting: the composition root fills ``Limits`` from the settings and hands it down; nothing else
reads a number from elsewhere. Units stand in the names.
"""

from dataclasses import dataclass

MAX_HEARTBEAT_S = 900
MIN_HEARTBEAT_S = 10
MAX_KIND_CHARACTERS = 64
MAX_NESTING = 32
MAX_TTL_S = 864_000
# A client's own limit for what a node sends: nodes may be set to larger bodies than the default.
MAX_CLIENT_BODY_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Limits:
    """What one node grants a peer; see PROTOCOL for the meaning of each."""

    max_body_bytes: int = 65_536
    max_payload_bytes: int = 61_440
    default_ttl_s: int = 86_400
    max_connections: int = 18_000
    """Open device connections; the next one is told to come back (4003)."""
    accept_per_s: int = 20_000
    """Connections taken a second, with a burst of the same; above it they are told to come back (4003)."""
    max_connections_per_address: int = 0
    """Open connections of one client address; 0: no limit. Never applied to loopback."""
    handshake_timeout_s: float = 5.0
    max_unauthenticated_bytes: int = 64 << 20
    """Bytes held for all connections that have not proved who they are, together."""
    heartbeat_min_s: int = MIN_HEARTBEAT_S
    heartbeat_max_s: int = MAX_HEARTBEAT_S
    high_water_bytes: int = 65_536
    """Unsent bytes of a connection above which at-most-once messages are dropped and counted."""
    max_unsent_bytes: int = 1 << 20
    """Unsent bytes of a connection at which it is closed as a slow consumer (4004)."""
    sends_per_s: int = 1_000
    send_burst: int = 1_000
    window: int = 64
    """Unacknowledged one-to-one messages on a connection at a time."""
    redeliver_after_s: float = 30.0
    max_inbox: int = 1_000
    max_commit_queue_bytes: int = 64 << 20
    """Bytes of messages that wait for the store's next commit; above it SEND answers 14."""
    max_requests_per_session: int = 32
    max_requests: int = 4_096
    retry_jitter_ms: int = 5_000
    """A shed client comes back at a random moment within this."""
    max_push_payload_bytes: int = 4_096
    """A push's payload; may be set to 61,440."""
    max_audience_ids: int = 1_000
    """Devices or users that a push names; larger lists are uploaded before."""
    max_audience_groups: int = 20
    max_audience_tags: int = 50
    """Tags in one expression."""
    max_device_tags: int = 200
    """Own tags of a device; those that the system keeps do not count."""
    max_upload_ids: int = 1_000_000
    max_live_pushes: int = 100_000
    small_group: int = 1_000
    """Members up to which a message to a group is a row in each inbox; above it, a push."""
