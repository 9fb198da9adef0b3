# SPDX-License-Identifier: Apache-2.0
# The two commands: `make demo` and `make test`. Each sets up what it needs. `make help` lists the others.
BIN := .venv/bin
PREFIX ?= /usr/local
PYTHON3 ?= python3
export PYTHON3

NATIVE := $(shell find CMakeLists.txt pyproject.toml .ci/setup .ci/packages libreef reefd kernels \
            -name '*.[ch]' -o -name '*.[ch]pp' -o -name '*.map' -o -name '*.in' -o -name CMakeLists.txt \
            -o -name build_cffi.py -o -name pyproject.toml -o -name setup -o -name packages)
FORMATTED = $(shell git ls-files --cached --others --exclude-standard '*.c' '*.h' '*.cpp' '*.hpp')
NETWORKS := $(patsubst resource/onnx/%.onnx,%,$(wildcard resource/onnx/*.onnx))
RESOURCES := $(NETWORKS:%=build/resource/%/model.json)
COMPILER := $(shell find reefd/compiler reefd/resource -name '*.py')
# libreef and the C examples alone need no Python: `make install` takes the system's cmake where there is no .venv.
CMAKE = $(firstword $(wildcard $(BIN)/cmake) cmake)

.DELETE_ON_ERROR:
.PHONY: bench-gpu help setup resources c demo test test-model test-onnx test-gfx906 test-systemd test-kill test-hostile soak bench-models bench-checkpoints lint format werror install \
        install-service deb clean

help:
	@echo 'make demo        two perception programs share one daemon; results in build/demo'
	@echo 'make test        the test suite'
	@echo 'make test-model  the protocols of the rings, of adoption and of preemption, model-checked with SPIN'
	@echo 'make test-exact  every network of the zoo, interrupted at every kernel and at 1,000 instants (K=resnet50: only that)'
	@echo 'make test-sanitize  the perception networks and the device under three sanitizers'
	@echo 'make test-mutations  faults in device and scheduler, one at a time: which test notices each (K=word: only those)'
	@echo 'make test-onnx   the operator tests of the onnx package: passed, unsupported by operator, failed'
	@echo 'make test-random 5,000 random chains of operators against ONNX Runtime'
	@echo 'make test-zoo    every network of the zoo against ONNX Runtime; the large ones take a while'
	@echo 'make fuzz-onnx   20,000 damaged and hostile models through the compiler, in children with limits'
	@echo 'make test-gfx906 every GPU kernel of every network compiles for the MI50 without spilling (K=resnet50: only that)'
	@echo 'make bench-models whole networks beside ONNX Runtime, on 1 and 2 threads; JSON in build/bench'
	@echo 'make bench-checkpoints  the longest time between check points of every kernel of the zoo'
	@echo 'make test-systemd the package under a real systemd in namespaces: life, watchdog, reload, upgrade (root)'
	@echo 'make test-hostile  fuzzers of the engine turn (10 million entries, sanitizers), 20,000 live quarantines, sockets'
	@echo 'make soak        everything at once for SECONDS=3600, figures in build/soak; ends with 1 on a loss or a leak'
	@echo 'make test-kill   N daemons and N clients killed at random instants (N=10000): nothing lost, twice or wrong'
	@echo 'make bench-gpu   networks on an NVIDIA GPU beside PyTorch; preemption, exactness, real-time beside best effort'
	@echo 'make setup       .venv and the build, as the two above do it'
	@echo 'make resources   the networks of resource/onnx, compiled into build/resource'
	@echo 'make c           libreef.so and the C examples, in build/c'
	@echo 'make install     libreef.so, its headers and reef.pc (PREFIX=$(PREFIX), DESTDIR=)'
	@echo 'make install-service the units, users, rules and the configuration (DESTDIR=)'
	@echo 'make deb         build/deb/reefd_*.deb, with a Python environment of its own'
	@echo 'make lint        ruff, mypy, clang-format;  make format repairs what can be repaired'
	@echo 'make werror      the whole tree with -Wall -Wextra -Werror'
	@echo 'make clean       removes build/ and .venv/'

setup: .venv/.built
.venv/.built: $(NATIVE)
	.ci/setup
	@touch $@

resources: $(RESOURCES)
build/resource/%/model.json: resource/onnx/%.onnx $(COMPILER) | setup
	$(BIN)/reefctl compile $< -o build/resource/$*
	@touch $@

c: setup
	@$(CMAKE) -S . -B build/c -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DREEF_EXAMPLES=ON >build/c.log \
	    || { cat build/c.log; exit 1; }
	@$(CMAKE) --build build/c

demo: resources c
	$(BIN)/python libreef/examples/demo.py

test: resources c
	$(BIN)/python -m pytest

test-model: setup
	@command -v spin >/dev/null || .ci/packages spin
	$(BIN)/python -m pytest tests/model

.PHONY: test-exact test-sanitize
# One after the other; what failed, or where it was stopped, is run again by K=name.
test-exact: setup
	@echo 'about 25 minutes on two cores without anything else to do'
	$(BIN)/python -m pytest -q -s -m exact tests/exact $(if $(K),-k '$(K)')

test-sanitize: setup
	@echo 'about 10 minutes on two cores, the first time; most of it builds'
	$(BIN)/python -m pytest -q -s -m sanitize tests/exact
	$(BIN)/python -m pytest -q tests/device/test_stress.py -k tsan

.PHONY: test-mutations
test-mutations: setup
	@echo 'over an hour on two cores: each fault is compiled, and the tests run until one notices'
	$(BIN)/python tests/device/mutations.py $(K)
	$(BIN)/python tests/engine/mutations.py $(K)

test-onnx: setup
	$(BIN)/python -m tests.onnx.conformance

.PHONY: test-random
test-random: setup
	$(BIN)/python -m pytest -q --hypothesis-profile=nightly tests/compiler/test_random.py

.PHONY: test-zoo fuzz-onnx
test-zoo: setup
	$(BIN)/python -m pytest -q -s -m zoo tests/compiler/test_zoo.py

fuzz-onnx: setup
	$(BIN)/python -m tests.compiler.fuzz

bench-gpu: setup
	$(BIN)/python -m reefd.bench.gpu_prepare build/bench/gpu
	$(BIN)/reefctl bench gpu --json >build/bench/gpu.json

# K='iris or resnet50': only those. build/gfx906 keeps what was compiled before.
test-gfx906: setup
	@.ci/packages clang-15 lld-15 >/dev/null || echo 'without a compiler for AMD GPUs nothing is tested'
	$(BIN)/python -m pytest -q -s -m gfx906 tests/gpu $(if $(K),-k '$(K)')

bench-models: setup
	@mkdir -p build/bench
	for threads in 1 2; do \
	    $(BIN)/reefctl bench models --device cpu --against onnxruntime --threads $$threads --json \
	        >build/bench/models-$$threads.json && cat build/bench/models-$$threads.json || exit 1; \
	done

bench-checkpoints: setup
	$(BIN)/python -m tests.kernels.checkpoints

test-systemd: deb c resources
	@test -x /lib/systemd/systemd || .ci/packages systemd
	$(BIN)/python -m pytest -m systemd tests/systemd

N ?= 10000
test-kill: resources
	REEF_KILLS=$(N) REEF_CLIENT_KILLS=$(N) $(BIN)/python -m pytest -q -s tests/daemon/test_daemon_kills.py

test-hostile: resources
	@command -v clang++ >/dev/null || ls /usr/bin/clang++-* >/dev/null 2>&1 || .ci/packages clang || true
	$(BIN)/python -m pytest -q -s -m "hostile or not hostile" tests/hostile tests/daemon/test_daemon_hostile.py \
	    tests/daemon/test_daemon_socket.py tests/engine/test_violations.py tests/engine/test_faults.py

SECONDS ?= 3600
soak: resources
	@$(BIN)/python -c 'import matplotlib' 2>/dev/null || \
	    $(BIN)/python -m pip install -q --disable-pip-version-check matplotlib
	$(BIN)/python -m tests.daemon.soak $(SECONDS) build/soak

.venv/.lint: pyproject.toml | setup
	$(BIN)/python -c 'import tomllib; extras = tomllib.load(open("pyproject.toml", "rb"))["project"]; \
	    print(*extras["optional-dependencies"]["lint"], sep="\n")' | \
	    $(BIN)/python -m pip install -q --disable-pip-version-check -r /dev/stdin
	@touch $@

lint: .venv/.lint
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	MYPYPATH=libreef/examples $(BIN)/mypy libreef/examples/demo.py libreef/examples/fatigue.py libreef/python/build_cffi.py
	$(BIN)/clang-format --dry-run --Werror $(FORMATTED)

format: .venv/.lint
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .
	$(BIN)/clang-format -i $(FORMATTED)

werror: setup
	$(CMAKE) -S . -B build/werror -G Ninja -DCMAKE_MAKE_PROGRAM=$(abspath $(BIN)/ninja) -DREEF_WERROR=ON \
	    -DREEF_EXAMPLES=ON -DSKBUILD=2 -DPython_EXECUTABLE=$(abspath $(BIN)/python)
	$(CMAKE) --build build/werror

install:
	$(CMAKE) -S . -B build/install -DCMAKE_INSTALL_PREFIX="$(PREFIX)"
	$(CMAKE) --build build/install --target reef
	DESTDIR="$(DESTDIR)" $(CMAKE) --install build/install --component c

install-service:
	install -Dm644 systemd/reefd.service systemd/reefd.socket -t "$(DESTDIR)/usr/lib/systemd/system"
	install -Dm644 systemd/reefd.sysusers "$(DESTDIR)/usr/lib/sysusers.d/reefd.conf"
	install -Dm644 systemd/reefd.tmpfiles "$(DESTDIR)/usr/lib/tmpfiles.d/reefd.conf"
	install -Dm644 systemd/reefd.rules "$(DESTDIR)/usr/lib/udev/rules.d/60-reefd.rules"
	install -Dm644 systemd/reefd.catalog -t "$(DESTDIR)/usr/lib/systemd/catalog"
	install -Dm644 systemd/reefd.yaml -t "$(DESTDIR)/etc/reefd"
	install -d "$(DESTDIR)/etc/reefd/tasks.d"

deb: setup
	.ci/deb

clean:
	rm -rf build .venv
