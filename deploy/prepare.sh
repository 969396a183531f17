#!/bin/sh
# Runs once before everything else in docker-compose.yml: keys, secrets, and a repository to try it with.
set -eu
umask 077

for name in id_ed25519 host1 host2 host3; do
    test -e "/keys/$name" || ssh-keygen -q -t ed25519 -N '' -C "$name" -f "/keys/$name"
done
for name in host1 host2 host3; do
    echo "$name $(cat "/keys/$name.pub")"
done >/keys/known_hosts

for name in webhook.secret api.token; do
    test -e "/state/$name" || head -c 24 /dev/urandom | od -An -tx1 | tr -d ' \n' >"/state/$name"
done

test -e /git/shop.git || python3 -m rollout.cli.demo.repository /git
