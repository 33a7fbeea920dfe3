from __future__ import annotations

import asyncio
import os
import signal

import pytest

from stream_cluster.cli.signals import run_until_interrupted


def test_work_that_ends_by_itself_gives_its_result_or_its_error():
    async def work():
        return 7

    async def broken():
        raise ValueError("broken")

    assert run_until_interrupted(work()) == 7
    with pytest.raises(ValueError, match="broken"):
        run_until_interrupted(broken())


def test_ctrl_c_ends_work_that_loses_a_cancellation():
    cancellations = 0

    async def forgetful():
        nonlocal cancellations
        os.kill(os.getpid(), signal.SIGINT)
        while True:
            try:
                await asyncio.sleep(60)
            except asyncio.CancelledError:
                cancellations += 1
                if cancellations == 2:
                    raise

    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(forgetful())
    assert cancellations == 2
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler


def test_ctrl_c_lets_the_work_clean_up_first():
    cleaned = []

    async def work():
        os.kill(os.getpid(), signal.SIGINT)
        try:
            await asyncio.sleep(60)
        finally:
            await asyncio.sleep(0)
            cleaned.append(True)

    with pytest.raises(KeyboardInterrupt):
        run_until_interrupted(work())
    assert cleaned == [True]
