"""Files that settings point to: secrets are read from them, certificates must be readable."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from stream_cluster.config.image_roots import ImageRoot, secret_files
from stream_cluster.errors import ConfigError

SECRET_FILES: Mapping[str, str] = {
    "kafka.sasl_password_file": "kafka.sasl_password",
    "kafka.oauth_client_secret_file": "kafka.oauth_client_secret",
    "results.s3.secret_access_key_file": "results.s3.secret_access_key",
    "backup.s3.secret_access_key_file": "backup.s3.secret_access_key",
    "callbacks.secret_file": "callbacks.secret",
}
"""Key of a file → key of the secret it holds."""

READ_BY_TLS = ("kafka.ssl_ca_file", "kafka.ssl_cert_file", "kafka.ssl_key_file")


def read_secret_files(values: dict[str, object], sources: dict[str, str]) -> None:
    """Put the content of each secret file into `values`, less line ends at its end.

    Raises ConfigError when a file cannot be read or is empty, or when the secret is given directly as well.
    """
    for file_key, secret_key in SECRET_FILES.items():
        path = values.get(file_key)
        if path is None:
            continue
        if values.get(secret_key) is not None:
            raise ConfigError(
                f"{sources[file_key]} and {sources[secret_key]}: found both, expected one of them"
            )
        secret = _read(str(path), sources[file_key]).rstrip("\r\n")
        if not secret:
            raise ConfigError(f"{sources[file_key]}: found an empty file {path}, expected a secret")
        values[secret_key] = secret
        sources[secret_key] = f"{sources[file_key]} ({path})"
    roots: tuple[ImageRoot, ...] = values.get("images.roots", ())  # type: ignore[assignment]  # converted already
    for root in roots:
        for name, path in secret_files(root).items():
            where = f"{sources['images.roots']}: root {root.prefix!r}: {name}"
            if not _read(path, where).strip():
                raise ConfigError(f"{where}: found an empty file {path}, expected a secret")
    for file_key in READ_BY_TLS:
        path = values.get(file_key)
        if path is not None:
            _read(str(path), sources[file_key])


def _read(path: str, source: str) -> str:
    try:
        return Path(path).read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"{source}: {path} cannot be read: {error.strerror or error}") from error
    except ValueError as error:
        raise ConfigError(
            f"{source}: found bytes in {path} that are not UTF-8, expected a text file"
        ) from error
