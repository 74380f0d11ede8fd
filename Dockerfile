# The toolkit in a container; docs/docker.md says how to run it.
#   docker build --tag conditional-risk-sr .                         for CPUs: the last target
#   docker build --target gpu --tag conditional-risk-sr:gpu .        with torch's CUDA libraries
FROM python:3.11-slim-bookworm AS base
# Debian keeps one build of each package, so a pinned one could not be had for long.
# g++ is for torch.compile, which writes C++ on CPUs and starts a C compiler on GPUs.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends g++ make \
    && rm -rf /var/lib/apt/lists/*
# who owns what is written to folders of the host: --build-arg UID="$(id -u)" --build-arg GID="$(id -g)"
ARG UID=1000
ARG GID=1000
RUN groupadd --non-unique --gid "$GID" toolkit \
    && useradd --non-unique --no-log-init --create-home --uid "$UID" --gid "$GID" toolkit \
    && install --directory --owner toolkit --group toolkit /toolkit
WORKDIR /toolkit
USER $UID:$GID
# the exact versions of requirements.lock; `make` finds the environment as the build left it
ENV LOCKED=1 \
    PYTHON=/usr/local/bin/python3 \
    PATH=/toolkit/.venv/bin:$PATH \
    PIP_NO_CACHE_DIR=1 \
    PYTHONUNBUFFERED=1
# these first, so that a change of the code does not install everything again
COPY --chown=toolkit:toolkit setup.sh requirements*.txt requirements*.lock ./

FROM base AS gpu
# the NVIDIA container toolkit mounts the driver (docker run --gpus all)
ENV NVIDIA_VISIBLE_DEVICES=all \
    NVIDIA_DRIVER_CAPABILITIES=compute,utility
RUN ./setup.sh
COPY --chown=toolkit:toolkit . .
ARG REVISION=
ENV TOOLKIT_REVISION=$REVISION
CMD ["make", "demo"]

FROM base AS cpu
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
ENV TORCH_SPEC=torch==2.13.0+cpu \
    PIP_EXTRA_INDEX_URL=$TORCH_INDEX
RUN ./setup.sh
COPY --chown=toolkit:toolkit . .
ARG REVISION=
ENV TOOLKIT_REVISION=$REVISION
CMD ["make", "demo"]
