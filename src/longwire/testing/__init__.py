"""What tests of the system and of applications stand on: time that obeys, and worlds that fail on request."""

from longwire.testing.clock import ManualClock, settle

__all__ = ["ManualClock", "settle"]
