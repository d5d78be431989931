"""Webhooks: addresses that are told what happens, signed, in order, until they have taken it."""

from longwire.webhooks.delivery import Patience
from longwire.webhooks.endpoints import Endpoints, WebhookState
from longwire.webhooks.posting import Posted, PostSettings

__all__ = ["Endpoints", "Patience", "PostSettings", "Posted", "WebhookState"]
