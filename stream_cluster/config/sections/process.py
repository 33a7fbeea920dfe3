"""What the process shows of itself."""

from __future__ import annotations

from typing import Annotated, Literal

from msgspec import Meta

from stream_cluster.config.sections.base import Section


class HttpSettings(Section, frozen=True, kw_only=True):
    """Health, metrics and the status page."""

    host: Annotated[str, Meta(min_length=1, description="Address to listen on.")] = "0.0.0.0"  # noqa: S104 - a container's probes come from outside  # nosec B104
    port: Annotated[int, Meta(ge=0, le=65_535, description="Port to listen on; 0 takes a free one.")] = 8080
    live_stall_s: Annotated[
        float,
        Meta(gt=0, le=86_400, description="Standstill of the loop or the engine after which /livez fails."),
    ] = 60.0
    ready_max_lag_records: Annotated[
        int, Meta(ge=0, description="Most records behind the log's end at which /readyz succeeds.")
    ] = 10_000
    status_page: Annotated[
        bool, Meta(description="Serve /status and /status.json. Whoever reaches the port sees them.")
    ] = False
    status_page_ids: Annotated[
        bool,
        Meta(
            description="Show ids of accounts and tasks, and where archives are, on the status page; else "
            "numbers stand for them."
        ),
    ] = True


class LogSettings(Section, frozen=True, kw_only=True):
    """Log lines."""

    level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="Least severity that is written.")
    ] = "info"
    format: Annotated[
        Literal["json", "text"], Meta(description="One JSON object a line, or text for people.")
    ] = "json"
