# Images with this package, mmdet and mmcv-lite, for machines without (cpu) and with (cuda) NVIDIA GPUs:
#
#   docker build -t remax_mm:cpu .
#   docker build --build-arg DEVICE=cuda -t remax_mm:cuda .
#   docker run --rm remax_mm:cpu                                   # lists the tools
#   docker run --rm --gpus all --shm-size 8g -v "$PWD/data:/workspace/data" \
#       -v "$PWD/work_dirs:/workspace/work_dirs" remax_mm:cuda \
#       python tools/train.py configs/remax/remax-t_mnv3-s_8xb8-150k_coco-641.py
#
# The versions are those of the Makefile. The mounted work_dirs must be writable for the user with the id 1000.
ARG PYTHON=3.11
ARG DEVICE=cpu

FROM python:${PYTHON}-slim-bookworm AS base
ENV PIP_NO_CACHE_DIR=1 \
    PIP_DISABLE_PIP_VERSION_CHECK=1 \
    PIP_ROOT_USER_ACTION=ignore \
    PYTHONUNBUFFERED=1
# OpenCV loads these libraries. Debian keeps one version of each.
# hadolint ignore=DL3008
RUN apt-get update \
    && apt-get install --yes --no-install-recommends libgl1 libglib2.0-0 \
    && rm -rf /var/lib/apt/lists/*
RUN useradd --create-home --uid 1000 user
WORKDIR /workspace

FROM base AS wheel
COPY . /source
RUN pip wheel --no-deps --wheel-dir /wheels /source

# The wheel of PyTorch's own index, without CUDA libraries.
FROM base AS cpu
ARG TORCH=2.13.0
RUN pip install --index-url https://download.pytorch.org/whl/cpu "torch==${TORCH}"

# The wheel of PyPI has the CUDA libraries; the host needs the driver and the NVIDIA Container Toolkit.
FROM base AS cuda
ARG TORCH=2.13.0
RUN pip install "torch==${TORCH}"

# hadolint ignore=DL3006
FROM ${DEVICE}
COPY --from=wheel /wheels /wheels
# The version of the wheel is that of the sources.
# hadolint ignore=DL3013
RUN set -- /wheels/*.whl \
    && pip install --no-cache-dir "$1[openmmlab,tools]" mmcv-lite==2.1.0 mmengine==0.10.7 mmdet==3.3.0 mmsegmentation==1.2.2
COPY --chown=1000:1000 configs /workspace/configs
COPY --chown=1000:1000 tools /workspace/tools
COPY --chown=1000:1000 demo /workspace/demo
USER 1000
# Fails if a library is missing.
RUN python -c "import remax_mm"
CMD ["python", "-m", "remax_mm.tool"]
