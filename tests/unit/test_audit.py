"""What is said of the packages' known weaknesses, and when that fails."""

from __future__ import annotations

import json

from deploy.audit import judge

GOOD = {"name": "a", "version": "1", "vulns": []}
BAD = {"name": "b", "version": "2", "vulns": [{"id": "PYSEC-1", "fix_versions": ["3"]}]}
UNKNOWN = {"name": "c", "skip_reason": "not found"}


def said(*packages):
    return judge(json.dumps({"dependencies": packages}), "")


def test_a_known_weakness_fails_and_names_the_package_and_the_version_that_mends_it():
    text, is_vulnerable = said(GOOD, BAD, UNKNOWN)
    assert is_vulnerable
    assert "b 2: PYSEC-1, mended in 3" in text
    assert "c: not audited" in text


def test_no_weakness_does_not_fail():
    assert said(GOOD) == ("audit: 0 known weaknesses in 1 of 1 packages", False)


def test_without_an_advisory_service_it_says_loudly_that_nothing_was_compared():
    for text, is_vulnerable in (said(UNKNOWN), judge("", "connection refused"), judge("[]", "")):
        assert not is_vulnerable
        assert "SKIPPED" in text
        assert "NOT compared" in text
    assert "connection refused" in judge("", "x\nconnection refused")[0]
