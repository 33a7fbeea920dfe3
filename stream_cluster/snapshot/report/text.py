"""Text from elsewhere as HTML: nothing in it is markup, and nothing in it changes how the rest is shown."""

from __future__ import annotations

import html
import re

from stream_cluster.messages import format_time

# Characters that are not seen, or that change the direction of what follows: shown as their code points.
_UNSEEN = re.compile("[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ufff9-\ufffb]")
MOST_CHARACTERS = 256
"""Characters of a text that are shown."""


def shortened(text: str, most: int = MOST_CHARACTERS) -> str:
    """A text that is not longer than what is shown."""
    return text if len(text) <= most else f"{text[:most]}… ({len(text):,} characters)"


def escaped(text: str, most: int = MOST_CHARACTERS) -> str:
    """As the content or a quoted attribute of an element."""
    return html.escape(_UNSEEN.sub(lambda match: f"\\u{ord(match[0]):04x}", shortened(text, most)))


def foreign(text: str, most: int = MOST_CHARACTERS) -> str:
    """An element with a text from elsewhere, whose direction stays inside."""
    return f"<bdi>{escaped(text, most)}</bdi>"


def time_text(time_us: int) -> str:
    """2026-05-01 09:30:00, in UTC."""
    return format_time(time_us)[:19].replace("T", " ")
