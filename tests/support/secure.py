"""A broker that demands TLS, SASL or both, with certificates made for it."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from time import time
from typing import Any

import trustme
from confluent_kafka.admin import (
    AdminClient,
    ScramCredentialInfo,
    ScramMechanism,
    UserScramCredentialUpsertion,
)
from cryptography.hazmat.primitives import serialization

from stream_cluster.sandbox import LocalBroker, start_local_broker
from stream_cluster.sandbox.broker import BrokerOptions

USER, PASSWORD = "worker", "hunter2-secret-of-sasl"
CLIENT_SECRET = "secret-of-the-oauth-client"


@dataclass(frozen=True)
class SecureBroker:
    """The broker, and the files that clients need."""

    broker: LocalBroker
    ca: Path
    other_ca: Path
    client_cert: Path

    def address(self, listener: str) -> str:
        """TLS, MTLS, SASL, or SASLTLS."""
        return self.broker.addresses(listener)


def _options(folder: Path, ca: trustme.CA, name: str) -> BrokerOptions:
    server = ca.issue_cert(name)
    store = folder / "server.pem"
    key = serialization.load_pem_private_key(server.private_key_pem.bytes(), None)
    # Kafka reads no other form of a key.
    form = serialization.PrivateFormat.PKCS8
    pem = key.private_bytes(serialization.Encoding.PEM, form, serialization.NoEncryption())
    store.write_bytes(pem + b"".join(blob.bytes() for blob in server.cert_chain_pems))
    ca.cert_pem.write_to_path(folder / "ca.pem")
    plain = "org.apache.kafka.common.security.plain.PlainLoginModule required"
    scram = "org.apache.kafka.common.security.scram.ScramLoginModule required;"
    oauth = "org.apache.kafka.common.security.oauthbearer.OAuthBearerLoginModule required"
    properties = {
        "ssl.keystore.type": "PEM",
        "ssl.keystore.location": str(store),
        "ssl.truststore.type": "PEM",
        "ssl.truststore.location": str(folder / "ca.pem"),
        "sasl.enabled.mechanisms": "PLAIN,SCRAM-SHA-512,OAUTHBEARER",
        "listener.name.mtls.ssl.client.auth": "required",
    }
    for listener in ("sasl", "sasltls"):
        prefix = f"listener.name.{listener}"
        properties |= {
            f"{prefix}.plain.sasl.jaas.config": f'{plain} user_{USER}="{PASSWORD}";',
            f"{prefix}.scram-sha-512.sasl.jaas.config": scram,
            f"{prefix}.oauthbearer.sasl.jaas.config": f'{oauth} unsecuredLoginStringClaim_sub="broker";',
        }
    listeners = {"TLS": "SSL", "MTLS": "SSL", "SASL": "SASL_PLAINTEXT", "SASLTLS": "SASL_SSL"}
    return BrokerOptions(extra_listeners=listeners, extra_properties=properties)


@contextmanager
def secure_broker(folder: Path, name: str = "127.0.0.1") -> Iterator[SecureBroker]:
    """A broker whose certificate is for `name`. Raises RouteClosed."""
    ca, other = trustme.CA(), trustme.CA()
    other.cert_pem.write_to_path(folder / "other.pem")
    client = folder / "client.pem"
    ca.issue_cert("client.test").private_key_and_cert_chain_pem.write_to_path(client)
    with start_local_broker(_options(folder, ca, name), lambda _: None) as broker:
        admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
        credentials = ScramCredentialInfo(ScramMechanism.SCRAM_SHA_512, 4096)
        upsertion = UserScramCredentialUpsertion(USER, credentials, PASSWORD.encode())
        for future in admin.alter_user_scram_credentials([upsertion]).values():
            future.result(30)
        yield SecureBroker(broker, folder / "ca.pem", folder / "other.pem", client)


class _Tokens(BaseHTTPRequestHandler):
    def do_POST(self) -> None:
        expected = base64.b64encode(f"{USER}:{CLIENT_SECRET}".encode()).decode()
        good = self.headers["Authorization"] == f"Basic {expected}"
        now = int(time())
        claims: dict[str, Any] = {"sub": USER, "iat": now, "exp": now + 600}
        parts = [
            base64.urlsafe_b64encode(json.dumps(one).encode()).rstrip(b"=")
            for one in ({"alg": "none"}, claims)
        ]
        token = b".".join(parts).decode() + "."
        body = json.dumps({"access_token": token, "expires_in": 600}).encode()
        self.send_response(200 if good else 401)
        self.send_header("Content-Type", "application/json")
        self.end_headers()
        self.wfile.write(body if good else b"{}")

    def log_message(self, *_: object) -> None:
        """Nothing."""


@contextmanager
def token_endpoint() -> Iterator[str]:
    """The URL of an endpoint of the client-credentials grant."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), _Tokens)
    Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/token"
    finally:
        server.shutdown()
        server.server_close()
