"""The hosts: inventory, the SSH engine, the connection pool, and `host.sh`, the one program that runs on a host."""
