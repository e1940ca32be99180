# Everything a newcomer needs: `make demo` and `make test`. Both set up an environment in .venv by themselves, from
# Python 3.11 or newer; PYTHON=... names another interpreter.
PYTHON ?= python3
BIN := .venv/bin

.PHONY: demo docs test lint unit test-cluster test-slow test-explorer benchmark fuzz clean

demo: .venv/demo
	$(BIN)/onnx-analog demo

test: .venv/dev lint unit

lint: .venv/dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

unit: .venv/dev
	$(BIN)/pytest -n auto

test-cluster: .venv/dev  # real local Dask and Ray clusters, whose workers are killed
	$(BIN)/pytest -m cluster tests/study/engines

test-slow: .venv/dev  # what takes minutes
	$(BIN)/pytest -m slow tests

test-explorer: .venv/dev .cache/explorer  # node data in Model Explorer: 780 MB; the second part needs Chromium
	MODEL_EXPLORER=.cache/explorer/bin/model-explorer $(BIN)/pytest -m slow tests/tuning/test_model_explorer.py

.cache/explorer:  # in an environment of its own, as it needs much that nothing else does
	$(PYTHON) -m venv $@
	$@/bin/python -m pip install --quiet --disable-pip-version-check ai-edge-model-explorer==0.1.34 model-explorer-onnx==0.4.2 || { rm -rf $@; exit 1; }

docs: .venv/dev  # the site, in site/
	$(BIN)/mkdocs build

benchmark: .venv/dev
	$(BIN)/python benchmarks/run.py

fuzz: .venv/dev  # mutated inputs for five minutes; FUZZ="--minutes 120 --seed 7" for more: docs/fuzzing.md
	$(BIN)/python -m fuzz $(FUZZ)

.venv/demo .venv/dev: .venv/%: pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "onnx-analog needs Python 3.11 or newer; name one: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	test -x $(BIN)/python || $(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[$(if $(filter dev,$*),dev,report)]'
	touch $@

clean:
	rm -rf .venv .cache build dist site *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis
