#!/bin/sh
# What the official images do at their start, as far as docker-compose.yml uses it.
set -eu
if [ "$1" = redis-server ]; then
    shift
    cd /data
    exec redis-server "$@" --bind 0.0.0.0 --protected-mode no
fi

data=/var/lib/postgresql/data
programs=$(echo /usr/lib/postgresql/*/bin)
chown postgres "$data"
as_postgres() { setpriv --reuid postgres --regid postgres --clear-groups "$@"; }
if [ ! -e "$data/PG_VERSION" ]; then
    echo "$POSTGRES_PASSWORD" >/run/password
    chown postgres /run/password
    as_postgres "$programs/initdb" -D "$data" -U "$POSTGRES_USER" --pwfile=/run/password -A scram-sha-256 \
        --no-locale --encoding=UTF8 >/dev/null
    rm /run/password
    echo 'host all all all scram-sha-256' >>"$data/pg_hba.conf"
    echo "create database \"$POSTGRES_DB\"" | as_postgres "$programs/postgres" --single -D "$data" postgres >/dev/null
fi
# Without a password on its own socket, as the health check asks there.
sed -i 's/^local .*/local all all trust/' "$data/pg_hba.conf"
exec setpriv --reuid postgres --regid postgres --clear-groups \
    "$programs/postgres" -D "$data" -c listen_addresses='*' -c unix_socket_directories=/tmp,/var/run/postgresql
