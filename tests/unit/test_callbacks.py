"""Callbacks of ended tasks, to a real HTTP server."""

from __future__ import annotations

import hashlib
import hmac
import json
import re
import time
from pathlib import Path

import pytest

from stream_cluster.config import load_settings
from stream_cluster.errors import ConfigError
from stream_cluster.service.callbacks import AllowedHosts, sign
from tests.support.http import Receiver
from tests.support.kafka import eventually
from tests.support.life import Life, fill

SECRET = "a long secret"


@pytest.fixture
def folder(tmp_path):
    fill(tmp_path)
    return tmp_path


@pytest.fixture
def receiver():
    with Receiver() as found:
        yield found


def allowing(*hosts, **more):
    return {
        "callbacks__allowed_hosts": ",".join(hosts),
        "callbacks__secret": SECRET,
        "callbacks__backoff_s": 0.02,
        "callbacks__timeout_s": 0.3,
        "callbacks__attempts": 3,
        **more,
    }


def results(life):
    return {
        result: life.metrics.callbacks.labels(result)._value.get()
        for result in ("delivered", "retried", "given_up")
    }


async def paid(life, task_id="t"):
    """Return when nothing is owed any more."""
    await life.has_ended(task_id)
    await eventually(lambda: life.row(task_id).callback is None, 10, "the callback to be settled")


async def test_the_last_status_is_posted_with_a_signature_that_the_receiver_can_check(folder, receiver):
    async with Life(folder, **allowing(receiver.host)) as life:
        await life.submit(callback_url=f"{receiver.url}?token=1")
        status = await life.has_ended()
        await paid(life)
    ((path, headers, body),) = receiver.calls
    assert path == "/hook?token=1"
    posted = json.loads(body)
    assert (posted["status"], posted["task_id"], posted["account_id"]) == ("done", "t", "acme")
    assert posted["result_url"] == status.result_url == status.archive.url
    assert posted["archive"]["sha256"] == status.archive.sha256
    assert headers["content-type"] == "application/json"
    # As docs/tasks.md tells receivers to do it.
    found = re.fullmatch(r"t=(\d+),v1=([0-9a-f]{64})", headers["x-stream-cluster-signature"])
    assert abs(time.time() - int(found[1])) < 60
    expected = hmac.new(SECRET.encode(), found[1].encode() + b"." + body, hashlib.sha256).hexdigest()
    assert hmac.compare_digest(found[2], expected)
    assert results(life) == {"delivered": 1, "retried": 0, "given_up": 0}


def test_the_receiver_in_the_documentation_takes_what_is_signed_and_nothing_else():
    page = (Path(__file__).parents[2] / "docs" / "tasks.md").read_text(encoding="utf-8")
    names = {}
    exec(page.split("```python\n")[1].split("```")[0], names)
    is_genuine = names["is_genuine"]
    now_s, body = int(time.time()), b'{"task_id": "t"}'
    assert is_genuine(sign(SECRET, now_s, body), body, SECRET)
    assert not is_genuine(sign(SECRET, now_s, body), body + b" ", SECRET)
    assert not is_genuine(sign(SECRET, now_s - 600, body), body, SECRET)
    assert not is_genuine(sign("other", now_s, body), body, SECRET)


def test_a_signature_is_that_of_time_and_body():
    signature = sign("key", 1_700_000_000, b"{}")
    # printf '1700000000.{}' | openssl dgst -sha256 -hmac key
    assert signature == ("t=1700000000,v1=9d713ed406bb7076d4123f0dc2c39d2df5c654ed4b0cd56b52c8b4c940bd63ae")
    assert sign("key", 1_700_000_001, b"{}") != signature
    assert sign("other", 1_700_000_000, b"{}") != signature


async def test_a_failed_and_a_cancelled_task_call_back_too(folder, receiver):
    async with Life(folder, **allowing(receiver.host)) as life:
        await life.submit("failed", content={"descriptor_type": "body"}, callback_url=receiver.url)
        await life.submit("cancelled", barrier=10**9, callback_url=receiver.url)
        await life.cancel("cancelled")
        await paid(life, "failed")
        await paid(life, "cancelled")
    posted = {json.loads(body)["task_id"]: json.loads(body) for _, _, body in receiver.calls}
    assert posted["failed"]["error"]["code"] == "empty_selection"
    assert posted["cancelled"]["status"] == "cancelled"


