# rollout itself: web, workers, beat and Flower are this image with different commands.
# BASE may be any Debian, with Python 3.11 or newer or without any.
ARG BASE=python:3.13-slim-bookworm
FROM ${BASE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends ca-certificates git openssh-client make \
 && { command -v python3 >/dev/null || apt-get install -y --no-install-recommends python3 python3-venv; } \
 && rm -rf /var/lib/apt/lists/* \
 && useradd --create-home --uid 10001 rollout \
 && mkdir -p /state /keys /git \
 && chown rollout /state /keys /git

# What it needs, in a layer of its own: a change of rollout's code then installs nothing else again.
COPY pyproject.toml README.md LICENSE constraints.tx[t] /src/
RUN python3 -m venv /opt/rollout \
 && python3 -c 'import tomllib; print(*tomllib.load(open("/src/pyproject.toml", "rb"))["project"]["dependencies"], sep="\n")' \
    >/src/needs.txt \
 && /opt/rollout/bin/pip install --no-cache-dir --disable-pip-version-check \
    $(test ! -e /src/constraints.txt || echo -c /src/constraints.txt) -r /src/needs.txt
COPY rollout /src/rollout
COPY workers /src/workers
RUN /opt/rollout/bin/pip install --no-cache-dir --disable-pip-version-check --no-deps /src

ENV PATH=/opt/rollout/bin:$PATH ROLLOUT_CONFIG=/etc/rollout/rollout.toml ROLLOUT_LOG_FORMAT=json
COPY deploy/rollout.toml /etc/rollout/rollout.toml
COPY deploy/prepare.sh /usr/local/bin/prepare
USER rollout
WORKDIR /home/rollout
CMD ["rollout", "web"]
