"""Topics and filters: SPEC-TOPICS.md, section 3."""

from __future__ import annotations

import unicodedata
from functools import lru_cache

from ..packet import Refused, malformed

MAX_NAME, MAX_TOKENS = 255, 32
#: How many topics are remembered as checked, of all and of each subscription. More are checked again.
CHECKED = 4_096

WHITE_SPACE = set("\t\n\v\f\r \x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000") | {
    chr(c) for c in range(0x2000, 0x200B)
}


def is_plain(token: str) -> bool:
    """Whether it is a token without wildcards."""
    return bool(token) and not any(
        c in WHITE_SPACE or c in ".*>" or unicodedata.category(c) == "Cc" for c in token
    )


def is_name(name: bytes, wildcards: bool) -> bool:
    """Whether these bytes are a topic, or with wildcards a filter."""
    if not 1 <= len(name) <= MAX_NAME:
        return False
    try:
        tokens = name.decode().split(".")
    except UnicodeDecodeError:
        return False
    if len(tokens) > MAX_TOKENS:
        return False
    if wildcards:
        tokens = tokens[:-1] if tokens[-1] == ">" else tokens
        tokens = [token for token in tokens if token != "*"]
    return all(map(is_plain, tokens))


@lru_cache(maxsize=CHECKED)
def is_topic(name: bytes) -> bool:
    return is_name(name, wildcards=False)


def is_filter(name: bytes) -> bool:
    return is_name(name, wildcards=True)


def matches(pattern: bytes, topic: bytes) -> bool:
    """Whether a filter matches a topic; both are valid."""
    wanted, tokens = pattern.split(b"."), topic.split(b".")
    if wanted[-1] == b">":
        if len(tokens) < len(wanted):
            return False
        wanted = wanted[:-1]
        tokens = tokens[: len(wanted)]
    return len(wanted) == len(tokens) and all(w in (b"*", t) for w, t in zip(wanted, tokens, strict=True))


class NameCache:
    """The topics that one filter is known to match, as text."""

    def __init__(self, pattern: bytes) -> None:
        self.pattern = pattern
        #: The filter has no wildcard.
        self.is_topic = is_topic(pattern)
        self.known: dict[bytes, str] = {}

    def learn(self, name: bytes) -> str:
        """The topic as text. It is an error of the server if the filter does not match it."""
        known = self.known.get(name)
        if known is not None:
            return known
        if not is_topic(name):
            raise malformed("a topic that is none")
        if not matches(self.pattern, name):
            raise Refused("INCONSISTENT", "a message of another topic")
        if len(self.known) >= CHECKED:
            self.known.clear()
        text = self.known[name] = name.decode()
        return text
