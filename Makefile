# stream-cluster: `make` alone lists the targets.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
# More arguments for pytest: make test ARGS="-k forest -x"
ARGS ?=

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help setup demo check lint test-faults test-faults-short check-native check-aarch64 check-deploy deploy-files overview report-picture test test-all bench bench-ingest bench-snapshot bench-faces \
	bench-kernel bench-peers bench-seed-table bench-stream bench-crossover bench-images bench-report bench-selection bench-deletes \
	bench-updates bench-transactions bench-cells bench-linkage bench-linkage-scale bench-migration bench-accounts bench-hostile fuzz soak audit face-statistics docs lock clean

help: ## List the targets
	@awk -F ':.*## ' '/^[a-z][a-z0-9-]*:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(INSTALLED) ## Make .venv with the locked dependencies and fetch Kafka's jars; nothing to do when nothing changed

NATIVE := CMakeLists.txt $(wildcard stream_cluster/matching/native/*)

# HNSWLIB_NO_NATIVE: hnswlib comes as source, and would be built for this very CPU and fail on an older one.
$(INSTALLED): pyproject.toml requirements.lock $(NATIVE)
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or later is needed, found " \
		+ sys.version.split()[0] + ": make PYTHON=/path/to/python3.11 setup")'
	test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	HNSWLIB_NO_NATIVE=1 $(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .
	@$(BIN)/python -m stream_cluster.sandbox --prepare \
		|| echo "setup: goes on without a local Kafka; the line above says what tests and demo will use"
	@touch $@

demo: setup ## Start a broker and the service, stream generated events, run a task, show the archive
	$(BIN)/python -m stream_cluster.sandbox.demo

check: lint audit ## Lint, formatting, types, the direction of imports, and the tests that need no broker
	$(BIN)/python -m pytest -q tests/unit tests/property $(ARGS)

lint: setup ## The part of `check` that runs no test
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

fuzz: setup ## Fuzz everything that decodes, led by coverage: ARGS="--inputs N --seconds S --seed N"
	$(BIN)/python -m tests.fuzz --write benchmarks/results/fuzz.json $(ARGS)

# MINUTES of random work and faults against a model, or the steps of a TRACE again.
MINUTES ?= 30
TRACE ?=
soak: setup ## Random work, kills, rebalances and broker restarts against a model: MINUTES=30, or TRACE=file to replay
	$(BIN)/python -m tests.soak --minutes $(MINUTES) $(if $(TRACE),--trace $(TRACE),--write benchmarks/results/soak.json) $(ARGS)

audit: setup ## Static analysis for weaknesses, and known ones of what the image installs, where a service tells them
	$(BIN)/python -m deploy.audit

# Test programs of the kernel are built apart from the package: with sanitizers, or for another processor.
KERNEL_TEST := -G Ninja -DKERNEL_MODULE=OFF -DKERNEL_TESTS=ON
CMAKE := PATH="$(CURDIR)/$(BIN):$$PATH" cmake

check-native: setup ## Tests of the native kernel with the address and undefined behaviour sanitizers
	$(CMAKE) -S . -B build/check-native $(KERNEL_TEST) -DKERNEL_SANITIZE=ON
	$(CMAKE) --build build/check-native
	build/check-native/kernel_test

check-aarch64: setup ## Tests of the native kernel for aarch64, cross compiled, in an emulator (Debian packages)
	@command -v aarch64-linux-gnu-g++ qemu-aarch64 >/dev/null || { [ "$$(id -u)" = 0 ] \
		&& apt-get install -y -qq g++-aarch64-linux-gnu qemu-user >/dev/null; } \
		|| { echo "check-aarch64: as root: apt-get install g++-aarch64-linux-gnu qemu-user" >&2; exit 1; }
	$(CMAKE) -S . -B build/check-aarch64 $(KERNEL_TEST) -DCMAKE_SYSTEM_NAME=Linux \
		-DCMAKE_SYSTEM_PROCESSOR=aarch64 -DCMAKE_CXX_COMPILER=aarch64-linux-gnu-g++ \
		-DCMAKE_EXE_LINKER_FLAGS=-static
	$(CMAKE) --build build/check-aarch64
	qemu-aarch64 build/check-aarch64/kernel_test

# Helm and the other programs, in the user's cache folder; nothing to do when they are there.
DEPLOY_TOOLS := $(VENV)/.deploy-tools
$(DEPLOY_TOOLS): $(INSTALLED) deploy/tools.sh deploy/requirements.txt
	deploy/tools.sh $(BIN)
	@touch $@

check-deploy: $(DEPLOY_TOOLS) ## Tests of image, chart, dashboards and alerts, with a real Prometheus and without Docker and Kubernetes
	$(BIN)/python -m pytest tests/deploy $(ARGS)

deploy-files: $(DEPLOY_TOOLS) ## Write dashboards, the chart's README and schema, alerts and rendered examples anew
	$(BIN)/python -m deploy.build

overview: $(DEPLOY_TOOLS) ## Draw docs/overview.png from a real Prometheus that watches the service under load
	STREAM_CLUSTER_OVERVIEW=docs/overview.png $(BIN)/python -m pytest -q tests/deploy/test_prometheus.py

report-picture: setup ## Draw docs/report.png, the report of made-up people in Chromium
	STREAM_CLUSTER_REPORT_PICTURE=docs/report.png $(BIN)/python -m pytest -q tests/browser/test_report_picture.py

test: setup ## Every test but the slow ones and those of check-deploy, on a real broker
	$(BIN)/python -m pytest -m "not slow" --ignore tests/deploy --ignore tests/faults $(ARGS)

test-faults: setup ## Every way to break the service, on real brokers; as root it needs no test to be skipped
	$(BIN)/python -m pytest tests/faults $(ARGS)

test-faults-short: setup ## The part of test-faults that CI runs
	$(BIN)/python -m pytest tests/faults -m faults_short $(ARGS)

test-all: $(DEPLOY_TOOLS) ## Every test, with all examples of the property tests
	STREAM_CLUSTER_EXAMPLES=all $(BIN)/python -m pytest $(ARGS)

bench: ## List the benchmarks
	@awk -F ':.*## ' '/^bench-[a-z-]*:.*## / { printf "  make %-17s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

bench-ingest: setup ## Benchmark: events per second, latency and memory of the whole service on a real broker
	$(BIN)/python -m benchmarks.ingest --write benchmarks/results/ingest.json $(ARGS)

bench-snapshot: setup ## Benchmark: labels and archive of a million objects from the forest
	$(BIN)/python -m benchmarks.snapshot --write benchmarks/results/snapshot.json $(ARGS)

bench-images: setup ## Benchmark: images of a directory saved into an archive, a second, and peak memory
	$(BIN)/python -m benchmarks.images --write benchmarks/results/images.json $(ARGS)

bench-report: setup ## Benchmark: what report.html adds to snapshots with images and of a million objects, and its first paint
	$(BIN)/python -m benchmarks.report_page --write benchmarks/results/report_page.json $(ARGS)

bench-selection: setup ## Benchmark: filtered tasks of 100,000 among a million objects, selection and archive
	$(BIN)/python -m benchmarks.selection --write benchmarks/results/selection.json $(ARGS)

# The data is not part of this repository: a folder with events.jsonl.gz and people.csv.
DATA ?= ../shared/data/faces
bench-faces: setup ## Benchmark: clusters of labelled real faces against SciPy and the truth, DATA=folder
	$(BIN)/python -m benchmarks.faces --data $(DATA) --write benchmarks/results/faces.json $(ARGS)

bench-peers: setup ## Benchmark: all pairs and components beside Faiss, scikit-learn, NumPy, hnswlib and USearch
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.peers --write benchmarks/results/peers.json $(ARGS)

bench-seed-table: setup ## Benchmark: the published table, batch and streaming, up to a million objects
	$(BIN)/python -m benchmarks.seed_table --write benchmarks/results/seed_table.json $(ARGS)

bench-stream: setup ## Benchmark: events per second and latency beside up to a million resident objects
	$(BIN)/python -m benchmarks.stream --write benchmarks/results/stream.json $(ARGS)

bench-crossover: setup ## Benchmark: exact matching against HNSW by the number of resident objects
	$(BIN)/python -m benchmarks.crossover --write benchmarks/results/crossover.json $(ARGS)

# A folder for codes, 6 GB of them for everything; PARTS=... runs some parts, see the module.
CELLS_DATA ?= build/cells
PARTS ?= all
bench-cells: setup ## Benchmark: cells at one and ten million objects, batch, streams, deletions, growth, beside peers
	$(BIN)/pip install --quiet --disable-pip-version-check --no-deps -r benchmarks/requirements.txt
	$(BIN)/python -m benchmarks.cells $(PARTS) --data $(CELLS_DATA) --write benchmarks/results/cells.json $(ARGS)

bench-migration: setup ## Benchmark: what ingest notices while a space changes from exact matching to HNSW
	$(BIN)/python -m benchmarks.migration --write benchmarks/results/migration.json $(ARGS)

bench-linkage: setup ## Benchmark: connected components and average linkage, at scale and on labelled real faces, DATA=folder
	$(BIN)/python -m benchmarks.linkage --data $(DATA) --write benchmarks/results/linkage.json $(ARGS)

bench-linkage-scale: setup ## Benchmark: where components collapse and average linkage does not, faces by size and threshold
	$(BIN)/python -m benchmarks.linkage_scale --write benchmarks/results/linkage_scale.json $(ARGS)

face-statistics: setup ## Aggregate figures of labelled real faces, from which benchmarks make faces up, DATA=folder
	$(BIN)/python -m benchmarks.face_statistics --data $(DATA) --write benchmarks/face_statistics.json $(ARGS)

bench-deletes: setup ## Benchmark: deletions a second beside resident objects, and the worst component
	$(BIN)/python -m benchmarks.deletes --write benchmarks/results/deletes.json $(ARGS)

bench-accounts: setup ## Benchmark: memory and time of a hundred thousand accounts with ten objects each
	$(BIN)/python -m benchmarks.accounts --write benchmarks/results/accounts.json $(ARGS)

bench-hostile: setup ## Benchmark: equal descriptors and rejections, a million each
	$(BIN)/python -m benchmarks.hostile --write benchmarks/results/hostile.json $(ARGS)

bench-updates: setup ## Benchmark: what cluster updates cost ingest
	$(BIN)/python -m benchmarks.updates --write benchmarks/results/updates.json $(ARGS)

bench-transactions: setup ## Benchmark: what it costs that outputs are written in transactions
	$(BIN)/python -m benchmarks.transactions --write benchmarks/results/transactions.json $(ARGS)

bench-backup: setup ## Benchmark: ingest beside a backup, and the start after a kill with and without the disk
	$(BIN)/python -m benchmarks.backup --write benchmarks/results/backup.json $(ARGS)

docs: setup ## Write the tables in the documentation that are made from the code and the benchmark results
	$(BIN)/python -m docs.build

bench-kernel: setup ## Benchmark: operations per second of the matching kernel, small batches, all pairs
	$(BIN)/python -m benchmarks.kernel --write benchmarks/results/kernel.json $(ARGS)

lock: setup ## Write requirements.lock, and that of the image, anew; versions change only where pyproject.toml asks for it
	$(BIN)/uv pip compile pyproject.toml --extra dev --universal --generate-hashes \
		--no-emit-index-url --no-header --quiet --output-file requirements.lock
	$(BIN)/uv pip compile pyproject.toml --universal --generate-hashes --constraint requirements.lock \
		--no-emit-index-url --no-header --no-annotate --quiet --output-file requirements-run.lock

clean: ## Remove .venv, caches and build output; downloads in the user's cache stay
	rm -rf $(VENV) build dist demo-output .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
