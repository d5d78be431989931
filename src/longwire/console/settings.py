"""What the console is told at its start."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class ConsoleSettings:
    """One console. ``public_url`` is where browsers reach it, where that is not the host and port they name."""

    api_url: str
    """Where /v1 is: ``http://127.0.0.1:7380``."""
    public_url: str | None = None
    sign_ins_per_minute: int = 10
    """Of one address."""

    @property
    def is_secure(self) -> bool:
        """Whether browsers come by https."""
        return (self.public_url or "").startswith("https://")

    def is_own_origin(self, origin: str, host: str) -> bool:
        """Whether a browser's ``Origin`` is the console itself; ``host`` is what its Host header says."""
        if self.public_url is not None:
            return origin == self.public_url.rstrip("/")
        return bool(host) and origin == f"http://{host}"
