"""The app that the demo ships: `serve.py` is copied into the demo's repository as it is."""
