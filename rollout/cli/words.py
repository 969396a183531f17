"""What a person typed, as text that can be written down: the one door of the command line for words from outside."""


def readable(word: str) -> str:
    """The word with a replacement character for what is no UTF-8.

    An umlaut from a terminal that writes Latin-1 comes as half a character, which neither database takes: a stop must not fail for it.
    """
    return word.encode("utf-8", "surrogateescape").decode("utf-8", "replace")
