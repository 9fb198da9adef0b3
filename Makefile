# SPDX-License-Identifier: Apache-2.0
# The two commands: `make demo` and `make test`. Each sets up what it needs.
PYTHON := .venv/bin/python
SOURCES := $(shell find CMakeLists.txt pyproject.toml libreef reefd kernels -name '*.[ch]' -o -name '*.[ch]pp' -o -name 'CMakeLists.txt' -o -name 'build_cffi.py' -o -name pyproject.toml)

.PHONY: setup demo test lint clean
setup: .venv/.built
.venv/.built: $(SOURCES)
	.ci/setup
	touch $@

test: setup
	$(PYTHON) -m pytest -q

clean:
	rm -rf build .venv
