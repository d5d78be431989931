"""The role that consumes the uplink log: gives what devices sent to the application's handlers."""

from longwire.sink.settings import SinkSettings
from longwire.sink.sink import Counts, Sink

__all__ = ["Counts", "Sink", "SinkSettings"]
