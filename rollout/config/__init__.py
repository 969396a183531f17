"""The configuration: rollout.toml, the environment, and the commented reference of both."""
