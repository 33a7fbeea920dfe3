"""`stream-cluster generate`: synthetic cameras."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

import typer

from stream_cluster.cli.display import progress_display
from stream_cluster.cli.failures import EXIT_CODES_HELP
from stream_cluster.errors import InputError

EPILOG = f"""\
[bold]Examples[/bold]

stream-cluster generate --events 5000 --output events.jsonl.gz --truth people.csv

stream-cluster generate --events 20000 --bad-share 0.1 | stream-cluster produce -

The same options give the same bytes.

{EXIT_CODES_HELP}"""

Descriptor = Literal["face", "body", "both"]
Encoding = Literal["float32", "float16", "int8", "uint8", "sdk"]

_DATA = "The people and cameras"
_FAULTS = "Broken messages"


def generate(
    output: Annotated[
        Path | None,
        typer.Option(
            "--output", "-o", help="JSON lines, gzipped when it ends in .gz; else stdout.", metavar="FILE"
        ),
    ] = None,
    truth: Annotated[
        Path | None, typer.Option("--truth", help="CSV of event_id,person.", metavar="FILE.csv")
    ] = None,
    images: Annotated[
        Path | None,
        typer.Option("--images", help="Draw a face for every event into this folder.", metavar="DIR"),
    ] = None,
    events: Annotated[int, typer.Option("--events", help="Number of messages.")] = 1000,
    seed: Annotated[int, typer.Option("--seed", help="Chooses everything.")] = 1,
    people: Annotated[
        int | None,
        typer.Option(
            "--people", help="Size of the crowd; else a fifth of the events.", rich_help_panel=_DATA
        ),
    ] = None,
    cameras: Annotated[int, typer.Option("--cameras", help="Number of sources.", rich_help_panel=_DATA)] = 8,
    accounts: Annotated[
        str, typer.Option("--accounts", help="Account ids, as a,b,c.", metavar="A,B,C", rich_help_panel=_DATA)
    ] = "demo",
    descriptor: Annotated[
        Descriptor, typer.Option("--descriptor", help="Descriptors of each event.", rich_help_panel=_DATA)
    ] = "face",
    dim: Annotated[int, typer.Option("--dim", help="Dimension of descriptors.", rich_help_panel=_DATA)] = 512,
    version: Annotated[
        int, typer.Option("--descriptor-version", help="Version of descriptors.", rich_help_panel=_DATA)
    ] = 1,
    encoding: Annotated[
        Encoding, typer.Option("--encoding", help="Form of descriptors.", rich_help_panel=_DATA)
    ] = "float32",
    start_time: Annotated[
        str, typer.Option("--start-time", help="Time of the first event, RFC 3339.", rich_help_panel=_DATA)
    ] = "2026-05-01T06:00:00Z",
    events_per_second: Annotated[
        float, typer.Option("--events-per-second", help="Mean rate in simulated time.", rich_help_panel=_DATA)
    ] = 10.0,
    track_length: Annotated[
        float, typer.Option("--track-length", help="Mean number of events of a track.", rich_help_panel=_DATA)
    ] = 3.0,
    same_person_cosine: Annotated[
        float,
        typer.Option(
            "--same-person-cosine", help="Mean cosine of one person's descriptors.", rich_help_panel=_DATA
        ),
    ] = 0.7,
    identity_dim: Annotated[
        int,
        typer.Option(
            "--identity-dim", help="The lower, the more strangers look alike.", rich_help_panel=_DATA
        ),
    ] = 80,
    metadata: Annotated[
        bool,
        typer.Option(
            "--metadata/--no-metadata", help="Age, gender, place and the like.", rich_help_panel=_DATA
        ),
    ] = True,
    bad_share: Annotated[
        float, typer.Option("--bad-share", help="Share of broken messages, 0 to 1.", rich_help_panel=_FAULTS)
    ] = 0.0,
    faults: Annotated[
        str | None,
        typer.Option(
            "--faults",
            help="Kinds of broken messages, as a,b,c; else all.",
            metavar="A,B,C",
            rich_help_panel=_FAULTS,
        ),
    ] = None,
    too_large_bytes: Annotated[
        int,
        typer.Option("--too-large-bytes", help="Size of a too_large message.", rich_help_panel=_FAULTS),
    ] = 900_000,
) -> None:
    """Write the events of synthetic cameras: people walk past, some often, most never."""
    from stream_cluster.generate import FAULTS, GenerateOptions, write_events

    names = FAULTS if faults is None else tuple(faults.split(","))
    unknown = sorted(set(names) - set(FAULTS))
    if unknown:
        raise InputError(f"--faults: found {', '.join(unknown)}, expected some of {', '.join(FAULTS)}")
    chosen = GenerateOptions(
        events=events,
        people=people,
        cameras=cameras,
        dim=dim,
        seed=seed,
        accounts=tuple(accounts.split(",")),
        descriptor=descriptor,
        version=version,
        encoding=encoding,
        start_time=start_time,
        events_per_second=events_per_second,
        track_length=track_length,
        same_person_cosine=same_person_cosine,
        identity_dim=identity_dim,
        metadata=metadata,
        bad_share=bad_share,
        faults=tuple(fault for fault in FAULTS if fault in names),
        too_large_bytes=too_large_bytes,
    )
    with progress_display({"generate": ("generating", "")}) as progress:
        summary = write_events(chosen, output, truth, images, progress)
    if output is not None:
        broken = sum(summary.rejections.values())
        drawn = f", {summary.images:,} images" if images is not None else ""
        typer.echo(f"{summary.events:,} events, {broken:,} of them broken{drawn}: {output}", err=True)
