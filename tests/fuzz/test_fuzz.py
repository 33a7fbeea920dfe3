"""A short run of the fuzzer, and that it would see what is wrong."""

from __future__ import annotations

import random
import subprocess
import sys
from pathlib import Path

import pytest

from stream_cluster.messages import Rejection
from tests.fuzz import target as fuzz_target
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import seeds
from tests.fuzz.target import Target


def test_thousands_of_changed_messages_raise_nothing() -> None:
    choose, pool, target = random.Random(7), seeds(), Target()
    mutator = Mutator(pool)
    for data in pool:
        target.check(data)
    for _ in range(4000):
        target.check(mutator(choose.choice(pool), choose.getrandbits(32)))
    target.store()
    assert target.inputs == 4000 + len(pool)
    assert target.stored > 50
    assert {"undecodable", "bad_field", "missing_field", "too_large", "accepted upsert"} <= set(
        target.verdicts
    )


def test_equal_seeds_give_equal_inputs() -> None:
    mutator = Mutator(seeds())
    made = [[mutator(data, 5) for data in seeds()] for _ in range(2)]
    assert made[0] == made[1]
    assert made[0] != seeds()


def test_an_exception_and_a_wrong_value_are_failures(monkeypatch: pytest.MonkeyPatch) -> None:
    def explode(*_: object) -> list[Rejection]:
        raise RecursionError

    for broken in (explode, lambda *_: ["neither"]):
        monkeypatch.setattr(fuzz_target, "decode_events", broken)
        with pytest.raises((RecursionError, AssertionError)):
            Target().check(seeds()[0])


@pytest.mark.parametrize("engine", ["atheris", "seeded"])
def test_a_run_writes_its_result(tmp_path: Path, engine: str) -> None:
    if engine == "atheris":
        pytest.importorskip("atheris")
    command = [sys.executable, "-m", "tests.fuzz", "--engine", engine, "--inputs", "600"]
    result = tmp_path / "fuzz.json"
    done = subprocess.run([*command, "--write", str(result)], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert '"inputs": 600' in result.read_text()
