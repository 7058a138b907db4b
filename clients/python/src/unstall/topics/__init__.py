"""Topics: logs with names and positions.

A *log* keeps messages under *topics*, in one order. :class:`Topics` publishes messages, each stored once,
and subscribes to topics from a position: every message behind it comes once and in order, over lost
connections, restarts and changes of node. If something is missing, a :class:`Gap` stands in its place.
"""

from .._core.topics.delivered import CaughtUp, Gap, Message, Position
from ._answers import Stored
from ._client import Topics
from ._subscription import Delivery, Subscription
from .errors import PublishError, SubscriptionError
from .events import Connected, Disconnected, Event, SubscriptionStats, TokenFailed, TopicsStats

__all__ = [
    "CaughtUp",
    "Connected",
    "Delivery",
    "Disconnected",
    "Event",
    "Gap",
    "Message",
    "Position",
    "PublishError",
    "Stored",
    "Subscription",
    "SubscriptionError",
    "SubscriptionStats",
    "TokenFailed",
    "Topics",
    "TopicsStats",
]
