"""rollout: ships every good commit to every host, and keeps every bad one from more than a handful."""
