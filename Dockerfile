# The image of the service. `make check-deploy` runs the RUN lines of the stage `build` in an empty directory, so they
# use no path that does not begin with /src or /opt/stream-cluster.
ARG PYTHON=3.13.9-slim-bookworm

FROM python:${PYTHON} AS build
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ \
    && rm -rf /var/lib/apt/lists/*
WORKDIR /src
# Portable code: hnswlib would be built for the processor of this machine. The kernel chooses its instructions when it runs.
ENV HNSWLIB_NO_NATIVE=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1
RUN python3 -m venv /opt/stream-cluster
# Apart from the code, so that a change of the code does not install everything anew.
COPY requirements-run.lock ./
RUN /opt/stream-cluster/bin/pip install --quiet --require-hashes -r requirements-run.lock
COPY pyproject.toml CMakeLists.txt README.md LICENSE ./
COPY stream_cluster ./stream_cluster
RUN /opt/stream-cluster/bin/pip install --quiet --no-deps . \
    && /opt/stream-cluster/bin/pip check \
    && /opt/stream-cluster/bin/pip uninstall --quiet --yes pip \
    && find /opt/stream-cluster -name tests -type d -prune -exec rm -rf {} +

FROM python:${PYTHON}
LABEL org.opencontainers.image.title="stream-cluster" \
      org.opencontainers.image.description="Groups faces and bodies by similarity while they arrive on Kafka." \
      org.opencontainers.image.licenses="Apache-2.0"
# By number, so that Kubernetes can see that it is not root.
RUN groupadd --gid 10001 stream-cluster \
    && useradd --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin stream-cluster \
    && install --directory --owner 10001 --group 10001 --mode 0750 /var/lib/stream-cluster
COPY --from=build /opt/stream-cluster /opt/stream-cluster
ENV PATH=/opt/stream-cluster/bin:$PATH \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    STREAM_CLUSTER_STATE__DIRECTORY=/var/lib/stream-cluster/state \
    STREAM_CLUSTER_RESULTS__DIRECTORY=/var/lib/stream-cluster/results
USER 10001:10001
VOLUME /var/lib/stream-cluster
EXPOSE 8080
STOPSIGNAL SIGTERM
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=6 \
    CMD ["python", "-c", "import urllib.request as r; r.urlopen('http://127.0.0.1:8080/livez', timeout=4)"]
ENTRYPOINT ["stream-cluster"]
CMD ["run"]
