"""Everything at once, from a seed: `Simulation(seed).run()`; `python -m tests.support.simulation SEED` tells the story."""
