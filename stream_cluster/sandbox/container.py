"""A broker in a container, through testcontainers."""

from __future__ import annotations

from typing import Any, ClassVar

from stream_cluster.sandbox.broker import Broker, BrokerKind, BrokerOptions, Report, RouteClosed

ENGINE_TIMEOUT_S = 3
"""How long the Docker daemon may take to answer a ping, in seconds."""


class ContainerBroker(Broker):
    """Kafka in a container that is removed at the end, by testcontainers' reaper if this process dies."""

    kind: ClassVar[BrokerKind] = "docker"

    def __init__(self, container: Any, description: str) -> None:
        super().__init__(container.get_bootstrap_server(), description)
        self._container: Any | None = container

    def stop(self) -> None:
        """Stop and remove the container and its volumes."""
        if self._container is not None:
            self._container.stop()
            self._container = None


def require_engine() -> None:
    """Raise RouteClosed unless a Docker daemon answers: a docker program on PATH is not an engine."""
    try:
        import docker  # type: ignore[import-untyped]  # noqa: PLC0415 - a development dependency
        import requests  # noqa: PLC0415
    except ImportError as error:
        raise RouteClosed(f"no Python client for Docker is installed ({error})") from error
    try:
        client = docker.from_env(timeout=ENGINE_TIMEOUT_S)
        try:
            client.ping()
        finally:
            client.close()
    except (docker.errors.DockerException, requests.RequestException, OSError) as error:
        raise RouteClosed(f"no Docker engine answers ({error})") from error


def environment(options: BrokerOptions) -> dict[str, str]:
    """The settings as environment variables of the image: `a.b_c-d` becomes KAFKA_A_B__C___D."""
    settings = {
        "auto.create.topics.enable": "false",
        "message.max.bytes": str(options.message_max_bytes),
        "replica.fetch.max.bytes": str(options.message_max_bytes),
        "socket.request.max.bytes": str(max(100 * 1024 * 1024, 2 * options.message_max_bytes)),
        "transaction.state.log.replication.factor": "1",
        "transaction.state.log.min.isr": "1",
        **options.extra_properties,
    }
    variables = {
        "KAFKA_" + name.replace("_", "__").replace("-", "___").replace(".", "_").upper(): value
        for name, value in settings.items()
    }
    variables["KAFKA_HEAP_OPTS"] = f"-Xms128m -Xmx{options.heap_max_mib}m"
    return variables


def start_container(options: BrokerOptions, report: Report) -> Broker:
    """Kafka in a container. Raises RouteClosed when there is no engine or the container does not come up."""
    require_engine()
    if options.brokers > 1 or options.extra_listeners:
        raise RouteClosed("the container has one broker with one listener, and more were asked for")
    try:
        from testcontainers.community.kafka import KafkaContainer  # noqa: PLC0415 - a development dependency
    except ImportError as error:
        raise RouteClosed(f"testcontainers is not installed ({error})") from error
    container = KafkaContainer().with_kraft()
    for name, value in environment(options).items():
        container.with_env(name, value)
    report(f"starting {container.image} in a container")
    try:
        container.start(timeout=int(options.start_timeout_s))
        return ContainerBroker(container, f"Kafka in a container ({container.image})")
    except BaseException as error:
        container.stop()
        if isinstance(error, Exception):
            # Whatever goes wrong in an engine (no image, no network, no memory), the next way may work.
            raise RouteClosed(f"the container did not come up ({error})") from error
        raise
