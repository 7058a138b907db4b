"""Texts that are safe to print: a peer's words, and URLs without their secrets."""

from __future__ import annotations

from urllib.parse import urlsplit, urlunsplit

#: How many characters of a peer's words an error shows: enough for a sentence, too few to flood a log.
BRIEF = 240


def printable(words: str, limit: int = BRIEF) -> str:
    """The words without control characters and line breaks, cut to `limit` characters."""
    cut = words[:limit]
    text = "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in cut)
    return text + "…" if len(words) > limit else text


def redacted(url: str) -> str:
    """The URL without user information, query and fragment."""
    try:
        parts = urlsplit(url)
        host = parts.hostname or ""
        host = f"[{host}]" if ":" in host else host
        place = host if parts.port is None else f"{host}:{parts.port}"
    except ValueError:
        return "(a URL that cannot be read)"
    return printable(urlunsplit((parts.scheme, place, parts.path, "", "")))
