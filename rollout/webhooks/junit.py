"""JUnit XML, as test runners write it: read without trust, and reduced to what people want to see."""

from xml.parsers import expat

from rollout.domain.model import CheckState
from rollout.errors import Unreadable

MOST_BYTES = 1_000_000
MOST_NAMED = 50  # failed cases that are named
LONGEST = 300  # characters of each
_BAD = {"failure", "error"}


def read(body: bytes) -> tuple[CheckState, str]:
    """Success if no test case failed and there was at least one; and a summary. Unreadable.

    Documents that declare a type are refused: entities could make a small body a large one, or name files.
    """
    cases = _Cases()
    parser = expat.ParserCreate()
    parser.StartElementHandler = cases.start
    parser.EndElementHandler = cases.end
    parser.StartDoctypeDeclHandler = _refuse
    try:
        parser.Parse(body, True)
    except expat.ExpatError as error:
        raise Unreadable(f"the body is not XML: {error}", remedy="send the JUnit file as it is") from None
    if not cases.total:
        raise Unreadable("the report has no test case", remedy="is it the JUnit file, and did tests run?")
    more = [f"and {cases.failed - MOST_NAMED} more"] if cases.failed > MOST_NAMED else []
    told = [
        f"{cases.failed} of {cases.total} test cases failed, {cases.skipped} skipped",
        *(["the totals of its suites count some"] if cases.counts_bad and not cases.failed else []),
        *cases.named,
        *more,
    ]
    bad = cases.failed or cases.counts_bad
    return CheckState.FAILURE if bad else CheckState.SUCCESS, "\n".join(told)


class _Cases:
    def __init__(self) -> None:
        self.total = self.failed = self.skipped = 0
        self.named: list[str] = []
        self._case = ""
        self._bad = False
        self.counts_bad = False  # its totals say so, whatever the cases do

    def start(self, tag: str, attributes: dict[str, str]) -> None:
        if tag == "testcase":
            self.total += 1
            self._bad = False
            self._case = f"{attributes.get('classname', '')}.{attributes.get('name', '')}".strip(".")
        elif tag in {"testsuites", "testsuite"}:
            self.counts_bad |= any(attributes.get(key, "").strip(" 0") for key in ("failures", "errors"))
        elif tag == "skipped":
            self.skipped += 1
        elif tag in _BAD and not self._bad:
            self._bad = True
            self.failed += 1
            if len(self.named) < MOST_NAMED:
                self.named.append(f"{self._case}: {attributes.get('message', tag)}"[:LONGEST])

    def end(self, tag: str) -> None:
        """An error outside of any case (a suite that could not begin) is one as well."""
        if tag == "testcase":
            self._bad = False


def _refuse(*_: object) -> None:
    raise Unreadable("the XML declares a document type, which JUnit reports do not", remedy="send it without")
