"""Which commit of the queue goes out next: the fewest at once that keep the goal, and never one that must not.

The queue is the branch behind the last done release, oldest first; positions count from 1. Shipping position n ships
the n oldest commits at once, so a commit that failed its tests may lie below the chosen one, but is never it.
"""

import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, inf

from rollout.domain.states import CommitState

ENOUGH_ROLLOUTS = 5  # before their durations are believed
UNMEASURED_S = 600.0  # how long a rollout is taken to last until then
REDS_IN_A_ROW = 3  # commits that failed one after the other: the branch is broken, a person looks

PERHAPS = "?"  # before a hash: it may have been undone, and is no fix of anything by that

_UNTESTED = frozenset({CommitState.RECEIVED, CommitState.TESTING})
_REVERT = re.compile(r"\bThis reverts commit ([0-9a-f]{7,40})\b", re.IGNORECASE)
# The whole line that the button of Gitea and Forgejo writes, in place of git's sentence; below it stands the old message.
_BUTTON = re.compile(r"[\s*-]*revert ([0-9a-f]{40})\s*$", re.IGNORECASE)
# As the buttons of GitLab, Bitbucket and GitHub name a request that they undo, and as its commit says that it is that request.
_REQUEST = re.compile(r"[\w./-]*!\d+|#\d+")
_REQUEST_UNDONE = re.compile(
    r"\bThis reverts (?:merge|pull) request ([\w./-]*!\d+|#\d+)|^[ \t]*Reverts [\w.-]+/[\w.-]+(#\d+)[ \t\r]*$",
    re.IGNORECASE | re.MULTILINE,
)
_MERGE_REQUEST = re.compile(r"\bSee merge request ([\w./-]*)(!\d+)")
_PULL_REQUEST = re.compile(r"Merge pull request (#\d+) (?:in \S+ )?from |.* \((?:pull request )?(#\d+)\)\s*$")
NOBODY = "0" * 40  # the hash of no commit, as git writes it
_TRAILER = re.compile(r"^Rollout-Fixes:(.*)$", re.IGNORECASE | re.MULTILINE)
# In capitals or not, one of these is in each message in which those find something.
UNDOING = ("revert", "rollout-fixes:")
# Of the commits that a squashed one lists: as git's own `merge --squash` does it, and as git servers do.
_HEADING = re.compile(r"commit ([0-9a-f]{40})\b", re.IGNORECASE)
_TITLE = re.compile(r'[\s*-]*((?:Revert|Reapply) ".*")\s*$', re.IGNORECASE)
_PULL_NUMBER = re.compile(r" \((?:pull request )?[#!]\d+\)")
_HASH = re.compile(r"(?<![\w-])[0-9a-f]{7,40}(?![\w-])", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Candidate:
    """A commit of the queue, as selection sees it."""

    sha: str
    state: CommitState
    age_s: float  # since it was received
    suspect: bool  # was in a batch that went wrong: goes out alone
    reverts: frozenset[str]  # hashes that it undoes or mends: see `fixes`, and `Commit.mends`
    author: str = ""
    undoes: frozenset[str] = frozenset()  # those of them that it takes back, and those that it perhaps does
    same_as: str | None = None  # it is barred for being the same as this one
    # It is barred for a failed canary, which may have been the fault of these, as they went along without a passed test.
    took_along: frozenset[str] = frozenset()
    # From which age on nobody says whether it is good, and nothing is on its way: its run was cancelled, or no report came in time,
    # or in that of a newer one.
    silent_from_s: float = inf
    # Passed, and its archive is built again: whatever its age, nothing ships past it meanwhile.
    built: bool = False
    barred: bool = False  # though its state says something else: red, untested, or in test
    inner: tuple[
        tuple[str, bool], ...
    ] = ()  # that came in with it, and whether it is barred: those that are, or that are undone
    # Of the oldest one: what is barred in what the queue follows, and the commit of the line that has brought it.
    below: tuple[tuple[str, str], ...] = ()

    @property
    def silent(self) -> bool:
        """Whether nobody is waited for any more who could say whether it is good."""
        return self.age_s >= self.silent_from_s

    @property
    def is_barred(self) -> bool:
        """Whether it must not ship until something mends it, neither alone nor inside of a later one."""
        return self.barred or self.state is CommitState.BARRED

    @property
    def is_suspect(self) -> bool:
        """Whether it may be what was bad, whatever its own tests say: what brings it goes out with as little as can be."""
        return self.suspect and not self.is_barred


@dataclass(frozen=True, slots=True)
class Choice:
    """The position to ship, or None; and why, in one sentence for people."""

    position: int | None
    reason: str


@dataclass(frozen=True, slots=True)
class _Block:
    """Positions `start` to `end - 1` must not ship: the change `sha` that is in `start` is bad until `fix` undoes it."""

    sha: str  # of the commit at `start`, of one that came in with it, or of one that it brings again
    start: int
    end: int
    fix: int | None
    again: bool = False  # `start` takes back what undid it


def fixes(message: str) -> frozenset[str]:
    """The hashes (7-40 hex digits, lower case) that a commit message reverts or mends.

    They stand in "This reverts commit <sha>", in a subject "revert <sha>", and in trailers "Rollout-Fixes: <sha>".
    """
    return reverts(message) | mended(message)


def mended(message: str) -> frozenset[str]:
    """As `fixes`, of trailers only."""
    own = "\n".join(_own_lines(message))
    trailers = (named for trailer in _TRAILER.findall(own) for named in _HASH.findall(trailer))
    return frozenset(sha.lower() for sha in trailers)


def reverts(message: str) -> frozenset[str]:
    """As `fixes`, of what it undoes only."""
    return frozenset(undone.sha for undone in undoes(message))


def requests_undone(message: str) -> frozenset[str]:
    """The requests, as "!47", "group/project!47" (GitLab) or "#12" (GitHub, Bitbucket), that it says it undoes; no hash tells of which commits."""
    if "reverts" not in message.lower():
        return frozenset()
    named = _REQUEST_UNDONE.findall("\n".join(_own_lines(message)))
    return frozenset(one or other for one, other in named)


def requests(message: str) -> frozenset[str]:
    """All names of the request that this is the commit of, by its own words."""
    merges = _MERGE_REQUEST.findall(message)
    pull = _PULL_REQUEST.match(message.partition("\n")[0])
    names = ("".join(merges[-1]), merges[-1][1]) if merges else ()
    return frozenset((*names, pull[1] or pull[2]) if pull else names)


def with_hashes(message: str, merged: Mapping[str, str]) -> str:
    """As it would be if its author had named commits in place of requests: those of `merged`, else NOBODY."""
    return _REQUEST_UNDONE.sub(
        lambda its: f"This reverts commit {merged.get(its[1] or its[2], NOBODY)}", message
    )


def requests_in(mends: str) -> frozenset[str]:
    """As `requests_undone`, of `Commit.mends`."""
    return frozenset(_REQUEST.findall(mends))


def mends_with_hashes(mends: str, merged: Mapping[str, str]) -> str:
    """As `with_hashes`, of `Commit.mends`."""
    return _REQUEST.sub(lambda its: merged.get(its[0], NOBODY), mends)


@dataclass(frozen=True, slots=True)
class Undone:
    """That a commit undoes another one, as its message says; of a squashed one, as one of those says that are in it."""

    sha: str  # of the other one
    title: str  # of who says so, in lower case; "" when it is not git's own
    own: str  # the hash of who says so, "" when it is not told
    # Though nobody knows the other one: it undoes none of what the same message says that it undoes, but what was left out.
    is_explained: bool = False


def undoes(message: str) -> list[Undone]:
    """What a message says that it undoes, without what it says that was undone again: a squashed one may list both."""
    found = list(_undoes(message))
    if len(found) <= 1:
        return found
    takers = [[at for at, other in enumerate(found) if _is_undone_by(one, other)] for one in found]
    stays = [True] * len(found)
    for _ in found:  # also who takes back may be taken back
        stays = [not any(stays[at] for at in those) for those in takers]
    taking = {at for those in takers for at in those}
    lines = _own_lines(message)
    listed = [heading[1].lower() for line in lines if (heading := _HEADING.match(line))]
    subjects = set(map(_subject, lines))
    return [
        replace(one, is_explained=at in taking or _is_told(one, listed, subjects))
        for at, (one, its) in enumerate(zip(found, stays, strict=True))
        if its
    ]


def _is_told(one: Undone, listed: Iterable[str], subjects: Collection[str]) -> bool:
    """That it undoes one of the listed ones, or, by git's own title, a change of elsewhere.

    Not an undoing, nor what has its subject in the same message: that may be an undoing under any name.
    """
    if any(sha.startswith(one.sha) for sha in listed):
        return True
    nested = one.title.startswith(('revert "revert "', 'revert "reapply "'))
    is_plain = one.title.startswith('revert "') and not nested
    return is_plain and _named_by(one.title) not in subjects


def _subject(line: str) -> str:
    return _PULL_NUMBER.sub("", line).lstrip(" \t*-").rstrip().lower()


def _named_by(title: str) -> str:
    """The subject of what a `Revert "…"` undoes."""
    return title.removeprefix('revert "').removesuffix('"')


def shorten(message: str, most: int) -> str:
    """At most `most` bytes of its beginning and its end, where the trailers are; and, in at most as many, what it undoes or mends.

    That are the lines of its middle that say so, and those that tell of which of the commits that it lists they are.
    """
    whole = message.encode()
    if len(whole) <= most:
        return message
    half = most // 2 - 5
    begin = whole.rfind(b"\n", 0, half) + 1
    end = whole.find(b"\n", len(whole) - half)
    end = len(whole) if end < 0 else end
    kept = "\n".join(_telling(whole[begin:end].decode(errors="ignore"), message))
    middle = kept.encode()[: most - 5]
    parts = (whole[: begin or half], middle, whole[end:] or whole[-half:])
    return "\n…\n".join(text for part in parts if (text := part.decode(errors="ignore").strip("\n")))


def _telling(part: str, message: str) -> Iterator[str]:
    """Of the lines of a part of a message those that `undoes`, `mended` and `requests_undone` read."""
    lists = any(_says(line) for line in message.splitlines())
    titles = (_TITLE.match(_PULL_NUMBER.sub("", line)) for line in message.splitlines())
    named = {_named_by(title[1].lower()) for title in titles if title}
    ends = False  # a line before ends what a title says already
    for line in part.splitlines():
        says = _HEADING.match(line) or _TITLE.match(_PULL_NUMBER.sub("", line)) or _says(line)
        if _TRAILER.match(line) or (lists and (says or _subject(line) in named)):
            ends = False
            yield line
        elif lists and line.startswith("* ") and not ends:
            ends = True
            yield "* …"


def _undoes(message: str) -> Iterator[Undone]:
    if "revert" not in message.lower():
        return
    title = own = ""
    for line in _own_lines(message):
        if heading := _HEADING.match(line):
            title, own = "", heading[1].lower()
        elif git := _TITLE.match(_PULL_NUMBER.sub("", line)):
            title = git[1].lower()
        elif line.startswith("* "):  # the next one of a list
            title = ""
        for sha in _named(line):
            yield Undone(sha.lower(), title, own)
            title = ""


def _named(line: str) -> list[str]:
    """The hashes of what this line says that it undoes."""
    button = _BUTTON.match(_PULL_NUMBER.sub("", line))
    return [button[1]] if button else _REVERT.findall(line)


def _says(line: str) -> bool:
    """Whether it says that something is undone, be it named by a hash or as a request."""
    return bool(_named(line) or _REQUEST_UNDONE.search(line))


def _own_lines(message: str) -> list[str]:
    """Its lines without the messages that a button quotes: whatever they undo or mend, this one does not.

    Bitbucket's puts a > before each line. Gitea's does not: below its subject all is quoted; in a list of squashed commits what stands
    before the next one.
    """
    lines = [line for line in message.splitlines() if not line.lstrip().startswith(">")]
    if lines and _BUTTON.match(_PULL_NUMBER.sub("", lines[0])):
        return lines[:1]
    kept, quotes = [], False
    for line in lines:
        quotes = quotes and not (_HEADING.match(line) or line.startswith("* "))
        if not quotes:
            kept.append(line)
            quotes = _BUTTON.match(line) is not None
    return kept


def _is_undone_by(one: Undone, other: Undone) -> bool:
    if one.own and one.own.startswith(other.sha):
        return True
    again = one.title.replace('revert "', 'reapply "', 1) if one.title.startswith('revert "') else None
    return bool(one.title) and other.title in {f'revert "{one.title}"', again}


def is_fix_of(candidate: Candidate, sha: str) -> bool:
    """Whether `candidate` undoes or mends the commit `sha`; it may have named it by its first digits only."""
    return any(sha.startswith(named) for named in candidate.reverts)


def choose(
    queue: Sequence[Candidate], durations_s: Sequence[float], goal_s: float = 1800.0, cap: int = 3
) -> Choice:
    """The next position to ship by automation. `durations_s`: of this app's recent rollouts, in any order.

    The smallest one that may ship in [need, cap]; else the largest one below; else none. Suspects go out one by one.
    """
    if not queue:
        return Choice(None, "there is nothing new: the last release is the newest commit")
    possible = list(_shippable(queue, cap))
    if not possible:
        return Choice(None, _why_nothing(queue, cap))
    if any(one.is_suspect for one in queue[:cap]):
        position = possible[0]
        reason = (
            f"{_name(queue[position - 1])} goes out before the others, to find which one of a batch was bad"
        )
    else:
        wanted = need(queue, durations_s, goal_s, cap)
        position = next((p for p in possible if p >= wanted), possible[-1])
        reason = _why_this(queue, position)
    for young in queue[:position]:
        if young.built:
            return Choice(None, f"waits for the archive of {_name(young)}, which is built again")
        if _is_on_its_way(young) and young.age_s < goal_s:
            return Choice(None, f"waits for the tests of {_name(young)}, which lies below the next release")
    return Choice(position, reason)


def need(queue: Sequence[Candidate], durations_s: Sequence[float], goal_s: float, cap: int) -> int:
    """How many commits must go out at once so that each is out within the goal; at most `cap`."""
    lasts = duration_s(durations_s)
    most = 1
    for position, candidate in enumerate(queue, start=1):
        rollouts_left = max(1, int((goal_s - candidate.age_s) // lasts))
        most = max(most, ceil(position / rollouts_left))
        if most >= cap:
            break
    return min(cap, most)


def duration_s(durations_s: Sequence[float]) -> float:
    """How long a rollout takes: nine of ten of the recent ones were no longer. At least a second."""
    if len(durations_s) < ENOUGH_ROLLOUTS:
        return UNMEASURED_S
    ranked = sorted(durations_s)
    return max(1.0, ranked[ceil(len(ranked) * 9 / 10) - 1])


@dataclass(frozen=True, slots=True)
class Red:
    """The commit that made the branch red."""

    position: int
    certain: (
        bool  # of every commit between the last good one and it, that was tested, or is waited for no more
    )


def first_red(queue: Sequence[Candidate]) -> Red | None:
    """The oldest commit that failed its tests behind the last one that passed; None when none failed behind it.

    A barred commit passed its tests: the branch is not red by it. One that nobody vouches for is named when none is red.
    """
    first: Red | None = None
    silent: Red | None = None
    certain = True
    for position, candidate in enumerate(queue, start=1):
        if _is_good(candidate):
            first, silent, certain = None, None, True
        elif candidate.state in _UNTESTED:
            certain = certain and candidate.silent
        elif candidate.silent:
            silent = silent or Red(position, certain)
        else:
            first = first or Red(position, certain)
    return first or silent


def suspects(batch: Sequence[Candidate], past: Collection[str] = ()) -> list[str]:
    """After the rollout of `batch` (the shipped commit last) went wrong: those that could have shipped alone.

    Oldest first, at least the shipped one. Where that is the only one, the caller bars the `culprits` instead.
    `past`: what is barred in it and a person stepped over, as if that kept nobody back.
    """
    *below, shipped = batch
    blocks = [block for block in _blocks(batch) if block.sha not in past]
    alone = [
        one.sha
        for position, one in enumerate(below, start=1)
        if one.state is CommitState.PASSED and not _blocked(position, blocks)
    ]
    return [*alone, shipped.sha]


def culprits(batch: Sequence[Candidate]) -> list[str]:
    """After the rollout of `batch` went wrong: who is to be barred for it; nobody while there are several suspects.

    It is the shipped one, if nothing else could have shipped alone. But if suspects of a batch that failed before are in
    this one too, and nothing in it undoes them, they explain both failures: a revert of one of their batch that brings them
    along is none for that.
    """
    if len(suspects(batch)) > 1:
        return []
    undone = {block.sha for block in _blocks(batch) if block.fix is not None}
    before = [one.sha for one in batch if one.is_suspect and one.sha not in undone]
    return before or [batch[-1].sha]


def rode_along(batch: Sequence[Candidate]) -> list[str]:
    """After the rollout of `batch` went wrong: what it took along without a passed test, and nothing in it undoes. That may be it, too."""
    undone = {block.sha for block in _blocks(batch) if block.fix is not None}
    return [one.sha for one in batch if not _is_good(one) and one.sha not in undone]


def explained(batch: Sequence[Candidate]) -> list[str]:
    """After the rollout of `batch` went wrong: what was barred in it before, and nothing in it mends. Then that says nothing of the others."""
    return [sha for sha in brought(batch) if sha != batch[-1].sha]


def kept_back(line: Sequence[Candidate]) -> list[str]:
    """What is barred below the last one of these, and that one would bring: nothing up to there undoes or mends it."""
    own = {line[-1].sha, *(sha for sha, _ in line[-1].inner)} if line else set()
    return [sha for sha in brought(line) if sha not in own]


def brought(line: Sequence[Candidate]) -> list[str]:
    """As `kept_back`, with the last one itself, and what came in with it."""
    return [one.sha for one in _blocks(line) if one.start <= len(line) < one.end]


def undone_later(line: Sequence[Candidate], most: int) -> tuple[str, str] | None:
    """Of the first `most` of these one that must not go out with them alone, and the later one that undoes or mends it."""
    held = (block for block in _blocks(line, most) if block.start <= most < block.end)
    return next(((block.sha, line[block.fix - 1].sha) for block in held if block.fix is not None), None)


def ships_only_with(queue: Sequence[Candidate], sha: str) -> str | None:
    """The later commit that undoes or mends this one, and without which it does not ship."""
    fix = next((block.fix for block in _blocks(queue) if block.sha == sha and block.fix is not None), None)
    return None if fix is None else queue[fix - 1].sha


def last_suspect(queue: Sequence[Candidate]) -> str | None:
    """The culprit by elimination: the only suspect of a batch that is left, when another one of it is out and well."""
    left = [one.sha for one in queue if one.is_suspect]
    return left[0] if len(left) == 1 else None


def reaches(batch: Sequence[Candidate]) -> list[int]:
    """Positions of which all up to there goes out with the batch: nothing later in it undoes or mends that."""
    undone = [block for block in _blocks(batch) if block.fix is not None]
    return [position for position in range(1, len(batch) + 1) if not _blocked(position, undone)]


def _shippable(queue: Sequence[Candidate], most: int) -> Iterator[int]:
    """Of the first `most` positions those that passed, are not blocked, and do not lie behind too many reds in a row; rising."""
    blocks = _blocks(queue, most)
    for position in range(1, _end(queue[:most]) + 1):
        if queue[position - 1].state is CommitState.PASSED and not _blocked(position, blocks):
            yield position


def _end(queue: Sequence[Candidate]) -> int:
    """The last position that automation looks at: all, or the last of the first three reds in a row."""
    reds = 0
    for position, candidate in enumerate(queue, start=1):
        reds = reds + 1 if _is_red(candidate) else 0
        if reds == REDS_IN_A_ROW:
            return position
    return len(queue)


def _blocks(queue: Sequence[Candidate], most: int | None = None) -> list[_Block]:
    """What must not ship without its fix: every barred commit, and every one that a later commit undoes; `most`: of the first ones.

    Also inside a merge, where what mends it may have come in with it: nobody names a hash that is not there yet. Behind what
    is out, and was barred then, the first of the queue may be what mends it.
    """
    fixes_at = [position for position, candidate in enumerate(queue, start=1) if candidate.reverts]
    blocks = []
    for position, candidate in enumerate(queue[:most], start=1):
        itself = (candidate.sha, candidate.is_barred)
        own = [(sha, barred, candidate.sha) for sha, barred in (itself, *candidate.inner)]
        for sha, barred, line in (*own, *((sha, True, line) for sha, line in candidate.below)):
            inside = sha != candidate.sha
            later = fixes_at[bisect_right(fixes_at, position - inside) :]
            fixing = [place for place in later if _mends(queue[place - 1], sha, line, candidate)]
            fix = next(iter(fixing), None)
            if fix != position and (barred or fix is not None):
                blocks.append(_Block(sha, position, fix or len(queue) + 1, fix))
            if barred:
                blocks += _back_again(queue, sha, fixing, later)
    return blocks


def _mends(later: Candidate, sha: str, line: str, candidate: Candidate) -> bool:
    """Whether it fixes this commit, the one that this is the same as, or what this took along; or reverts the whole merge, which `line` is then."""
    if is_fix_of(later, sha):
        return True
    if sha != line:
        return is_fix_of(later, line) and _takes_back(later, line)
    instead = {candidate.same_as, *candidate.took_along}
    return sha == candidate.sha and any(is_fix_of(later, one) for one in instead if one)


def _takes_back(later: Candidate, sha: str) -> bool:
    return any(sha.startswith(named) for named in later.undoes)


def _back_again(
    queue: Sequence[Candidate], sha: str, fixing: Sequence[int], later: Sequence[int]
) -> Iterator[_Block]:
    """From where the fix of a barred commit is itself taken back, until the next fix."""
    for fix in fixing:
        names = (queue[fix - 1].sha, *(inner for inner, _ in queue[fix - 1].inner))
        for place in later:
            if place > fix and any(_takes_back(queue[place - 1], name) for name in names):
                again = next((one for one in fixing if one >= place), None)
                if again != place:
                    yield _Block(sha, place, again or len(queue) + 1, again, again=True)
                break


def _blocked(position: int, blocks: Sequence[_Block]) -> bool:
    return any(block.start <= position < block.end for block in blocks)


def _why_this(queue: Sequence[Candidate], position: int) -> str:
    chosen = _name(queue[position - 1])
    if position == 1:
        return f"{chosen} is the oldest commit that waits, and goes out by itself"
    return f"{chosen} goes out with the {_commits(position - 1)} before it, of {len(queue)} that wait"


def _why_nothing(queue: Sequence[Candidate], cap: int) -> str:
    """Who must act before anything ships: the tests, or a person."""
    end, blocks = _end(queue), _blocks(queue)
    for position, candidate in enumerate(queue[: min(cap, end)], start=1):
        if _is_on_its_way(candidate) and not _blocked(position, blocks):
            return f"waits for the tests of {_name(candidate)}"
    beyond = next(_shippable(queue, len(queue)), None)
    if beyond is not None:
        return _why_beyond(queue, cap, beyond, blocks)
    broken = _reds_end_at(queue, end)
    block = _in_the_way(queue, blocks) if blocks and not (broken and end <= cap) else None
    if block is not None:
        return _why_blocked(queue, block)
    if broken:
        return _why_reds(queue, end, blocks)
    return _why_unknown(queue)


def _why_unknown(queue: Sequence[Candidate]) -> str:
    """Who is red, and of whom nobody says whether he is."""
    found, silent = first_red(queue), next((one for one in queue if one.silent), None)
    if silent is None:
        return f"{_first_red(queue)} failed its tests, and no commit after it has passed"
    is_red = found is not None and _is_red(queue[found.position - 1])
    red = f"{_first_red(queue)} failed its tests, " if is_red else ""
    return (
        f"{red}nobody says whether {_name(silent)} is good, and no commit after it has passed: its checks were cancelled, or no"
        f" report came in time; run them again: `rollout why {_name(silent)}` says which"
    )


def _why_reds(queue: Sequence[Candidate], end: int, blocks: Sequence[_Block]) -> str:
    """What leads past the reds must not ship what is barred with them."""
    stopped = (
        f"{REDS_IN_A_ROW} commits in a row failed their tests, the first one {_first_red(queue[:end])}: automation has"
        " stopped; repair the branch"
    )
    if barred := next((block for block in blocks if block.fix is None), None):
        stopped += f"; besides, {_why_blocked(queue, barred)}; after that"
    else:
        stopped += ", then"
    past = next((place for place in range(end, len(queue) + 1) if not _blocked(place, blocks)), end)
    target = _name(queue[past - 1]) if past > end else "COMMIT"
    return f"{stopped} step over them with `rollout deploy {target} --now --reason …`"


def _why_beyond(queue: Sequence[Candidate], cap: int, beyond: int, blocks: Sequence[_Block]) -> str:
    """What more than `cap` would bring. Of several whose runs were cancelled, the newest that may ship leaves the fewest behind it."""
    sha = _name(queue[beyond - 1])
    at = (place for place in range(cap, 0, -1) if queue[place - 1].silent and not _blocked(place, blocks))
    silent = next((_name(queue[place - 1]) for place in at), None)
    again = (
        f"have the checks of {silent} run again (`rollout why {silent}` says which), or " if silent else ""
    )
    return (
        f"{sha} could ship, but only together with {_commits(beyond - 1)} before it, and automation ships at most"
        f" {cap} at once: {again}a person may: `rollout deploy {sha} --now --reason …`"
    )


def _in_the_way(queue: Sequence[Candidate], blocks: Sequence[_Block]) -> _Block | None:
    """Which one keeps all from shipping: what has the fix of the first one may be kept back by another. None: it is only reds."""
    block = blocks[0]
    while block.fix is not None:
        tested = (place for place in range(block.fix, len(queue) + 1) if _is_good(queue[place - 1]))
        ready = next(tested, None)
        if ready is None:
            return block
        behind = next((one for one in blocks if one.start <= ready < one.end), None)
        if behind is None:
            return None
        block = behind
    return block


def _is_good(candidate: Candidate) -> bool:
    """Whether it passed its tests, whatever became of it."""
    return candidate.state in {CommitState.PASSED, CommitState.BARRED}


def _is_on_its_way(candidate: Candidate) -> bool:
    """Whether its tests are to be waited for."""
    return candidate.state in _UNTESTED and not candidate.silent


def _is_red(candidate: Candidate) -> bool:
    """Whether somebody said that it is bad."""
    return candidate.state is CommitState.FAILED and not candidate.silent


def _first_red(queue: Sequence[Candidate]) -> str:
    """By name, and with its author: who can say what is wrong."""
    found = first_red(queue)
    red = queue[found.position - 1 if found else 0]
    return f"{_name(red)} by {red.author}" if red.author else _name(red)


def _why_blocked(queue: Sequence[Candidate], block: _Block) -> str:
    bad = sha = block.sha[:12]
    first = queue[block.start - 1]
    if block.again:
        bad = f"{bad}, which {_name(first)} brings again,"
    elif block.sha in dict(first.below):
        bad = f"{bad}, which is out already or on its way,"
    elif block.sha != first.sha:
        bad = f"{bad}, which came in with {_name(first)},"
    if block.fix is not None:
        fix = queue[block.fix - 1]
        # Else that is what went along with it, and may have been wrong in its place.
        instead = block.sha == first.sha and not any(
            is_fix_of(fix, one) for one in (first.sha, first.same_as) if one
        )
        what = "what may have been wrong in its place" if instead else "it"
        undone = f"{bad} ships only together with {_name(fix)}, which undoes {what}"
        if _is_red(fix):
            return f"{undone} and failed its tests, and no commit after it has passed"
        if fix.silent:
            again = f"its checks were cancelled, or no report came in time: `rollout why {_name(fix)}` says which to run again"
            return f"{undone}, and nobody says whether that is good: {again}"
        return f"{undone} and has not passed yet"
    return (
        f'{bad} is barred, and so is all that comes after it until a commit says "This reverts commit {sha}" or'
        f' "Rollout-Fixes: {sha}", or until a person says `rollout unbar {sha}`'
    )


def _reds_end_at(queue: Sequence[Candidate], position: int) -> bool:
    reds = queue[max(0, position - REDS_IN_A_ROW) : position]
    return len(reds) == REDS_IN_A_ROW and all(_is_red(red) for red in reds)


def _commits(count: int) -> str:
    return "1 commit" if count == 1 else f"{count} commits"


def _name(candidate: Candidate) -> str:
    return candidate.sha[:12]
