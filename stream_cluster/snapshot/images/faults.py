"""Why an object has no image in the archive."""

from __future__ import annotations

from enum import StrEnum


class ImageFault(StrEnum):
    """The reasons, as the manifest counts them."""

    NO_REFERENCE = "no_reference"
    NO_ROOT = "no_root"
    REFUSED = "refused"
    MISSING = "missing"
    UNREACHABLE = "unreachable"
    TIMEOUT = "timeout"
    TOO_LARGE = "too_large"
    WRONG_TYPE = "wrong_type"
    TRUNCATED = "truncated"
    OVER_TOTAL_LIMIT = "over_total_limit"


class NoImage(Exception):
    """One image cannot be saved. It is counted, and nothing else happens."""

    def __init__(self, fault: ImageFault) -> None:
        super().__init__(fault.value)
        self.fault = fault
