# A host to deploy to: an SSH server, and the Python that the demo's app needs. Nothing of rollout is in it.
ARG BASE=debian:bookworm-slim
FROM ${BASE}

RUN apt-get update \
 && apt-get install -y --no-install-recommends openssh-server python3-minimal python3 procps \
 && rm -rf /var/lib/apt/lists/* /etc/ssh/ssh_host_* \
 && useradd --create-home --shell /bin/sh deploy \
 && mkdir -p /run/sshd /srv/shop \
 && chown deploy /srv/shop

COPY deploy/host.sh /usr/local/sbin/host
EXPOSE 22
CMD ["/usr/local/sbin/host"]