async def test_a_server_error_is_tried_again(folder, receiver):
    receiver.answers = [(500, {}, 0.0), (429, {}, 0.0)]
    async with Life(folder, **allowing(receiver.host)) as life:
        await life.submit(callback_url=receiver.url)
        await paid(life)
    assert len(receiver.calls) == 3
    assert len({body for _, _, body in receiver.calls}) == 1
    assert results(life) == {"delivered": 1, "retried": 2, "given_up": 0}


async def test_a_receiver_that_does_not_answer_in_time_is_given_up_and_the_task_is_done(folder, receiver):
    receiver.answers = [(200, {}, 5.0)] * 3
    async with Life(folder, **allowing(receiver.host)) as life:
        began = time.monotonic()
        await life.submit(callback_url=receiver.url)
        await paid(life)
        assert time.monotonic() - began < 4
        assert life.row().status == "done"
    assert len(receiver.calls) == 3
    assert results(life) == {"delivered": 0, "retried": 2, "given_up": 1}


@pytest.mark.parametrize("status", [301, 302, 307, 308])
async def test_a_redirect_is_not_followed(folder, receiver, status):
    with Receiver() as elsewhere:
        receiver.answers = [(status, {"Location": elsewhere.url}, 0.0)]
        async with Life(folder, **allowing(receiver.host, elsewhere.host)) as life:
            await life.submit(callback_url=receiver.url)
            await paid(life)
        assert elsewhere.calls == []
    assert len(receiver.calls) == 1
    assert results(life)["given_up"] == 1


async def test_an_answer_that_refuses_is_not_tried_again(folder, receiver):
    receiver.answers = [(410, {}, 0.0)]
    async with Life(folder, **allowing(receiver.host)) as life:
        await life.submit(callback_url=receiver.url)
        await paid(life)
    assert len(receiver.calls) == 1


async def test_a_host_that_is_not_allowed_fails_the_task_and_is_named(folder, receiver):
    async with Life(folder, **allowing("hooks.example.org")) as life:
        await life.submit(callback_url=receiver.url)
        status = await life.has_ended()
    assert (status.status, status.error.code) == ("failed", "bad_request")
    assert receiver.host in status.error.message
    assert "callbacks.allowed_hosts" in status.error.message
    assert receiver.calls == []


async def test_without_allowed_hosts_no_callback_is_taken(folder, receiver):
    async with Life(folder) as life:
        await life.submit(callback_url=receiver.url)
        assert (await life.has_ended()).error.code == "bad_request"
    assert receiver.calls == []


async def test_a_name_that_leads_to_a_private_address_is_refused_when_it_is_called(folder, receiver):
    port = receiver.host.partition(":")[2]
    async with Life(folder, **allowing(f"localhost:{port}")) as life:
        await life.submit(callback_url=f"http://localhost:{port}/hook")
        await paid(life)
        assert life.row().status == "done"
    assert receiver.calls == []
    assert results(life)["given_up"] == 1
    # Once the address is on the list too, the name may lead there.
    async with Life(folder, **allowing(f"localhost:{port}", receiver.host)) as life:
        await life.submit("second", callback_url=f"http://localhost:{port}/hook")
        await paid(life, "second")
    assert len(receiver.calls) == 1


async def test_a_callback_that_is_owed_when_the_process_ends_is_made_by_the_next(folder, receiver):
    receiver.answers = [(503, {}, 0.0)]
    async with Life(folder, **allowing(receiver.host, callbacks__backoff_s=60)) as life:
        await life.submit(callback_url=receiver.url)
        await life.has_ended()
        await eventually(lambda: len(receiver.calls) == 1, 5, "the first call")
    assert len(receiver.calls) == 1
    async with Life(folder, **allowing(receiver.host)) as second:
        await eventually(lambda: second.row().callback is None, 10, "the callback to be settled")
    assert len(receiver.calls) == 2
    assert receiver.calls[0][2] == receiver.calls[1][2]
    async with Life(folder, **allowing(receiver.host)):
        pass
    assert len(receiver.calls) == 2


