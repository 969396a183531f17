#!/bin/sh
# What the official images of PostgreSQL and Redis do at their start, as far as docker-compose.yml uses it.
set -eu
if [ "$1" = redis-server ]; then
    shift
    cd /data
    exec redis-server --bind 0.0.0.0 --protected-mode no "$@"
fi

data=/var/lib/postgresql/data
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
PATH="$(echo /usr/lib/postgresql/*/bin):$PATH"
if [ ! -e "$data/PG_VERSION" ]; then
    chown postgres "$data"
    (umask 077 && printf '%s\n' "$POSTGRES_PASSWORD" >/run/password)
    chown postgres /run/password
    as_postgres initdb -D "$data" -U "$POSTGRES_USER" --pwfile=/run/password --auth-local=trust --auth-host=scram-sha-256 \
        --no-locale --encoding=UTF8
    rm /run/password
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    echo "create database \"$POSTGRES_DB\"" | as_postgres postgres --single -D "$data" postgres
fi
exec setpriv --reuid postgres --regid postgres --clear-groups postgres -D "$data" -c listen_addresses='*'
