"""Redis: routes, hints of who has something waiting, and copies of tokens; one server or a Cluster."""

from longwire.adapters.redis.routes import RedisRoutes
from longwire.adapters.redis.server import RedisServer, connect
from longwire.adapters.redis.tokens import RedisTokens
from longwire.adapters.redis.waiting import RedisWaiting

__all__ = ["RedisRoutes", "RedisServer", "RedisTokens", "RedisWaiting", "connect"]
