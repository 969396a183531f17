"""From a commit to the bytes that hosts get: mirror, checkout, tests, build, archive."""
