"""Real faces calibrate to a scale whose suggested threshold clusters them well. No broker is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from benchmarks.faces import read_clusters, read_faces
from stream_cluster.evaluation.measures import measure
from tests.support.cli import invoke
from tests.support.faces import require_faces


def test_real_faces_are_clustered_well_at_the_calibrated_threshold(tmp_path: Path) -> None:
    faces = read_faces(require_faces())
    labelled = tmp_path / "faces.npz"
    np.savez(labelled, ids=np.array(faces.ids), descriptors=faces.vectors, labels=faces.people)
    result = invoke("calibrate", labelled, "--descriptor-version", "1", "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    pairs = len(faces.ids) * (len(faces.ids) - 1) // 2
    assert found["genuine_pairs"] + found["impostor_pairs"] == pairs
    assert found["equal_error"]["rate"] < 0.01
    at_target = next(row for row in found["at_fmr"] if row["target"] == 1e-5)
    assert at_target["fmr"]["value"] <= 1e-5
    assert at_target["fnmr"]["value"] < 0.1

    config, archive = tmp_path / "settings.toml", tmp_path / "faces.zip"
    config.write_text(found["settings"])
    result = invoke("cluster", labelled, "--config", config, "--descriptor-version", "1", "-o", archive)
    assert result.exit_code == 0, result.stderr
    quality = measure(read_clusters(archive, faces.ids), faces.people)
    assert quality.bcubed.f > 0.95
