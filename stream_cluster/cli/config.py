"""`stream-cluster schema` and `stream-cluster check-config`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer
from rich.table import Table

from stream_cluster import files
from stream_cluster.cli import options
from stream_cluster.cli.display import print_json, print_table
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.errors import InputError

SCHEMA_EPILOG = """\
[bold]Examples[/bold]

stream-cluster schema --asyncapi --output asyncapi.json

stream-cluster schema | jq .task"""

CHECK_EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster check-config --config stream-cluster.toml

stream-cluster check-config --json | jq '.[] | select(.source != "default")'

{EXIT_CODES_HELP}"""


def schema(
    asyncapi: Annotated[
        bool, typer.Option("--asyncapi", help="The AsyncAPI 3 document, with the topics of the settings.")
    ] = False,
    json_schema: Annotated[
        bool, typer.Option("--json-schema", help="JSON Schema of each message (the default).")
    ] = False,
    output: Annotated[
        Path | None, typer.Option("--output", "-o", help="Write to this file.", metavar="FILE")
    ] = None,
    config: options.ConfigFile = None,
) -> None:
    """Print the messages' schemas, made from the types that decode them."""
    from stream_cluster.messages import schema as schemas

    if asyncapi and json_schema:
        raise InputError("found --asyncapi and --json-schema, expected one of them")
    settings = options.settings_of(config)
    document: dict[str, Any] = schemas.asyncapi(settings.kafka) if asyncapi else dict(schemas.json_schemas())
    text = json.dumps(document, indent=2, ensure_ascii=False)
    if output is None:
        typer.echo(text)
        return
    try:
        with files.create(output) as file:
            file.write(f"{text}\n".encode())
    except OSError as error:
        raise InputError(f"{output}: cannot be written: {error.strerror or error}") from error


def check_config(config: options.ConfigFile = None, as_json: options.AsJson = False) -> None:
    """Check the settings and print what is in force and where each value was set; secrets are masked."""
    from stream_cluster.config import describe

    loaded = options.settings_with_sources(config, {})
    reports = describe(loaded.settings, loaded.sources)
    if as_json:
        fields = ("key", "value", "default", "source", "description")
        print_json([{name: getattr(report, name) for name in fields} for report in reports])
        return
    table = Table(box=None, pad_edge=False)
    for column in ("setting", "value", "source"):
        table.add_column(column, overflow="fold")
    for report in reports:
        table.add_row(report.key, _shown(report.value), report.source)
    print_table(table)


def _shown(value: Any) -> str:
    """As a settings file would have it; nothing for what is not set."""
    return "" if value is None else value if isinstance(value, str) else json.dumps(value)
