#!/bin/sh
# Runs a command with a Docker engine of its own, where no image can be pulled: debootstrap makes what stands in for the
# base images. All of it is gone afterwards. Debian, root, packages docker.io and debootstrap.
#
#   tests/support/engine/with-engine.sh .venv/bin/python -m pytest tests/integration/test_compose.py
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d /tmp/engine.XXXXXX) # a socket's path has to be short
base=$folder/base
export DOCKER_HOST="unix://$folder/docker.sock" DOCKER_CONFIG="$folder/config"

engine=
end() {
    status=$?
    trap - EXIT
    if [ -n "$engine" ]; then
        # What a test left would keep its network on this machine.
        { docker ps --all --quiet | xargs --no-run-if-empty docker rm --force && docker network prune --force; } >/dev/null || true
        if kill "$engine" 2>/dev/null; then wait "$engine" || true; fi
        umount "$folder"/exec/netns/* 2>/dev/null || true # dockerd leaves it
    fi
    rm -rf --one-file-system "$folder"
    exit "$status"
}
trap end EXIT
trap 'exit 1' INT TERM

failed() {
    echo "$1 failed; the end of its log:" >&2
    tail -n 20 "$2" >&2
    exit 1
}

# Debian 13 has the Python, the PostgreSQL and the Redis of the images that docker-compose.yml names, and `docker compose`.
echo 'Making a base image by debootstrap, and a Docker engine' >&2
# shellcheck disable=SC2016
mirror=$(apt-get indextargets --format '$(REPO_URI)' 'Origin: Debian' 'Label: Debian' | head -n 1)
debootstrap --variant=minbase --include=ca-certificates trixie "$base" "$mirror" >"$folder/log" 2>&1 ||
    failed debootstrap "$folder/log"
# Builds reach the package servers the way this machine does.
apt-config dump | grep '^Acquire::' >"$base/etc/apt/apt.conf.d/99this-machine"
cp /etc/ssl/certs/ca-certificates.crt "$base/etc/ssl/this-machine.crt"
{
    printf '[global]\ncert = /etc/ssl/this-machine.crt\n'
    python3 -m pip config list | sed -n "s/^[a-z:]*[:.]\(index-url\|trusted-host\)='\(.*\)'$/\1 = \2/p"
} >"$base/etc/pip.conf"

mkdir -p "$DOCKER_CONFIG/cli-plugins"
{
    chroot "$base" sh -c 'apt-get update && cd /tmp && apt-get download docker-compose' &&
        dpkg-deb --extract "$base"/tmp/docker-compose_*.deb "$folder/compose" &&
        mv "$folder/compose/usr/libexec/docker/cli-plugins/docker-compose" "$DOCKER_CONFIG/cli-plugins/" &&
        rm -r "$base"/tmp/* "$base"/var/lib/apt/lists/*
} >"$folder/log" 2>&1 || failed 'Getting docker compose' "$folder/log"

# It leaves this machine's firewall and routes alone, so containers reach each other and nothing else.
dockerd --iptables=false --ip6tables=false --ip-forward=false --bridge=none \
    --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" \
    -H "$DOCKER_HOST" >"$folder/dockerd.log" 2>&1 &
engine=$!
until docker info >/dev/null 2>&1; do
    kill -0 "$engine" 2>/dev/null || failed dockerd "$folder/dockerd.log"
    sleep 0.2
done

echo 'Building PostgreSQL and Redis' >&2
tar -C "$base" -c . | docker import - standin:base >/dev/null
rm -rf --one-file-system "$base"
DOCKER_BUILDKIT=0 docker build --network host --build-arg BASE=standin:base --tag standin:services "$here" >"$folder/log" 2>&1 ||
    failed 'That build' "$folder/log"

export BASE=standin:base HOST_BASE=standin:base POSTGRES_IMAGE=standin:services REDIS_IMAGE=standin:services
COMPOSE_FILE="docker-compose.yml:$here/compose.yml" "$@"
