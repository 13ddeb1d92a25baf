# make quickstart   train, evaluate and export a supernet on handwritten digits (some minutes on two CPU cores)
# make test         the test suite; only a part of it: make test TESTS=tests/core
# make check        what CI checks besides: format, lint, types, import directions
# make test-slow    the tests that take long one by one
# make test-all     make check, and all tests in one session: what CI runs
# make test-gpu     what only a GPU can show, a few minutes on one; DEVICE=cpu tests the tests
# make spos-digits  the four steps of SPOS on handwritten digits (some minutes)
# make cream-digits search, retrain and test with Cream on handwritten digits (some minutes)
# make test-wheel   wheel and sdist in empty environments outside the checkout (some minutes, most of them installing)
# make rehearse     the README's ImageNet commands in eight processes, with 1000 classes and 50,000 images (23 minutes on
#                   two CPU cores); REHEARSE=small is what CI runs
# make release-check  what a release needs of a CPU: all tests, wheel, rehearsal, hostile files, versions (an hour)
# make evidence     the comparison of docs/evidence.md, resumable (some hours); JOBS=2 runs two at once
# make evidence-report  its tables and pictures again, from docs/evidence/*.json
# make bench        all benchmarks (ten minutes on two CPU cores), into work_dirs/benchmarks.json
PYTHON ?= python3
VENV ?= .venv
# The newest torch instead of the pinned one: make test VENV=.venv-newest TORCH="torch torchvision"
TORCH ?=
RUN := $(VENV)/bin/python
# Trainings, with the allocator and the caches that make them faster on a CPU.
FAST := $(RUN) -m pss_razor.host_settings $(RUN)
# Each test process has one thread: two that have two each wait for each other's barriers.
PYTEST := OMP_NUM_THREADS=1 $(RUN) -m pytest --numprocesses auto --maxprocesses 8 --dist loadfile
CONFIG := configs/pss/pss_mbv2_flops_digits.py
WORK_DIR := work_dirs/quickstart
INSTALLED := $(VENV)/.installed
DEVICE ?= cuda
REHEARSE ?= full
TESTS ?=
# Where make test-wheel leaves the environment that it trains in.
WHEEL_VENV ?=
SEEDS ?= 0 1 2 3 4
JOBS ?= 1
EVIDENCE ?= work_dirs/evidence
SPOS := configs/nas/spos/spos
SPOS_DIR := work_dirs/spos_digits

.PHONY: quickstart test test-slow test-all test-gpu test-wheel rehearse release-check check evidence evidence-report bench spos-digits cream-digits venv clean
.DELETE_ON_ERROR:

venv: $(INSTALLED)

# A machine without a screen lacks the libraries that opencv-python links; opencv-python-headless is the same without.
$(INSTALLED): setup.cfg constraints.txt
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(None if (3, 10) <= v <= (3, 12) else \
		"error: Python 3.10 to 3.12 is needed, $(PYTHON) is %d.%d; name another: make PYTHON=python3.11" % v)'
	$(PYTHON) -m venv $(VENV)
	$(if $(TORCH),grep -v '^torch' constraints.txt >$(VENV)/constraints.txt,cp constraints.txt $(VENV)/constraints.txt)
	$(RUN) -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt $(TORCH) --editable '.[dev,onnx,predictor]'
	$(RUN) -m pip uninstall --quiet --yes opencv-python
	$(RUN) -m pip install --quiet --disable-pip-version-check -c $(VENV)/constraints.txt --no-deps --force-reinstall opencv-python-headless
	touch $@

quickstart: venv
	$(FAST) tools/train.py $(CONFIG) --work-dir $(WORK_DIR) --resume auto
	$(FAST) tools/test.py $(CONFIG) $(WORK_DIR)/epoch_24.pth --work-dir $(WORK_DIR)
	$(FAST) tools/export_subnets.py $(CONFIG) $(WORK_DIR)/epoch_24.pth --work-dir $(WORK_DIR) \
		--results $(WORK_DIR)/pool_results.json --out-dir $(WORK_DIR)/export
	@echo "picture: $(WORK_DIR)/accuracy_flops.png"

test: venv
	$(PYTEST) $(TESTS)

check: venv
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy
	$(VENV)/bin/lint-imports

test-slow: venv
	$(PYTEST) -m slow $(TESTS)

# In one session, which makes what several tests share once. Some files take minutes with one test: by name, and not
# those with few tests last.
test-all: check
	$(PYTEST) --no-loadscope-reorder -m "slow or not slow" $(TESTS)

test-gpu: venv
	PSS_RAZOR_TEST_DEVICE=$(DEVICE) $(RUN) -m pytest tests/gpu

