#!/bin/sh
# What a host of docker-compose.yml runs: sshd with the key that `prepare` made for it, and for rollout's key only.
set -eu
cp "/keys/$(cat /etc/hostname)" /etc/ssh/ssh_host_ed25519_key
chmod 600 /etc/ssh/ssh_host_ed25519_key
cp /keys/id_ed25519.pub /etc/ssh/authorized_keys
chmod 644 /etc/ssh/authorized_keys
exec /usr/sbin/sshd -D -e \
    -o AuthorizedKeysFile=/etc/ssh/authorized_keys \
    -o HostKey=/etc/ssh/ssh_host_ed25519_key \
    -o PasswordAuthentication=no \
    -o KbdInteractiveAuthentication=no \
    -o PermitRootLogin=no \
    -o AllowUsers=deploy \
    -o MaxSessions=50
