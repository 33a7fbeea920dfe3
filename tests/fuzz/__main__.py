"""`make fuzz`: a seeded run of many inputs, led by coverage where atheris is installed.

An input that fails is written to a file, and the run ends with its traceback and status 1.
"""

from __future__ import annotations

import argparse
import inspect
import os
import random
import sys
import tempfile
import time
import traceback
from pathlib import Path
from typing import Any

try:
    import atheris
except ImportError:  # it has no wheels for this platform
    atheris = None

from benchmarks.environment import environment
from benchmarks.report import write_report
from tests.fuzz.mutate import Mutator
from tests.fuzz.seeds import seeds
from tests.fuzz.target import Target

MAX_INPUT_BYTES = 70_000
INSTRUMENTED = "stream_cluster.messages"
"""Modules whose branches lead the way."""


class Run:
    """One run: counts, and its end."""

    def __init__(self, options: argparse.Namespace) -> None:
        self._options = options
        self._environment = environment()
        self._began = time.monotonic()
        self._told = self._began
        self.target = Target()

    def one(self, data: bytes) -> bool:
        """Check one input, true if anything accepts it. The last one, and one that fails, end the process."""
        try:
            is_accepted = self.target.check(data)
        except BaseException:
            self._fail(data)
            raise
        now = time.monotonic()
        if now - self._told > 10:
            self._told = now
            rate = self.target.inputs / (now - self._began)
            print(f"{self.target.inputs} inputs, {rate:.0f}/s", flush=True)
        if self.target.inputs >= self._options.inputs or now - self._began > self._options.seconds:
            self._end()
        return is_accepted

    def _fail(self, data: bytes) -> None:
        path = Path(self._options.failures) / f"fuzz-{self._options.seed}-{self.target.inputs}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
        traceback.print_exc()
        print(f"failed: input {self.target.inputs} of seed {self._options.seed}, written to {path}")
        print(f"once more: python -m tests.fuzz --only {path}", flush=True)
        _exit(1)

    def _end(self) -> None:
        target = self.target
        try:
            target.store()
        except BaseException:
            self._fail(b"")
        seconds = time.monotonic() - self._began
        accepted = {name: n for name, n in target.verdicts.items() if name.startswith("accepted")}
        results = {
            "inputs": target.inputs,
            "failures": 0,
            "seconds": round(seconds, 1),
            "executions_per_s": round(target.inputs / seconds),
            "accepted": sum(accepted.values()),
            "accepted_by_action": {name.split()[1]: n for name, n in sorted(accepted.items())},
            "accepted_and_stored": target.stored,
            "rejections": {name: n for name, n in sorted(target.verdicts.items()) if name not in accepted},
            "other_decoders": dict(sorted(target.others.items())),
        }
        print(results, flush=True)
        write_report(
            self._options.write,
            "fuzz",
            "make fuzz",
            parameters={"seed": self._options.seed, "inputs": self._options.inputs},
            environment=self._environment,
            results=results,
            engine="atheris" if self._options.engine == "atheris" else "seeded mutations",
        )
        _exit(0)


def _exit(status: int) -> None:
    sys.stdout.flush()
    sys.stderr.flush()
    # libFuzzer has the process: it would not end otherwise.
    os._exit(status)


def _instrument() -> int:
    """Let atheris see the branches of everything that decodes; the number of functions."""
    count = 0
    modules = {name: module for name, module in sys.modules.items() if name.startswith(INSTRUMENTED)}
    for name, module in modules.items():
        for member in vars(module).values():
            own = vars(member).values() if inspect.isclass(member) else [member]
            for function in own:
                if inspect.isfunction(function) and function.__module__ == name:
                    # Its import hook leaves these modules as they are: they come by an editable install.
                    atheris.instrument_func(function)
                    count += 1
    return count


def _by_coverage(run: Run, mutator: Mutator, seed: int) -> None:
    def mutate(data: bytes, max_size: int, number: int) -> bytes:
        changed = mutator(data, number, lambda body: atheris.Mutate(body, max(1, len(body) + 16)))
        return changed[:max_size]

    def one(data: bytes) -> None:
        # Any other result than None would keep the input out of the corpus.
        run.one(data)

    with tempfile.TemporaryDirectory(prefix="stream-cluster-corpus-") as folder:
        for number, data in enumerate(seeds()):
            (Path(folder) / f"{number:05}").write_bytes(data)
        flags = [f"-seed={seed}", f"-max_len={MAX_INPUT_BYTES}", "-timeout=60", "-rss_limit_mb=4096"]
        flags += ["-print_final_stats=0", "-verbosity=0", "-close_fd_mask=0", "-len_control=0"]
        print(f"{_instrument()} functions instrumented", flush=True)
        atheris.Setup([sys.argv[0], *flags, folder], one, custom_mutator=mutate)
        atheris.Fuzz()


def _by_seed(run: Run, mutator: Mutator, seed: int) -> None:
    choose = random.Random(seed)
    pool = seeds()
    for data in pool:
        run.one(data)
    while True:
        data = mutator(pool[choose.randrange(len(pool))], choose.getrandbits(32))
        # What is accepted is a better beginning than what is not.
        if run.one(data) and len(pool) < 5000:
            pool.append(data)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1_200_000, help="how many")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="longest time")
    parser.add_argument("--seed", type=int, default=20260501)
    parser.add_argument("--engine", choices=["atheris", "seeded"], default="atheris" if atheris else "seeded")
    parser.add_argument("--only", type=Path, help="check this one input, and nothing else")
    parser.add_argument("--failures", default="fuzz-output", help="folder for inputs that fail")
    parser.add_argument("--write", type=Path, help="result as JSON")
    return parser.parse_args()


def main() -> None:
    """Run; ends the process."""
    options = _arguments()
    if options.only is not None:
        target = Target()
        target.check(options.only.read_bytes())
        target.store()
        print(target.verdicts, target.others)
        return
    run, mutator = Run(options), Mutator(seeds())
    print(f"seed {options.seed}, engine {options.engine}", flush=True)
    engine: Any = _by_coverage if options.engine == "atheris" else _by_seed
    engine(run, mutator, options.seed)


if __name__ == "__main__":
    main()
