"""Apache Kafka's jars from Maven Central, kept under the user's cache directory, and the Java to run them.

A cache folder `stream-cluster/kafka-<version>` holds the jars and `complete.json`, an object of file name
to size in bytes. The folder is filled under another name and renamed when it is whole, so a download that
was cut short is never taken for a complete one.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import tempfile
from pathlib import Path

from stream_cluster.sandbox.broker import Report, RouteClosed

KAFKA_VERSION = "4.3.1"
LOG4J_VERSION = "2.25.4"
"""The version of log4j-core that this Kafka brings; its binding to SLF4J has to be the same."""

MARKER = "complete.json"
MINIMUM_JAVA = 17
DOWNLOAD_TIMEOUT_S = 600.0
PLUGIN = "org.apache.maven.plugins:maven-dependency-plugin:3.8.1:copy-dependencies"

_POM = f"""<?xml version="1.0" encoding="UTF-8"?>
<project xmlns="http://maven.apache.org/POM/4.0.0">
  <modelVersion>4.0.0</modelVersion>
  <groupId>stream-cluster</groupId>
  <artifactId>sandbox-broker</artifactId>
  <version>1</version>
  <packaging>pom</packaging>
  <dependencies>
    <dependency>
      <groupId>org.apache.kafka</groupId>
      <artifactId>kafka_2.13</artifactId>
      <version>{KAFKA_VERSION}</version>
    </dependency>
    <dependency>
      <groupId>org.apache.logging.log4j</groupId>
      <artifactId>log4j-slf4j-impl</artifactId>
      <version>{LOG4J_VERSION}</version>
    </dependency>
  </dependencies>
</project>
"""


def jar_folder() -> Path:
    """Where the jars of this Kafka version are kept: under XDG_CACHE_HOME, else ~/.cache."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG specification: a relative path in the variable is invalid and is ignored.
    root = Path(base) if base.startswith("/") else Path.home() / ".cache"
    return root / "stream-cluster" / f"kafka-{KAFKA_VERSION}"


def is_complete(folder: Path) -> bool:
    """Whether every jar that the marker lists is there in its full size."""
    try:
        listed = json.loads((folder / MARKER).read_text(encoding="utf-8"))
        return bool(listed) and all((folder / name).stat().st_size == size for name, size in listed.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def write_marker(folder: Path) -> None:
    """List the jars of a finished download. Raises RouteClosed when there is no Kafka among them."""
    sizes = {jar.name: jar.stat().st_size for jar in sorted(folder.glob("*.jar"))}
    if f"kafka_2.13-{KAFKA_VERSION}.jar" not in sizes:
        raise RouteClosed(f"Maven ended well but brought no Kafka; it brought {len(sizes)} jars")
    (folder / MARKER).write_text(json.dumps(sizes, indent=1), encoding="utf-8")


def install(filled: Path, folder: Path) -> None:
    """Put a finished folder in its place in one rename; another process may have been faster."""
    while not is_complete(folder):
        if folder.exists():
            # Damaged: moved aside first, so that nobody sees a folder that is half removed.
            aside = Path(tempfile.mkdtemp(prefix=".damaged-", dir=folder.parent))
            folder.rename(aside / folder.name)
            shutil.rmtree(aside, ignore_errors=True)
        try:
            filled.rename(folder)
        except FileExistsError:
            continue
        except OSError:
            # Linux reports a non-empty target as ENOTEMPTY, which has no class of its own.
            if not folder.exists():
                raise


def find_java() -> Path:
    """The java program of JAVA_HOME or else of PATH. Raises RouteClosed unless it is version 17 or later."""
    home = os.environ.get("JAVA_HOME", "")
    found = shutil.which("java", path=f"{home}/bin" if home else None) or shutil.which("java")
    if found is None:
        raise RouteClosed(f"no java program on PATH (Java {MINIMUM_JAVA} or later is needed)")
    try:
        result = subprocess.run([found, "-version"], capture_output=True, text=True, timeout=30, check=False)
    except (OSError, subprocess.SubprocessError) as error:
        raise RouteClosed(f"{found} does not run ({error})") from error
    major = java_major(result.stderr + result.stdout)
    if major is None or major < MINIMUM_JAVA:
        raise RouteClosed(f"{found} is version {major or 'unknown'}, and {MINIMUM_JAVA} or later is needed")
    return Path(found)


def java_major(version_text: str) -> int | None:
    """The major version in the output of `java -version`: 8 for "1.8.0_392", 17 for "17.0.15"."""
    match = re.search(r'version "(?:1\.)?(\d+)', version_text)
    return int(match.group(1)) if match else None


def require_jars_or_maven() -> None:
    """Raise RouteClosed unless Java is there, and the jars or a Maven to fetch them."""
    find_java()
    if not is_complete(jar_folder()) and shutil.which("mvn") is None:
        raise RouteClosed("no mvn program on PATH (Maven is needed once, to download Kafka)")


def ensure_jars(report: Report) -> Path:
    """The folder of Kafka's jars, downloaded first if need be (about 45 MB). Raises RouteClosed."""
    folder = jar_folder()
    if is_complete(folder):
        return folder
    maven = shutil.which("mvn")
    if maven is None:
        raise RouteClosed("no mvn program on PATH (Maven is needed once, to download Kafka)")
    try:
        folder.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".download-", dir=folder.parent) as work:
            report(f"downloading Apache Kafka {KAFKA_VERSION} from Maven Central into {folder}")
            filled = _download(maven, Path(work))
            write_marker(filled)
            install(filled, folder)
    except OSError as error:
        raise RouteClosed(f"the jars cannot be kept under {folder.parent} ({error})") from error
    return folder


def _download(maven: str, work: Path) -> Path:
    (work / "pom.xml").write_text(_POM, encoding="utf-8")
    filled = work / "jars"
    command = [maven, "-B", "-q", "-f", str(work / "pom.xml"), PLUGIN]
    command += ["-DincludeScope=runtime", f"-DoutputDirectory={filled}"]
    try:
        result = subprocess.run(
            command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT_S, check=False, cwd=work
        )
    except (OSError, subprocess.SubprocessError) as error:
        raise RouteClosed(f"Maven did not finish ({error})") from error
    if result.returncode != 0:
        last = "\n    ".join((result.stdout + result.stderr).strip().splitlines()[-8:])
        raise RouteClosed(f"Maven could not download Kafka {KAFKA_VERSION}:\n    {last}")
    return filled
