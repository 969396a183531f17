"""How big, how many, how long: every bound of this room in one place."""

MAX_FILES = 200_000  # in a checkout or a release, links included
MAX_BYTES = 4 * 1024**3  # of their contents
MAX_FILE_BYTES = 8 * 1024**3  # that a test or build command may write into one file
MAX_PROCESSES = 8192  # of the worker's user while a test or build command runs (root is exempt: Linux)
OUTPUT_HALF = 64 * 1024  # bytes kept of a command's output, at its head and at its tail alike
MESSAGE_BYTES = 4 * 1024  # of a commit message
KEPT_ARCHIVES = 20  # newest, per app

REMOTE_LIMIT_S = 20.0  # one question to the git server
FETCH_LIMIT_S = 900.0  # the first fetch brings the whole history
LOCAL_LIMIT_S = 120.0  # git on the mirror
EXPORT_LIMIT_S = 600.0
