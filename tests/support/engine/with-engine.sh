#!/bin/sh
# Runs a command with a Docker engine of its own, where no image can be pulled: debootstrap makes what stands in for the
# base images, and it is all gone afterwards. Debian, root; packages docker.io, docker-compose and debootstrap.
#
#   tests/support/engine/with-engine.sh .venv/bin/python -m pytest tests/integration/test_compose.py
set -eu
here=$(cd "$(dirname "$0")" && pwd)
folder=$(mktemp -d /tmp/engine.XXXXXX)
export DOCKER_HOST="unix://$folder/docker.sock" DOCKER_BUILDKIT=0

end() {
    status=$?
    trap - EXIT
    if [ -s "$folder/dockerd.pid" ]; then
        pid=$(cat "$folder/dockerd.pid")
        kill "$pid"
        while kill -0 "$pid" 2>/dev/null; do sleep 0.2; done
    fi
    rm -rf "$folder"
    exit "$status"
}
trap end EXIT
trap 'exit 1' INT TERM

echo "a Docker engine in $folder; its log is dockerd.log" >&2
dockerd --iptables=false --ip6tables=false --bridge=none --storage-driver=vfs \
    --data-root "$folder/data" --exec-root "$folder/exec" --pidfile "$folder/dockerd.pid" \
    -H "$DOCKER_HOST" >"$folder/dockerd.log" 2>&1 &

echo 'a base image, by debootstrap' >&2
mirror=$(sed -n 's/^URIs: *\([^ ]*\).*/\1/p; s/^deb \(\[[^]]*\] \)\?\([^ ]*\).*/\2/p' \
    /etc/apt/sources.list.d/*.sources /etc/apt/sources.list 2>/dev/null | head -n 1)
# shellcheck source=/dev/null
. /etc/os-release
debootstrap --variant=minbase --include=ca-certificates,python3,python3-venv "$VERSION_CODENAME" "$folder/base" "$mirror" \
    >"$folder/debootstrap.log" 2>&1 || { tail -n 5 "$folder/debootstrap.log" >&2; exit 1; }
# How this machine reaches its package servers is how the builds do.
cp /etc/ssl/certs/ca-certificates.crt "$folder/base/etc/ssl/this-machine.crt" # packages write the other one anew
for part in /etc/apt/sources.list.d /etc/apt/apt.conf.d /etc/pip.conf; do
    [ ! -e "$part" ] || cp -a "$part" "$folder/base$(dirname "$part")/"
done
rm -f "$folder"/base/etc/apt/apt.conf.d/docker-*

until docker info >/dev/null 2>&1; do
    kill -0 "$!" 2>/dev/null || { tail -n 5 "$folder/dockerd.log" >&2; exit 1; }
    sleep 0.2
done
tar -C "$folder/base" -c . | docker import --change "ENV PIP_CERT=/etc/ssl/this-machine.crt" - standin:base >/dev/null
rm -rf "$folder/base"
docker build --quiet --network host --build-arg BASE=standin:base --tag standin:services "$here" >/dev/null

BASE=standin:base HOST_BASE=standin:base POSTGRES_IMAGE=standin:services REDIS_IMAGE=standin:services \
    COMPOSE_FILE="docker-compose.yml:$here/compose.yml" "$@"
