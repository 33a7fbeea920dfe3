"""Why no broker could be talked to: one more attempt at each address, for what it says.

aiokafka logs what goes wrong with a connection and then raises that there is none. An operator needs the
cause: a certificate, a password, a listener of another kind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
from collections.abc import Mapping
from typing import Any

from aiokafka.conn import create_conn
from aiokafka.errors import KafkaError

from stream_cluster.config.settings import KafkaSettings
from stream_cluster.errors import StreamClusterError

_ATTEMPT_S = 5.0


async def trouble_of(settings: KafkaSettings, options: Mapping[str, Any]) -> str:
    """What each bootstrap server does with a connection, in one line. Never raises; holds no secret.

    `options`: as `connection_options` gives them.
    """
    return "; ".join(
        [
            f"{server}: {await _attempt(server, settings, options)}"
            for server in map(str.strip, settings.bootstrap_servers.split(","))
        ]
    )


async def _attempt(server: str, settings: KafkaSettings, options: Mapping[str, Any]) -> str:
    host, _, port = server.rpartition(":")
    more = {name: value for name, value in options.items() if name.startswith(("sasl_", "ssl_", "client_id"))}
    protocol = settings.security_protocol
    try:
        async with asyncio.timeout(2 * _ATTEMPT_S):
            connection = await create_conn(
                host.strip("[]"),
                int(port),
                security_protocol=protocol,
                request_timeout_ms=round(_ATTEMPT_S * 1000),
                **more,
            )
            connection.close()
    except ssl.SSLCertVerificationError as error:
        settings_to_see = "kafka.ssl_ca_file, kafka.ssl_check_hostname"
        return f"its certificate is refused, {error.verify_message} ({settings_to_see})"
    except ssl.SSLError as error:
        return f"it does not speak TLS as asked for, {error.reason} (kafka.security_protocol is {protocol})"
    except (KafkaError, StreamClusterError, OSError, ValueError) as error:
        detail = _told(error)
    else:
        detail = "it takes connections and does not answer"
    # A listener of another kind closes the connection, or never answers; it does not say why.
    if protocol in ("PLAINTEXT", "SASL_PLAINTEXT") and await _speaks_tls(host.strip("[]"), port):
        return f"it speaks TLS, but kafka.security_protocol is {protocol}"
    if protocol == "SSL":
        hint = "; it may speak no TLS, or ask for a certificate of ours" if not settings.ssl_cert_file else ""
        return f"{detail} (kafka.security_protocol is SSL{hint}: kafka.ssl_cert_file)"
    if protocol.startswith("SASL"):
        return f"{detail} (kafka.sasl_mechanism is {settings.sasl_mechanism})"
    return f"{detail} (kafka.security_protocol is {protocol})"


def _told(error: BaseException) -> str:
    return f"{type(error).__name__}: {error}"[:400]


async def _speaks_tls(host: str, port: str) -> bool:
    """Whether a TLS handshake begins there. What the certificate is worth is not asked."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    try:
        async with asyncio.timeout(_ATTEMPT_S):
            _, writer = await asyncio.open_connection(host, int(port), ssl=context)
    except ssl.SSLError as error:
        # It wants a certificate of ours: that is TLS too.
        return "CERTIFICATE" in (error.reason or "")
    except (OSError, ValueError):
        return False
    writer.close()
    with contextlib.suppress(OSError, ssl.SSLError):
        await writer.wait_closed()
    return True
