"""What nobody waits for and somebody should know: to the application's functions, and to the log."""

import logging
from collections.abc import Callable
from typing import TypeVar

from longwire.client.entry import Outcome
from longwire.client.errors import ClientError

T = TypeVar("T")

_log = logging.getLogger("longwire.client")


class Reports:
    """One device's. No method raises, whatever the application's functions do."""

    __slots__ = ("_device_id", "_on_error", "_on_sent")

    def __init__(
        self,
        device_id: str,
        on_error: Callable[[Exception], object] | None,
        on_sent: Callable[[bytes, Outcome], object] | None,
    ) -> None:
        self._device_id = device_id
        self._on_error = on_error
        self._on_sent = on_sent

    def error(self, error: Exception) -> None:
        """Something went wrong beside any call: a callback raised, a payload did not decode."""
        _log.error("device %s: %s", self._device_id, error, exc_info=error)
        if self._on_error is not None:
            try:
                self._on_error(error)
            except Exception:  # noqa: BLE001 - the border to the application's function
                _log.exception("device %s: on_error failed", self._device_id)

    def guarded(self, callback: Callable[[T], object]) -> Callable[[T], None]:
        """``callback``, with what it raises reported."""

        def call(value: T) -> None:
            try:
                callback(value)
            except Exception as error:  # noqa: BLE001 - the border to the application's function
                self.error(error)

        return call

    def unclaimed(self, message_id: bytes, outcome: Outcome) -> None:
        """A message has an outcome, and no ``send`` waits for it."""
        if self._on_sent is not None:
            try:
                self._on_sent(message_id, outcome)
            except Exception as error:  # noqa: BLE001 - the border to the application's function
                self.error(error)
        elif isinstance(outcome, ClientError):
            _log.warning("device %s: message %s: %s", self._device_id, message_id.hex(), outcome)
