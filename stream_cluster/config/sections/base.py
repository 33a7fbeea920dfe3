"""What all sections have in common."""

from __future__ import annotations

from msgspec import Struct

SECRET = {"secret": True}
MIB = 1024 * 1024


class Section(Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Base of all sections."""
