# Two images of one release. The target `platform` (the default) is the code location, the runs, the metrics and
# MLflow's server; the target `dagster` is webserver and daemon, with the same locked Dagster and nothing else.
#
#   docker build -t turnover-assets:dev .
#   docker build -t turnover-assets-dagster:dev --target dagster .
#
# The classic builder can build it too. Pin the base by digest for a release: --build-arg
# PYTHON_IMAGE=python:3.11-slim-bookworm@sha256:…, as `docker buildx imagetools inspect` tells it.
ARG PYTHON_IMAGE=python:3.11-slim-bookworm

# What both targets stand on ---------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS base
# Runs as a user with a fixed number, so that volumes keep their owner from release to release. Everything that
# libraries want to write beside the home (font lists, compiled kernels, shared arrays) goes to /tmp, which is the
# only other place that a container with a read-only root can write to.
RUN groupadd --gid 10001 turnover \
 && useradd --uid 10001 --gid turnover --no-create-home --home-dir /tmp --shell /usr/sbin/nologin turnover \
 && install --directory --owner=turnover --group=turnover /data /landing /config /metrics /audit
ENV HOME=/tmp \
    TMPDIR=/tmp \
    MPLCONFIGDIR=/tmp/matplotlib \
    MPLBACKEND=agg \
    JOBLIB_TEMP_FOLDER=/tmp \
    PYTHONDONTWRITEBYTECODE=1 \
    PYTHONUNBUFFERED=1 \
    OMP_WAIT_POLICY=passive \
    NUMPY_MADVISE_HUGEPAGE=0 \
    DAGSTER_DISABLE_TELEMETRY=1 \
    MLFLOW_DISABLE_TELEMETRY=true \
    MLFLOW_SERVER_ENABLE_JOB_EXECUTION=false \
    DO_NOT_TRACK=1

# Locked dependencies, in layers of their own: they change less often than the package -------------
FROM ${PYTHON_IMAGE} AS platform-dependencies
COPY deploy/locks/platform.lock /build/
COPY deploy/image/install-locked.sh /build/
RUN sh /build/install-locked.sh /opt/venv /build/platform.lock

FROM ${PYTHON_IMAGE} AS dagster-dependencies
COPY deploy/locks/dagster.lock /build/
COPY deploy/image/install-locked.sh /build/
RUN sh /build/install-locked.sh /opt/venv /build/dagster.lock

# The package itself ------------------------------------------------------------------------------
FROM ${PYTHON_IMAGE} AS package
COPY deploy/locks/build.lock deploy/image/install-locked.sh /build/
RUN sh /build/install-locked.sh /build/venv /build/build.lock
WORKDIR /build/source
COPY pyproject.toml README.md LICENSE dagster.yaml workspace.yaml ./
COPY turnover_assets ./turnover_assets
RUN /build/venv/bin/python -m hatchling build --target wheel --directory /build/dist
# Compiled for the interpreter of the virtual environment beside it, which comes with the other layer.
RUN python3 -m venv --without-pip /opt/venv \
 && python3 -m pip --python /opt/venv/bin/python install --quiet --no-cache-dir --no-deps --no-index \
      --target /opt/turnover --no-warn-script-location /build/dist/*.whl

# Webserver and daemon ----------------------------------------------------------------------------
FROM base AS dagster
COPY --from=dagster-dependencies /opt/venv /opt/venv
COPY deploy/image/healthy.py /opt/turnover/bin/healthy
COPY deploy/image/engine_gate.py /opt/turnover/bin/engine-gate
COPY deploy/image/sweep_containers.py /opt/turnover/bin/sweep-containers
COPY deploy/dagster.yaml deploy/workspace.yaml /opt/dagster/
ENV PATH=/opt/turnover/bin:/opt/venv/bin:$PATH \
    DAGSTER_HOME=/opt/dagster
WORKDIR /tmp
USER 10001:10001
EXPOSE 3000
HEALTHCHECK --interval=15s --timeout=20s --start-period=300s --retries=3 \
  CMD ["healthy", "http", "http://127.0.0.1:3000/server_info"]
CMD ["dagster-webserver", "--host", "0.0.0.0", "--port", "3000", "--workspace", "/opt/dagster/workspace.yaml"]
ARG VERSION=0.0.0.dev0
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="turnover-assets: Dagster's webserver and daemon" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0"

# Code location, runs, metrics, MLflow's server ----------------------------------------------------
FROM base AS platform
COPY --from=platform-dependencies /opt/venv /opt/venv
COPY --from=package /opt/turnover /opt/turnover
COPY deploy/image/healthy.py /opt/turnover/bin/healthy
COPY deploy/dagster.yaml /opt/dagster/
ENV PATH=/opt/turnover/bin:/opt/venv/bin:$PATH \
    PYTHONPATH=/opt/turnover \
    TURNOVER_HOME=/data/home \
    TURNOVER_DAGSTER_CONFIG=/opt/dagster/dagster.yaml \
    DAGSTER_HOME=/data/home/dagster
WORKDIR /tmp
USER 10001:10001
EXPOSE 4000
HEALTHCHECK --interval=15s --timeout=20s --start-period=300s --retries=3 \
  CMD ["healthy", "grpc", "127.0.0.1:4000"]
CMD ["dagster", "api", "grpc", "--host", "0.0.0.0", "--port", "4000", "--module-name", "turnover_assets.definitions", \
     "--location-name", "turnover_assets"]
ARG VERSION=0.0.0.dev0
ARG REVISION=unknown
ARG SOURCE=unknown
ARG CREATED=unknown
LABEL org.opencontainers.image.title="turnover-assets" \
      org.opencontainers.image.version="${VERSION}" \
      org.opencontainers.image.revision="${REVISION}" \
      org.opencontainers.image.source="${SOURCE}" \
      org.opencontainers.image.created="${CREATED}" \
      org.opencontainers.image.licenses="Apache-2.0"