async def test_a_host_that_was_taken_from_the_list_meanwhile_is_not_called(folder, receiver):
    receiver.answers = [(503, {}, 0.0)]
    async with Life(folder, **allowing(receiver.host, callbacks__backoff_s=60)) as life:
        await life.submit(callback_url=receiver.url)
        await life.has_ended()
        await eventually(lambda: len(receiver.calls) == 1, 5, "the first call")
    async with Life(folder, **allowing("example.org")) as second:
        await eventually(lambda: second.row().callback is None, 10, "the callback to be given up")
    assert len(receiver.calls) == 1


@pytest.mark.parametrize(
    ("allowed", "url", "is_allowed"),
    [
        ("hooks.example.org", "https://hooks.example.org/a", True),
        ("hooks.example.org", "http://HOOKS.example.org:80/a", True),
        ("hooks.example.org", "https://hooks.example.org:8443/a", False),
        ("hooks.example.org:8443", "https://hooks.example.org:8443/a", True),
        ("hooks.example.org:8443", "https://hooks.example.org/a", False),
        ("hooks.example.org", "https://hooks.example.org.evil.example/a", False),
        ("hooks.example.org", "https://evil.hooks.example.org/a", False),
        ("hooks.example.org", "https://user:pass@hooks.example.org/a", False),
        ("hooks.example.org", "https://hooks.example.org@evil.example/a", False),
        ("hooks.example.org", "ftp://hooks.example.org/a", False),
        ("127.0.0.1:80", "http://127.0.0.1/a", True),
        ("127.0.0.1", "http://2130706433/a", False),
        ("127.0.0.1", "http://127.1/a", False),
        ("[::1]:8080", "http://[::1]:8080/a", True),
        ("", "https://hooks.example.org/a", False),
        ("a, b:1 ,", "https://b:1/", True),
    ],
)
def test_the_list_names_hosts_exactly(allowed, url, is_allowed):
    assert (AllowedHosts(allowed).problem(url) is None) == is_allowed


@pytest.mark.parametrize(
    ("address", "is_allowed"),
    [
        ("93.184.216.34", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("192.168.0.7", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.0", False),
        ("224.0.0.1", False),
        ("::1", False),
        ("::ffff:10.0.0.1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("10.9.9.9", True),
    ],
)
def test_only_public_addresses_and_those_on_the_list_are_connected_to(address, is_allowed):
    assert AllowedHosts("hooks.example.org,10.9.9.9").allows_address(address, 443) == is_allowed


def test_allowed_hosts_without_a_secret_or_of_a_wrong_form_are_refused():
    with pytest.raises(ConfigError, match="found allowed hosts without a secret"):
        load_settings(None, {}, {"callbacks.allowed_hosts": "a"})
    for wrong in ("http://a", "a:port", "a/b", "user@a", ":80", "a:0"):
        with pytest.raises(ConfigError, match="expected host or host:port"):
            load_settings(None, {}, {"callbacks.allowed_hosts": wrong, "callbacks.secret": "s"})


def test_the_secret_may_come_from_a_file(tmp_path):
    (tmp_path / "secret").write_text("from a file\n")
    overrides = {"callbacks.allowed_hosts": "a", "callbacks.secret_file": str(tmp_path / "secret")}
    assert load_settings(None, {}, overrides).callbacks.secret == "from a file"


@pytest.mark.parametrize(
    ("overrides", "problem"),
    [
        ({"results.s3.endpoint": "https://s3.example.org"}, "found no bucket"),
        ({"results.presign_s": 60}, "without a bucket"),
        ({"results.s3.bucket": "b", "results.s3.access_key_id": "k"}, "expected both or none"),
        (
            {"results.s3.bucket": "b", "results.s3.endpoint": "s3.example.org"},
            r"expected an http\(s\) address",
        ),
    ],
)
def test_settings_of_the_store_that_contradict_each_other_are_refused(overrides, problem):
    with pytest.raises(ConfigError, match=problem):
        load_settings(None, {}, overrides)
