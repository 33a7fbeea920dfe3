"""`make audit`: weaknesses that a static analyser sees, and known ones of the packages that the image has.

Advisories come from the service behind the configured package index. Not every index has one: then this says
so, loudly, and does not fail, because nothing that a developer could mend is wrong.
"""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

_ROOT = Path(__file__).parent.parent
_LOCK = _ROOT / "requirements-run.lock"
_TIMEOUT_S = 300
# SQL there is put together from constant column names; ruff has the same rule everywhere else.
_SKIPPED = "B608"


def main() -> int:
    """Run both; 1 when something was found."""
    # Medium and high: what is low there has a rule of ruff.
    bandit = [sys.executable, "-m", "bandit", "-q", "-r", "stream_cluster", "-ll", "-s", _SKIPPED]
    failed = subprocess.run(bandit, cwd=_ROOT, check=False).returncode != 0
    command = [sys.executable, "-m", "pip_audit", "-r", str(_LOCK), "--disable-pip", "--progress-spinner=off"]
    try:
        done = subprocess.run(
            [*command, "--format=json"], capture_output=True, text=True, timeout=_TIMEOUT_S, check=False
        )
    except subprocess.TimeoutExpired:
        text, is_vulnerable = _skipped(f"no answer within {_TIMEOUT_S} s"), False
    else:
        text, is_vulnerable = judge(done.stdout, done.stderr)
    sys.stdout.write(f"{text}\n")
    return int(failed or is_vulnerable)


def judge(output: str, errors: str) -> tuple[str, bool]:
    """(what to say of the output of pip-audit, whether a package is vulnerable)."""
    try:
        packages: list[dict[str, Any]] = json.loads(output)["dependencies"]
    except (ValueError, KeyError, TypeError):
        lines = errors.strip().splitlines()
        return _skipped(lines[-1] if lines else "pip-audit said nothing"), False
    audited = [package for package in packages if "skip_reason" not in package]
    if not audited:
        return _skipped(f"none of {len(packages)} packages is known to the index's advisory service"), False
    found = [
        f"  {package['name']} {package['version']}: {one['id']}, mended in {', '.join(one['fix_versions'])}"
        for package in audited
        for one in package["vulns"]
    ]
    left_out = [f"  {package['name']}: not audited" for package in packages if package not in audited]
    head = f"audit: {len(found)} known weaknesses in {len(audited)} of {len(packages)} packages"
    return "\n".join([head, *found, *left_out]), bool(found)


def _skipped(why: str) -> str:
    line = "!" * 78
    return f"{line}\naudit: SKIPPED, the packages were NOT compared with advisories: {why}\n{line}"


if __name__ == "__main__":
    sys.exit(main())
