"""TLS and SASL against a broker that demands them; what goes wrong is told, and no secret is."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from stream_cluster.generate import GenerateOptions, generate_events
from stream_cluster.sandbox.broker import RouteClosed
from tests.conftest import no_broker
from tests.support.client import client_of, clustering
from tests.support.secure import CLIENT_SECRET, PASSWORD, USER, SecureBroker, secure_broker, token_endpoint
from tests.support.service import ServiceProcess, http_get, make_topics, overrides_of

pytestmark = pytest.mark.broker
SECRETS = (PASSWORD, CLIENT_SECRET, "eyJ")
"""The last is how every token begins."""


@pytest.fixture(scope="module")
def secure(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SecureBroker]:
    """One broker for all tests."""
    try:
        with secure_broker(tmp_path_factory.mktemp("secure")) as broker:
            yield broker
    except RouteClosed as reason:
        no_broker(reason)


def _security(secure: SecureBroker, way: str, token_url: str = "") -> dict[str, Any]:
    tls = {"kafka.ssl_ca_file": str(secure.ca)}
    sasl = {"kafka.sasl_username": USER, "kafka.sasl_password": PASSWORD}
    oauth = {
        "kafka.oauth_token_url": token_url,
        "kafka.oauth_client_id": USER,
        "kafka.oauth_client_secret": CLIENT_SECRET,
    }
    listener, protocol, more = {
        "TLS": ("TLS", "SSL", tls),
        "mTLS": ("MTLS", "SSL", {**tls, "kafka.ssl_cert_file": str(secure.client_cert)}),
        "PLAIN": ("SASLTLS", "SASL_SSL", {**tls, **sasl, "kafka.sasl_mechanism": "PLAIN"}),
        "SCRAM": ("SASLTLS", "SASL_SSL", {**tls, **sasl, "kafka.sasl_mechanism": "SCRAM-SHA-512"}),
        "SCRAM without TLS": ("SASL", "SASL_PLAINTEXT", {**sasl, "kafka.sasl_mechanism": "SCRAM-SHA-512"}),
        "OAUTHBEARER": ("SASLTLS", "SASL_SSL", {**tls, **oauth, "kafka.sasl_mechanism": "OAUTHBEARER"}),
    }[way]
    return {
        "kafka.bootstrap_servers": secure.address(listener),
        "kafka.security_protocol": protocol,
        "log.level": "debug",
        **more,
    }


@pytest.mark.parametrize("way", ["TLS", "mTLS", "PLAIN", "SCRAM", "SCRAM without TLS", "OAUTHBEARER"])
async def test_the_service_works_and_tells_no_secret(secure: SecureBroker, tmp_path: Path, way: str) -> None:
    topics = await make_topics(secure.broker, "secure")
    with token_endpoint() as url:
        overrides = {**overrides_of(secure.broker, topics, tmp_path), **_security(secure, way, url)}
        with ServiceProcess(overrides, tmp_path / "log") as process:
            async with client_of(secure.broker, topics) as client:
                await client.produce(generate_events(GenerateOptions(events=50, dim=16)))
                await client.submit(clustering("task", threshold=0.5))
                archive = await client.archive("task", timeout_s=60)
            assert len(archive.ids) == 50
            status, metrics = await http_get(process.http_port(), "/metrics")
            assert status == 200
            process.terminate()
            await asyncio.to_thread(process.wait, 60)
        for secret in SECRETS:
            assert secret not in process.log()
            assert secret not in metrics


WRONG: dict[str, tuple[str, dict[str, str], str]] = {
    "wrong password": ("PLAIN", {"kafka.sasl_password": "wrong-password-of-a-test"}, "Authentication"),
    "wrong SCRAM password": ("SCRAM", {"kafka.sasl_password": "wrong-password-of-a-test"}, "Authentication"),
    "wrong authority": ("TLS", {"kafka.ssl_ca_file": "OTHER"}, "its certificate is refused"),
    "wrong host name": ("TLS", {"kafka.bootstrap_servers": "LOCALHOST"}, "ostname mismatch"),
    "plain text to TLS": (
        "TLS",
        {"kafka.security_protocol": "PLAINTEXT", "kafka.ssl_ca_file": ""},
        "it speaks TLS, but",
    ),
    "TLS to plain text": ("TLS", {"kafka.bootstrap_servers": "PLAINTEXT"}, "it may speak no TLS"),
    "no client certificate": ("mTLS", {"kafka.ssl_cert_file": ""}, "ask for a certificate of ours"),
}


@pytest.mark.parametrize("wrong", WRONG)
async def test_what_is_wrong_is_told_without_secrets(
    secure: SecureBroker, tmp_path: Path, wrong: str
) -> None:
    way, changes, expected = WRONG[wrong]
    topics = await make_topics(secure.broker, "insecure")
    overrides = {**overrides_of(secure.broker, topics, tmp_path), **_security(secure, way), **changes}
    overrides["kafka.connect_timeout_s"] = 2
    address = overrides["kafka.bootstrap_servers"]
    if address == "LOCALHOST":
        overrides["kafka.bootstrap_servers"] = secure.address("TLS").replace("127.0.0.1", "localhost")
    elif address == "PLAINTEXT":
        overrides["kafka.bootstrap_servers"] = secure.broker.bootstrap_servers
    if overrides.get("kafka.ssl_ca_file") == "OTHER":
        overrides["kafka.ssl_ca_file"] = str(secure.other_ca)
    overrides = {name: value for name, value in overrides.items() if value != ""}
    with ServiceProcess(overrides, tmp_path / "log") as process:
        code, _ = await asyncio.to_thread(process.wait, 90)
        assert code != 0
        (failed,) = process.logged("service_failed")
        assert failed["kind"] == "BrokerUnavailable"
        assert expected in failed["error"]
        assert str(overrides["kafka.bootstrap_servers"]) in failed["error"]
        for secret in (*SECRETS, "wrong-password-of-a-test"):
            assert secret not in process.log()
