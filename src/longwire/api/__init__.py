"""The HTTP API (API.md): parse, call a service, shape the answer. No rule of the business lives here.

request ─► shell (id, bound) ─► door (caller, scope, rate, body) ─► route ─► service
answer  ◄─ shell (id on it)  ◄─ problem, or shape             ◄──────────────┘
"""

from longwire.api.app import create_api, create_internal_api
from longwire.api.services import ApiSettings, Services, Unready

__all__ = ["ApiSettings", "Services", "Unready", "create_api", "create_internal_api"]
