"""What can go wrong with topics. Each error says what failed, why, and what to do."""

from __future__ import annotations

from .._errors import Error

ADVICE = {
    "not allowed": "use another topic or another token",
    "invalid topic": "correct the topic: tokens with dots between, without spaces, '*' and '>'",
    "too large": "publish a smaller message",
    "full": "the log takes no more for now; publish it again later",
    "fenced": "another publisher with this id and a higher epoch has published; take another id",
    "expired": "publish it again with a new token",
    "unknown": "the node does not know whether it is stored",
    "unavailable": "the node cannot reach its log; publish it again later",
    "not sent": "the client ended before it was sent",
    "no answer": "it was sent, and the client ended before an answer came",
}


class PublishError(Error):
    """A message was not published, or it is not known whether it was.

    ``may_be_stored`` is the one question that matters before you publish it again: if it is false, the
    message is not stored. If it is true, nobody knows, and it may become stored twice.

    ``reason`` is one of: ``not allowed``, ``invalid topic``, ``too large``, ``full``, ``fenced``,
    ``expired``, ``unknown``, ``unavailable`` (these are of the node, see SPEC-TOPICS.md, section 10),
    ``not sent`` (the client ended before), and ``no answer`` (it was sent, and no answer came).
    """

    def __init__(self, reason: str, *, may_be_stored: bool, text: str = "") -> None:
        fate = (
            "it is not known whether the message is stored"
            if may_be_stored
            else ("the message was not published")
        )
        said = f" ({text})" if text else ""
        super().__init__(f"{fate}: {reason}{said}; {ADVICE.get(reason, 'see the reason')}")
        self.reason = reason
        self.may_be_stored = may_be_stored


class SubscriptionError(Error):
    """A subscription has ended, and not because its topic is complete.

    ``reason`` is one of: ``not allowed`` (the token does not allow this filter), ``expired`` (the fixed
    token has expired; subscribe again with another one, from the last position), ``invalid filter``
    (the node says so), ``too many subscriptions`` (the node allows no more on one connection), and
    ``client ended`` (the client was closed, or has given up).
    """

    def __init__(self, reason: str, text: str = "") -> None:
        said = f": {text}" if text else ""
        super().__init__(f"the subscription has ended, {reason}{said}")
        self.reason = reason
