"""What a command prints, however much: its head and its tail are kept."""

from rollout.releases.limits import OUTPUT_HALF


class Output:
    """A buffer of at most twice `half` bytes, and the count of what was left out between them."""

    def __init__(self, half: int = OUTPUT_HALF) -> None:
        self._half = half
        self._head = bytearray()
        self._tail = bytearray()
        self._left_out = 0

    def add(self, chunk: bytes) -> None:
        """Take what the command printed next."""
        room = self._half - len(self._head)
        self._head += chunk[:room]
        self._tail += chunk[room:]
        over = len(self._tail) - self._half
        if over > 0:
            del self._tail[:over]
            self._left_out += over

    def text(self) -> str:
        """As text: what is no UTF-8 is replaced, and NUL, which no database takes, is dropped."""
        gap = f"\n[… {self._left_out:,} bytes left out …]\n".encode() if self._left_out else b""
        return bytes(self._head + gap + self._tail).decode(errors="replace").replace("\0", "")

    def last_line(self) -> str:
        """The last line that says something, for a reason of one line."""
        lines = [line.strip() for line in self.text()[-2000:].splitlines() if line.strip()]
        return "".join(c if c.isprintable() else " " for c in lines[-1]).strip()[:200] if lines else ""
