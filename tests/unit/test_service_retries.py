"""Questions and sends that outlive brokers which do not answer for a while."""

from __future__ import annotations

import pytest
from aiokafka.errors import KafkaConnectionError, MessageSizeTooLargeError

from stream_cluster.errors import BrokerUnavailable
from stream_cluster.service import kafka


@pytest.fixture(autouse=True)
def no_pause(monkeypatch):
    monkeypatch.setattr(kafka, "_RETRY_S", 0)


class Flaky:
    """Fails as often as told, then answers."""

    def __init__(self, failures, error=KafkaConnectionError):
        self.left, self.error, self.calls = failures, error, 0

    async def __call__(self):
        self.calls += 1
        if self.left:
            self.left -= 1
            raise self.error
        return "answer"


async def test_a_question_is_asked_until_it_is_answered():
    flaky = Flaky(3)
    assert await kafka.until_answered(flaky) == "answer"
    assert flaky.calls == 4


async def test_a_send_is_repeated_until_it_is_acknowledged():
    flaky = Flaky(3)
    await kafka.until_acknowledged(flaky, "topic", lambda: False)
    assert flaky.calls == 4


async def test_a_send_is_given_up_when_the_caller_says_so():
    flaky = Flaky(9)
    with pytest.raises(BrokerUnavailable, match="topic events-dead-letter: KafkaConnectionError"):
        await kafka.until_acknowledged(flaky, "events-dead-letter", lambda: flaky.calls == 3)
    assert flaky.calls == 3


async def test_a_message_that_is_too_large_is_not_sent_again():
    flaky = Flaky(9, MessageSizeTooLargeError)
    with pytest.raises(MessageSizeTooLargeError):
        await kafka.until_acknowledged(flaky, "topic", lambda: False)
    assert flaky.calls == 1