test-wheel: venv
	$(RUN) tests/wheel/run.py $(if $(WHEEL_VENV),--train-venv $(WHEEL_VENV)) $(if $(TORCH),--torch $(TORCH))

rehearse: venv
	$(RUN) rehearsal/rehearse.py --size $(REHEARSE)

# The date and the version agree by tests/test_release.py; what no machine here can show is said.
release-check: test-all test-wheel rehearse
	$(RUN) tests/hostile/run.py --cases 1000 --seed 1
	@test -z "$$(git status --porcelain)" || { git status --short; echo "error: commit these, or leave them out"; exit 1; }
	@version=$$($(RUN) -c 'import pss_razor; print(pss_razor.__version__)'); \
		! git rev-parse -q --verify "refs/tags/v$$version" >/dev/null || { echo "error: v$$version is there; raise it"; exit 1; }; \
		echo "v$$version is ready but for: make test-gpu on a GPU; make bench, compared with docs/performance.md"

spos-digits: venv
	$(FAST) tools/train.py $(SPOS)_supernet_shufflenetv2_digits.py --work-dir $(SPOS_DIR)/supernet --resume auto
	$(FAST) tools/train.py $(SPOS)_evolution_search_shufflenetv2_digits.py --work-dir $(SPOS_DIR)/search --resume auto \
		--cfg-options load_from=$(SPOS_DIR)/supernet/epoch_40.pth
	$(FAST) tools/train.py $(SPOS)_subnet_shufflenetv2_digits.py --work-dir $(SPOS_DIR)/subnet --resume auto \
		--cfg-options model.init_cfg.checkpoint=$(SPOS_DIR)/search/subnet_best.pth
	$(FAST) tools/test.py $(SPOS)_subnet_shufflenetv2_digits.py none --work-dir $(SPOS_DIR)/test \
		--out $(SPOS_DIR)/accuracy.json --cfg-options model.init_cfg.checkpoint=$(SPOS_DIR)/subnet/epoch_20.pth

cream-digits: venv
	$(FAST) tools/train.py configs/nas/cream/cream_supernet_digits.py --work-dir work_dirs/cream_digits/search --resume auto
	$(FAST) tools/train.py configs/nas/cream/cream_subnet_digits.py --work-dir work_dirs/cream_digits/retrain --resume auto
	$(FAST) tools/test.py configs/nas/cream/cream_subnet_digits.py work_dirs/cream_digits/retrain/epoch_12.pth \
		--work-dir work_dirs/cream_digits/retrain

# Methods on equal multiply-accumulates, three subnets of PSS+ alone, and the tables and pictures of docs/evidence.md.
evidence: venv
	$(FAST) tools/compare_samplers.py configs/pss/pss_mbv2_flops_fashion.py configs/pss/pss_plus_mbv2_flops_fashion.py \
		configs/baselines/uniform_mbv2_flops_fashion.py configs/baselines/mutualnet_mbv2_flops_fashion.py \
		configs/baselines/usnet_mbv2_flops_fashion.py --equal-macs --seeds $(SEEDS) --jobs $(JOBS) --out-dir $(EVIDENCE)
	for seed in $(SEEDS); do $(FAST) tools/train_alone.py \
		$(EVIDENCE)/pss_plus_mbv2_flops_fashion/seed$$seed/pool_results.json configs/baselines/alone_mbv2_flops_fashion.py \
		--seed $$seed --jobs $(JOBS) --pools flops_1.635 flops_3.879 largest --cfg-options test_cfg.top_k=1 --out-dir $(EVIDENCE)/alone/seed$$seed || exit 1; done
	$(RUN) tools/evidence_report.py collect pss=$(EVIDENCE)/pss_mbv2_flops_fashion \
		pss_plus=$(EVIDENCE)/pss_plus_mbv2_flops_fashion uniform=$(EVIDENCE)/uniform_mbv2_flops_fashion \
		mutualnet=$(EVIDENCE)/mutualnet_mbv2_flops_fashion usnet=$(EVIDENCE)/usnet_mbv2_flops_fashion \
		--alone $(EVIDENCE)/alone/seed*/alone.json --seeds $(SEEDS) --out docs/evidence/fashion.json
	$(MAKE) evidence-report

evidence-report: venv
	$(RUN) tools/evidence_report.py report docs/evidence/*.json --out-dir docs/evidence

bench: venv
	mkdir -p work_dirs
	$(RUN) benchmarks/run_all.py --out work_dirs/benchmarks.json

clean:
	rm -rf $(VENV) work_dirs *.egg-info .pytest_cache .ruff_cache .mypy_cache .import_linter_cache
