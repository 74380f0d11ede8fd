# make demo   sets up and runs the main job on real photographs     make test    sets up and runs the tests
PY := .venv/bin/python
QUICK ?= 0
# tests at a time, each in one thread
WORKERS ?= 2
PACKAGES := $(filter-out tests benchmarks,$(patsubst %/__init__.py,%,$(wildcard */__init__.py)))

.PHONY: demo demo-labels demo-images demo-restore app check test test-short test-browser test-app test-slurm test-reliability soak bench lint types docs doctor setup clean

demo: setup
	$(PY) demo.py $(if $(filter-out 0,$(QUICK)),--quick True) $(if $(SEED),--seed $(SEED))

# scikit-learn's digits; MNIST_5K=FILE: 5000 images of MNIST out of that file, three times as many steps
LABELS := $(if $(MNIST_5K),mnist_5k,digits)
LABEL_STEPS := $(if $(MNIST_5K),800,260)
demo-labels: setup
	$(PY) mnist_data.py $(if $(MNIST_5K),--source mnist_5k --mnist_5k_file '$(MNIST_5K)') --output_dir data/$(LABELS)
	$(PY) noisy_label_sweep.py --data_dir data/$(LABELS) --max_step $(LABEL_STEPS) --lr 4e-3 --lr_anneal_steps $(LABEL_STEPS) --max_shift 2 --output_dir outputs/noisy_label_sweep/$(LABELS) --log_dir logs/noisy_label_sweep/$(LABELS)

demo-images: setup
	$(PY) demo_images.py $(if $(filter-out 0,$(QUICK)),--quick True)

# denoising, JPEG and inpainting of the demo's photographs; SEED=1: another split, other weights
demo-restore: setup
	$(PY) demo_restore.py $(if $(filter-out 0,$(QUICK)),--quick True) $(if $(SEED),--seed $(SEED))

# a page to try the networks of the demo, in an environment of its own; samples, too, where make demo-images has trained a model
DIGITS := $(lastword $(sort $(wildcard checkpoints/image_ddpm/demo_images/ema_*.pt)))
app:
	@./setup.sh app
	.venv-app/bin/python sr_app.py $(addprefix --diffusion_model_path ,$(DIGITS))

# what every change must pass, in minutes
check: lint types docs test-short

test: setup-dev
	$(PY) -m pytest -n $(WORKERS) --dist worksteal

# without whole scripts, several processes, kills and damage
test-short: setup-dev
	$(PY) -m pytest -n $(WORKERS) --dist worksteal -m "not browser and not slurm and not dist and not slow and not reliability" --ignore tests/scripts

# the report in a real browser; fetches Chromium through apt-get if there is none
test-browser:
	@./setup.sh browser
	$(PY) -m pytest -m browser tests/browser

# that page in a real browser and by HTTP, in its own environment
test-app:
	@./setup.sh app-test
	.venv-app/bin/python -m pytest -m "" tests/app

# the job scripts on a Slurm of two nodes, started here; fetches Slurm through apt-get if there is none
test-slurm:
	@./setup.sh slurm
	$(PY) -m pytest -m slurm -s tests/slurm

# kills, fills and damages as often as docs/reliability.md says; make test does the same in short
test-reliability: setup-dev
	RELIABILITY=full $(PY) -m pytest -m reliability tests/reliability

# an hour of trainings, samples and verifications under random faults; counts go to outputs/soak
soak: setup-dev
	$(PY) -m tests.reliability.soak

# times every part beside plain references, about ten minutes on two cores; records go to outputs/bench
bench: setup
	$(PY) -m benchmarks.all_parts --short True --output_dir outputs/bench

lint: setup-dev
	$(PY) -m ruff check .
	$(PY) -m ruff format --check .

types: setup-dev
	$(PY) -m mypy

# pages of every module out of the docstrings, in outputs/api; what a class inherits stays a word without a link
docs:
	@./setup.sh docs
	$(PY) -W error::UserWarning -W error::RuntimeWarning -W 'ignore:Error parsing type annotation' -W 'ignore:Cannot determine where' -m pdoc --docformat google --no-show-source -o outputs/api $(PACKAGES)

doctor:
	@sh doctor.sh

.PHONY: setup-dev
setup:
	@./setup.sh

setup-dev:
	@./setup.sh dev

clean:
	rm -rf logs/*/demo* checkpoints/*/demo* outputs/*/demo* data/demo_*
