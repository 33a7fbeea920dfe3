"""Input files for the command line: generated events in every form that it reads."""

from __future__ import annotations

import base64
import gzip
import json
import zipfile
from pathlib import Path

import numpy as np

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.matching import quantise
from tests.support.oracle import naive_components, naive_links


def event_lines(**options):
    """Generated messages as JSON lines, without line ends."""
    chosen = {"events": 60, "people": 12, "dim": 16, "same_person_cosine": 0.9, **options}
    return [record.value for record in generate_events(GenerateOptions(**chosen))]


def write_lines(path: Path, lines) -> Path:
    """A file of the lines, gzipped if its name ends in `.gz`."""
    data = b"".join(line + b"\n" for line in lines)
    path.write_bytes(gzip.compress(data) if path.suffix == ".gz" else data)
    return path


def vectors_of(lines):
    """Ids and float32 descriptors of JSON lines."""
    events = [json.loads(line) for line in lines]
    rows = [np.frombuffer(base64.b64decode(event["descriptors"][0]["data"]), "<f4") for event in events]
    return [event["event_id"] for event in events], np.stack(rows)


def write_npz(path: Path, lines, *, compressed=False) -> Path:
    """An .npz of the descriptors in the lines."""
    ids, vectors = vectors_of(lines)
    (np.savez_compressed if compressed else np.savez)(path, ids=np.array(ids), descriptors=vectors)
    return path


def expected_clusters(lines, threshold):
    """Connected components of the lines' objects, by the slow oracle."""
    ids, vectors = vectors_of(lines)
    pairs = [(a, b) for a, b, _ in naive_links(quantise(vectors), threshold)]
    groups = {}
    for object_id, label in zip(ids, naive_components(len(ids), pairs), strict=True):
        groups.setdefault(label, set()).add(object_id)
    return {frozenset(group) for group in groups.values()}


def clusters_of(archive: Path):
    """The clusters in an archive, as sets of ids."""
    with zipfile.ZipFile(archive) as members:
        lines = members.read("clusters.jsonl").splitlines()
    return {frozenset(json.loads(line)["objects"]) for line in lines}


def manifest_of(archive: Path):
    """manifest.json of an archive."""
    with zipfile.ZipFile(archive) as members:
        return json.loads(members.read("manifest.json"))
