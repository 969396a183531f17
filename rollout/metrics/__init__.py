"""Where the canary's numbers come from."""
