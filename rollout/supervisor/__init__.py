"""The embedded mode: broker, web, workers, beat and Flower as one process tree that leaves nothing behind."""
