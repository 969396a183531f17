"""The HTTP service: webhooks in, the API, metrics, and one page to look at."""
