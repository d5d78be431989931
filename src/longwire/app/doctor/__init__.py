"""``longwire doctor``: looks at this machine and at every engine, and says what keeps Longwire from doing its work."""

from longwire.app.doctor.diagnosis import Diagnosis, diagnose
from longwire.app.doctor.report import Finding, State, worst

__all__ = ["Diagnosis", "Finding", "State", "diagnose", "worst"]
