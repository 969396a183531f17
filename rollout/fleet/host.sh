#!/bin/sh
# rollout's program on a host: the only thing of ours that runs there. docs/host.md is its protocol, in words.
#
# It is called as  sh {path}/.rollout/bin/<digest> VERB  with `key=value` lines on standard input, answers with
# `key=value` lines, the last of which is `end=<code>`, and is gone. POSIX sh for dash, bash and BusyBox.
# Nothing from outside is ever evaluated or pasted: `restart` and `health` go to `sh -c` as one argument.

callers_locale=${LC_ALL-}
LC_ALL=C # before the first pattern: ranges mean bytes
export LC_ALL
unset CDPATH IFS
set -f -u

me=$$
newline='
'
longest_header=65536  # bytes
greeting_limit=60000  # ms; a caller that is lost after the greeting leaves no process
lock_patience=60000   # ms that prepare and clean wait for the lock
output_cap=262144     # bytes; past this the output file is cut back to its end
output_shown=4096     # bytes
journal_full=800      # records; then it is cut back to the newest half: 256 KiB at most
journal_kept=600      # lines, the empty ones included
journal_tail=20       # lines read from the end; torn ones are skipped

# ---------------------------------------------------------------------------------------------------- replies

say() { printf '%s\n' "$1"; }

finish() { # CODE [REASON]: the last lines of every reply
    [ -z "${2-}" ] || say "reason=$2"
    say "end=$1"
    exit "$1"
}

refuse() { finish 20 "$1"; }

broken() { finish 30 "$1"; }

bad_input() { # WHAT: says which rule was broken, never repeats what was sent
    say "detail=$1"
    refuse 'bad input'
}

cannot_write() { # a write failed: the folder is closed to us, or the disk is full
    complaint=$(mkdir ".rollout/try-$me" 2>&1)
    rmdir ".rollout/try-$me" 2>/dev/null
    case $complaint in *Read-only* | *denied* | *'not permitted'*) broken 'not writable' ;; *) broken 'no room' ;; esac
}

# ---------------------------------------------------------------------------------------------------- input

is_number() {
    case $1 in '' | *[!0-9]* | 0?*) return 1 ;; esac
    [ "${#1}" -le 17 ]
}

is_seconds() { is_number "$1" && [ "${#1}" -le 6 ]; }

is_hex() { # TEXT LENGTH
    case $1 in *[!0-9a-f]*) return 1 ;; esac
    [ "${#1}" -eq "$2" ]
}

is_commit() { is_hex "$1" 40; }

is_host() {
    case $1 in '' | *[!A-Za-z0-9._:-]*) return 1 ;; esac
    [ "${#1}" -le 255 ]
}

is_way_back() {
    case $1 in none | foreign) return 0 ;; *) is_commit "$1" ;; esac
}

is_target() { # what `current` may be told to be
    is_commit "$1" || { [ "$verb" = rollback ] && is_way_back "$1"; }
}

is_digest() {
    is_hex "$1" 64 && return 0
    [ "$verb" = rollback ] && [ -z "$1" ]
}

epoch='' op='' op_asked='' host='' commit='' digest='' size='' keep='' spare='' wait=0 deep=''
base='' base_digest='' delta=''
restart='' restart_limit='' health='' health_timeout='' back=''
seen=' '

read_header() { # KEYS: those that the verb knows
    known=" $1 "
    length=0
    while IFS= read -r line; do
        [ -n "$line" ] || return 0
        length=$((length + ${#line}))
        [ "$length" -le "$longest_header" ] || bad_input 'too long'
        case $line in *=*) take "${line%%=*}" "${line#*=}" ;; *) bad_input 'no key' ;; esac
    done
    refuse 'cut off'
}

take() { # KEY VALUE: one line of the header
    case $known in *" $1 "*) ;; *) bad_input 'unknown key' ;; esac
    case $1 in
        spare)
            is_commit "$2" || bad_input spare
            spare="$spare $2"
            ;;
        restart) restart=$restart${restart:+$newline}$2 ;;
        health) health=$health${health:+$newline}$2 ;;
        *)
            case $seen in *" $1 "*) bad_input 'a key twice' ;; esac
            take_once "$1" "$2"
            ;;
    esac
    seen="$seen$1 "
}

take_once() { # KEY VALUE
    case $1 in
        epoch) is_number "$2" && epoch=$2 ;;
        op) is_number "$2" && [ "$2" != 0 ] && op=$2 ;;
        op_asked) is_number "$2" && op_asked=$2 ;;
        size) is_number "$2" && size=$2 ;;
        base) is_commit "$2" && base=$2 ;;
        base_digest) is_hex "$2" 64 && base_digest=$2 ;;
        delta) is_number "$2" && delta=$2 ;;
        keep) is_number "$2" && [ "$2" != 0 ] && keep=$2 ;;
        wait) is_number "$2" && wait=$2 ;;
        restart_limit) is_seconds "$2" && restart_limit=$2 ;;
        health_timeout) is_seconds "$2" && health_timeout=$2 ;;
        host) is_host "$2" && host=$2 ;;
        commit) is_target "$2" && commit=$2 ;;
        digest) is_digest "$2" && digest=$2 ;;
        back) is_way_back "$2" && back=$2 ;;
        deep) [ "$2" = 1 ] && deep=1 ;;
        *) bad_input 'unknown key' ;; # a key with a blank in it
    esac || bad_input "$1"
}

need() { # KEYS
    for key in $1; do
        case $seen in *" $key "*) ;; *) bad_input "no $key" ;; esac
    done
}

# ---------------------------------------------------------------------------------------------------- reading the host

read_clock() { # now: milliseconds since boot; boot: this boot's name
    read -r now _ </proc/uptime
    now=${now%.*}${now#*.}0
    while :; do case $now in 0?*) now=${now#0} ;; *) break ;; esac; done
}

read_boot() { read -r boot </proc/sys/kernel/random/boot_id; }

read_current() { # current: a commit, foreign or none
    current=none
    [ -e current ] || [ -L current ] || return 0
    current=foreign
    shelf=$root/releases
    if cd -P "$root/releases" 2>/dev/null; then shelf=$PWD; fi
    if [ -L "$root/current" ] && cd -P "$root/current" 2>/dev/null; then
        case $PWD in
            "$shelf"/*) if is_commit "${PWD#"$shelf"/}"; then current=${PWD##*/}; fi ;;
        esac
    fi
    cd "$root" || broken 'not writable'
}

# ---------------------------------------------------------------------------------------------------- the journal
# One line a record. Who holds the lock may append; whoever reads without it may find an operation under way.
# An operation begins with an empty line, so that a record that was cut before it spoils nothing.

parse_record() { # LINE: into rec_*; false when it is torn
    case $1 in 'op='*' whole=1') ;; *) return 1 ;; esac
    rec_op='' rec_epoch='' rec_verb='' rec_what='' rec_commit='' rec_from=none rec_open=no rec_line=0
    rec_code='' rec_reason='' rec_switched=no rec_put_back=no rec_already=no
    for word in $1; do
        case $word in
            op=*) rec_op=${word#*=} ;;
            epoch=*) rec_epoch=${word#*=} ;;
            verb=*) rec_verb=${word#*=} ;;
            what=*) rec_what=${word#*=} ;;
            commit=*) rec_commit=${word#*=} ;;
            from=*) rec_from=${word#*=} ;;
            open=*) rec_open=${word#*=} ;;
            line=*) rec_line=${word#*=} ;;
            code=*) rec_code=${word#*=} ;;
            reason=*) rec_reason=${word#*=} ;;
            switched=*) rec_switched=${word#*=} ;;
            put_back=*) rec_put_back=${word#*=} ;;
            already=*) rec_already=${word#*=} ;;
        esac
    done
    is_number "$rec_op" && is_number "$rec_epoch" && is_number "$rec_line"
}

read_journal() { # the last whole record, into last_*
    last_op=0 last_epoch=0 last_verb=none last_what=none last_commit='' last_from=none last_open=no
    lines=0 start=''
    [ -s .rollout/journal ] || return 0
    start=$newline
    text=$(tail -n "$journal_tail" .rollout/journal 2>/dev/null) || broken journal
    whole_text=$text
    until parse_record "${text##*"$newline"}"; do
        case $text in
            *"$newline"*) text=${text%"$newline"*} ;;
            *)
                # A single torn line is a first record that was never finished. Anything else is no journal of ours.
                case $whole_text in *"$newline"*) broken journal ;; o*) return 0 ;; *) broken journal ;; esac
                ;;
        esac
    done
    last_op=$rec_op last_epoch=$rec_epoch last_verb=$rec_verb last_what=$rec_what
    last_commit=$rec_commit last_from=$rec_from last_open=$rec_open lines=$rec_line
}

find_record() { # OPERATION: its newest record, into rec_*; false when there is none. After read_journal.
    [ "$1" -le "$last_op" ] || return 1
    text=$(grep "^op=$1 .* whole=1\$" .rollout/journal 2>/dev/null) || return 1
    parse_record "${text##*"$newline"}"
}

# `open` says that what runs now may not be what `current` says, or not soundly: a rollback must not skip it.
record() { # WHAT OPEN [MORE]: append one line
    lines=$((lines + 1))
    read_clock
    printf '%sop=%s epoch=%s verb=%s what=%s commit=%s from=%s open=%s clock=%s boot=%s host=%s line=%s%s whole=1\n' \
        "$start" "$op" "$epoch" "$verb" "$1" "$commit" "$from" "$2" "$now" "$boot" "$host" "$lines" "${3:+ $3}" \
        2>/dev/null >>.rollout/journal || return 1
    start=''
}

trim_journal() {
    [ "$lines" -ge "$journal_full" ] || return 0
    if tail -n "$journal_kept" .rollout/journal 2>/dev/null >.rollout/journal.new && sync .rollout/journal.new; then
        mv -f .rollout/journal.new .rollout/journal
        lines=$((journal_full / 2))
    else
        cannot_write
    fi
}

# ---------------------------------------------------------------------------------------------------- the fence
# The highest epoch and operation number that this host has seen stand in the journal's last record, and, for whoever
# came while the lock was held, as names of empty files `.rollout/raised/<epoch>-<op>`: made atomically, never changed.
# A seal's mark carries its operation number and forbids whatever was sent before it to switch. An order's is `<epoch>-0`:
# it waits for the lock, and ends a health wait besides. So neither kind may replace the other.

is_mark() {
    mark_epoch=${mark##*/} mark_op=${mark##*-}
    mark_epoch=${mark_epoch%-*}
    is_number "$mark_epoch" && is_number "$mark_op"
}

read_raised() {
    raised_epoch=0 raised_op=0 ordered_epoch=0
    set +f
    for mark in .rollout/raised/*; do
        is_mark || continue
        [ "$mark_op" != 0 ] || [ "$mark_epoch" -le "$ordered_epoch" ] || ordered_epoch=$mark_epoch
        [ "$mark_epoch" -le "$raised_epoch" ] || raised_epoch=$mark_epoch
        [ "$mark_op" -le "$raised_op" ] || raised_op=$mark_op
    done
    set -f
}

read_fence() { # seen_epoch and seen_op, of journal and marks
    read_journal
    read_raised
    seen_epoch=$last_epoch seen_op=$last_op
    [ "$raised_epoch" -le "$seen_epoch" ] || seen_epoch=$raised_epoch
    [ "$raised_op" -le "$seen_op" ] || seen_op=$raised_op
}

raise_mark() { # EPOCH OPERATION
    [ -d .rollout/raised ] || mkdir -p .rollout/raised
    printf '' >".rollout/raised/$1-$2"
} 2>/dev/null

drop_marks() { # those that the record just synced makes superfluous
    [ "$raised_epoch" != 0 ] || return 0
    set +f
    for mark in .rollout/raised/*; do
        if is_mark && [ "$mark_epoch" -le "$epoch" ] && [ "$mark_op" -le "$op" ]; then rm -f "$mark"; fi
    done
    set -f
}

drop_lower() { # EPOCH OPERATION: marks of the same kind that this one makes superfluous
    [ "$raised_epoch" != 0 ] || return 0
    set +f
    for mark in .rollout/raised/*; do
        is_mark || continue
        if [ "$mark_epoch" -gt "$1" ] || [ "$mark_op" -gt "$2" ] || [ "${mark##*/}" = "$1-$2" ]; then continue; fi
        if [ "$mark_op" != 0 ] || [ "$2" = 0 ]; then rm -f "$mark"; fi
    done
    set -f
}

overtaken() { # somebody with a higher number has come since
    read_raised
    [ "$raised_epoch" -gt "$epoch" ] || [ "$raised_op" -ge "$op" ]
}

relieved() { # an order with a higher epoch waits for the lock: what follows is its business
    read_raised
    [ "$ordered_epoch" -gt "$epoch" ]
}

check_fence() {
    read_fence
    [ "$epoch" -ge "$seen_epoch" ] || refuse epoch
    [ "$op" -gt "$seen_op" ] || refuse op
}

# ---------------------------------------------------------------------------------------------------- the lock

open_lock() { { command exec 9>>.rollout/lock; } 2>/dev/null || cannot_write; }

wait_for_lock() { # UNTIL [-s]: false when the clock passes UNTIL first
    # shellcheck disable=SC2086 # an absent option is no word
    until flock -n ${2-} 9; do
        read_clock
        [ "$now" -lt "$1" ] || return 1
        sleep 0.05
    done
}

# ---------------------------------------------------------------------------------------------------- other people's commands

empty_output() { # for this user's eyes only; kept, since a daemon of an earlier restart may still write to it
    if [ ! -e .rollout/output ]; then (umask 077 && : >.rollout/output) 2>/dev/null; fi
    { printf '' >.rollout/output; } 2>/dev/null || cannot_write
}

cap_output() {
    [ -s .rollout/output ] || return 0
    [ "$(wc -c <.rollout/output)" -gt "$output_cap" ] || return 0
    # Cut in place: writers append, so they go on behind what is left.
    tail -c "$((output_shown * 2))" .rollout/output >.rollout/output.end
    cat .rollout/output.end >.rollout/output
    rm -f .rollout/output.end
}

guard() { # TARGET MS MODE: in the background, kill TARGET when its time is up or when we are gone
    # By exec: redirecting the call would keep copies, and so the channel and the lock, as long as we watch.
    exec </dev/null >/dev/null 2>&1 9>&-
    trap 'exit 0' TERM
    read_clock
    ends=$((now + $2))
    nap=0.2
    while { sleep "$nap" 2>/dev/null || sleep 1; } && kill -0 "$me" 2>/dev/null; do
        # Each look is a process. A health wait ends for a way back, which somebody waits for.
        [ "$3" = health ] || nap=1
        [ "$3" = greeting ] || cap_output
        [ "$3" != health ] || ! relieved || break
        read_clock
        [ "$now" -lt "$ends" ] || break
    done
    kill -KILL "$1"
}

run() { # LIMIT_MS MODE COMMAND: in $folder, in a session of its own, for at most LIMIT_MS; its exit status
    (
        cd -P "$folder" || exit 126
        if [ -n "$callers_locale" ]; then LC_ALL=$callers_locale; else unset LC_ALL; fi
        RELEASE=$PWD COMMIT=$target HOST=$host
        export RELEASE COMMIT HOST
        exec setsid sh -c "$3"
    ) </dev/null >>.rollout/output 2>&1 9>&- &
    job=$!
    guard "-$job" "$1" "$2" &
    watcher=$!
    while :; do
        { wait "$job"; } 2>/dev/null
        status=$?
        # A caught HUP ends `wait` early; the command is still there then.
        if [ "$status" -le 128 ] || ! kill -0 "$job" 2>/dev/null; then break; fi
    done
    kill "$watcher" 2>/dev/null
    return "$status"
}

note() { printf 'rollout: %s\n' "$1" >>.rollout/output; } 2>/dev/null

restarted() {
    [ -n "$restart" ] || return 0
    run "$((restart_limit * 1000))" restart "$restart" && return 0
    note "restart in ${target} ended with status $status (limit $restart_limit s)"
    return 1
}

healthy() { # 0 healthy, 1 not within its time, 2 relieved
    [ -n "$health" ] || return 0
    read_clock
    give_up=$((now + health_timeout * 1000))
    while :; do
        ! relieved || return 2
        run "$((give_up - now))" health "$health" && return 0
        read_clock
        [ "$now" -lt "$give_up" ] || break
        sleep 0.5
        read_clock
        [ "$now" -lt "$give_up" ] || break
    done
    ! relieved || return 2
    note "health in ${target} did not succeed within $health_timeout s (last status $status)"
    return 1
}

bring_up() { # TARGET: restart and health there; 0 healthy, 1 unhealthy, 2 relieved
    target=$1
    case $target in
        none) return 0 ;;
        foreign) folder=$root/current ;;
        *) folder=$root/releases/$target ;;
    esac
    if [ "$target" = foreign ] && [ ! -d "$folder" ]; then return 0; fi
    restarted || return 1
    healthy
}

show_output() {
    [ -s .rollout/output ] || return 0
    cap_output
    { tail -c "$output_shown" .rollout/output; echo; } | sed -e 's/^/output=/' -e '$!b' -e '/^output=$/d'
}

# ---------------------------------------------------------------------------------------------------- the switch

point() { # TARGET: make `current` it, in one rename
    case $1 in
        none) rm -f current ;;
        foreign)
            rm -f .rollout/next && cp -P .rollout/foreign .rollout/next && mv -fT .rollout/next current
            ;;
        *) ln -sfn "releases/$1" .rollout/next && mv -fT .rollout/next current ;;
    esac
} 2>/dev/null

remember_foreign() { # a link of somebody else's, copied as it is
    [ "$was" = foreign ] && [ "$commit" != foreign ] || return 0
    rm -f .rollout/foreign
    cp -P current .rollout/foreign 2>/dev/null || cannot_write
}

greet() { # say what time it is here, and wait to be told how much of it is left
    read_boot
    read_current
    read_clock
    greeted=$now
    printf 'clock=%s\nboot=%s\ncurrent=%s\n' "$now" "$boot" "$current"
    guard "$me" "$greeting_limit" greeting &
    watcher=$!
    IFS= read -r line || line=''
    kill "$watcher" 2>/dev/null
    case $line in within=*) ;; '') refuse 'cut off' ;; *) bad_input 'no within' ;; esac
    is_number "${line#*=}" || bad_input within
    deadline=$((greeted + ${line#*=}))
}

in_time() {
    read_clock
    [ "$now" -lt "$deadline" ]
}

allowed() { # may we still switch? else: reason
    reason=late
    in_time || return 1
    reason=epoch
    ! overtaken
}

enter() { # take the lock; who has a higher epoch ends a health wait that holds it
    open_lock
    flock -n 9 && return 0
    read_fence
    if [ "$epoch" -gt "$seen_epoch" ] && raise_mark "$epoch" 0; then drop_lower "$epoch" 0; fi
    wait_for_lock "$deadline" || refuse busy
}

answer_known() { # an operation that was here before gets the answer that it had
    find_record "$op" || return 0
    say intent=yes
    [ "$rec_already" = no ] || say already=yes
    printf 'switched=%s\nput_back=%s\ncurrent=%s\n' "$rec_switched" "$rec_put_back" "$current"
    [ -n "$rec_code" ] || broken unknown
    case $rec_reason in *_*) rec_reason="${rec_reason%%_*} ${rec_reason#*_}" ;; esac
    finish "$rec_code" "$rec_reason"
}

check_release() { # what we are to switch to is here, and is what was prepared
    case $commit in
        none) return 0 ;;
        foreign)
            [ -L .rollout/foreign ] || refuse 'not prepared'
            return 0
            ;;
    esac
    if [ ! -d "releases/$commit" ] || [ ! -s ".rollout/digests/$commit" ]; then refuse 'not prepared'; fi
    read -r prepared <".rollout/digests/$commit"
    # Who sends it back may not know what was there before he came: a rollback without a digest goes by the host's own.
    [ -n "$digest" ] || digest=$prepared
    [ "$prepared" = "$digest" ] || refuse digest
    [ "$verb" = activate ] || [ "$(tree_digest "releases/$commit")" = "$digest" ] || refuse digest
}

choose_from() { # where an unhealthy release is put back to
    from=$was
    # A second attempt finds its own release in `current`; what was there before stands in the journal.
    if [ "$was" = "$commit" ] && [ "$last_commit" = "$commit" ] && [ "$last_what" != 'done' ]; then from=$last_from; fi
    # What was there may be what it should have left already; then the order says where to.
    [ -z "$back" ] || from=$back
}

outcome() { # CODE REASON WHAT OPEN: journal it, then say it
    more="code=$1 switched=$switched put_back=$put_back"
    case $2 in '') ;; *' '*) more="$more reason=${2%% *}_${2#* }" ;; *) more="$more reason=$2" ;; esac
    code=$1 said=$2
    # The switch is on the disk before the record that tells of it: a power cut must not leave the record alone.
    if ! { sync . && record "$3" "$4" "$more" && sync .rollout/journal; }; then code=30 said='no room'; fi
    read_current
    printf 'intent=yes\nswitched=%s\nput_back=%s\n' "$switched" "$put_back"
    show_output
    say "current=$current"
    finish "$code" "$said"
}

void() { # CODE REASON: the intent came to nothing; `current` is as it was
    outcome "$1" "$2" void "$last_open"
}

is_back() { # it is there already; or it is to be without a release of ours, and somebody has put his own there since
    case $commit in
        "$was") [ "$last_open" = no ] ;;
        none) [ "$was" = foreign ] ;;
        *) false ;;
    esac
}

answer_already() {
    [ "$verb" = rollback ] && is_back || return 0
    from=$was
    { sync . && record 'done' no 'code=0 already=yes' && sync .rollout/journal; } || cannot_write
    drop_marks
    printf 'intent=yes\nalready=yes\nswitched=no\nput_back=no\ncurrent=%s\n' "$current"
    finish 0
}

write_intent() {
    trap : HUP PIPE # caught, not ignored: commands get the default back
    record intent yes || cannot_write
    if ! sync .rollout/journal .rollout; then
        record void "$last_open" 'code=30 reason=no_room'
        cannot_write
    fi
    drop_marks
}

put_in_place() { # the switch itself, fenced on both sides
    allowed || void 20 "$reason"
    if ! point "$commit"; then
        read_current
        [ "$current" != "$was" ] || void 30 'no room'
        switched=yes # killed right behind the rename
        outcome 30 killed left yes
    fi
    allowed && return 0
    why=$reason
    if point "$was"; then void 20 "$why"; fi
    switched=yes
    outcome 30 "$why" left yes
}

put_back() { # an unhealthy release makes room for what was there before
    if [ "$verb" = rollback ] || [ "$from" = "$commit" ]; then outcome 10 unhealthy failed yes; fi
    record back yes
    if { is_commit "$from" && [ ! -d "releases/$from" ]; } || ! point "$from"; then
        note "could not switch back to $from"
        outcome 10 unhealthy failed yes
    fi
    put_back=yes
    bring_up "$from" && outcome 10 unhealthy failed no
    note "$from, which was put back, is not known to be healthy either"
    outcome 10 unhealthy failed yes
}

switch() { # activate and rollback
    read_header 'epoch op host commit digest restart restart_limit health health_timeout back'
    need 'epoch op host commit restart_limit health_timeout'
    if [ "$verb" = activate ] && [ -z "$digest" ]; then bad_input 'no digest'; fi
    greet
    enter
    read_current
    was=$current
    read_fence
    answer_known
    [ "$epoch" -ge "$seen_epoch" ] || refuse epoch
    [ "$op" -gt "$seen_op" ] || refuse op
    in_time || refuse late
    trim_journal
    answer_already
    if [ -e current ] && [ ! -L current ]; then broken 'current is no link'; fi
    check_release
    in_time || refuse late
    choose_from
    remember_foreign
    empty_output
    switched=no put_back=no
    write_intent
    put_in_place
    switched=yes
    say switched=yes # ahead of the outcome: a stop need not ask whether it is still to come
    bring_up "$commit"
    case $? in
        0) outcome 0 '' 'done' no ;;
        2) outcome 10 overtaken left yes ;;
        *) put_back ;;
    esac
}

# ---------------------------------------------------------------------------------------------------- releases

tree_digest() ( # FOLDER: sha256 of the canonical listing of its tree
    cd "$1" || exit 1
    {
        echo files
        find . -type f ! -perm -100 -exec sha256sum {} + | sort -k 2
        echo executables
        find . -type f -perm -100 -exec sha256sum {} + | sort -k 2
        echo links
        find . -type l | sort | while IFS= read -r link; do printf '%s -> %s\n' "$link" "$(readlink "$link")"; done
    } | sed '/^\\/{s/^\\//;s/\\\\/\\/g;}' | { # GNU's sha256sum doubles the backslashes of a name, BusyBox's does not
        sha256sum | {
            read -r sum _
            echo "$sum"
        }
    }
)

make_folders() {
    [ -d releases ] && [ -d .rollout/digests ] && return 0
    mkdir -p releases .rollout/digests 2>/dev/null || cannot_write
}

write_digest() { # remember what $commit is, and put it and its folder on the disk
    { printf '%s\n' "$digest" >".rollout/digests/$commit"; } 2>/dev/null || cannot_write
    sync ".rollout/digests/$commit" .rollout/digests releases || cannot_write
}

is_here() { # the release is on the host, with that digest
    [ -d "releases/$commit" ] || return 1
    if [ ! -s ".rollout/digests/$commit" ]; then
        [ "$(tree_digest "releases/$commit")" = "$digest" ] || return 1
        write_digest
    fi
    read -r prepared <".rollout/digests/$commit"
    [ "$prepared" = "$digest" ]
}

is_wanted() { # another digest of it must not be replaced: it runs, or an unhealthy one would be put back to it
    [ -d "releases/$commit" ] || return 1
    read_current
    [ "$current" = "$commit" ] || { [ "$last_verb" = activate ] && [ "$last_from" = "$commit" ]; }
}

unpack() { # BYTES FOLDER: that many bytes of standard input; false, with $detail, when they are no archive
    ! tar_failed "$({ head -c "$1" | { tar -xzof - -C "$2" 2>&1 || echo failed; skip_the_rest; }; } | tail -n 6)"
}

tar_failed() { # ITS LAST WORDS, and `failed` if it did; ends everything when it was for want of room
    case $1 in
        *failed) ;;
        *) return 1 ;;
    esac
    complaint=${1%failed}
    complaint=${complaint%"$newline"}
    detail=${complaint##*"$newline"}
    case $complaint in
        *'No space'* | *'uota exceeded'* | *'Wrote only'*)
            say "detail=$detail"
            broken 'no room'
            ;;
    esac
}

skip_the_rest() { # of a delta, behind which the whole archive may come; of an archive nothing is read in vain
    [ "$new" = "$box" ] || cat >/dev/null
}

take_whole() {
    new=$box
    say send=yes
    if ! unpack "$size" "$box"; then
        say "detail=$detail"
        case $complaint in
            *'nexpected end'* | *'nexpected EOF'* | *'short read'* | *'corrupted data'* | *'crc error'*) refuse 'cut off' ;;
            *) broken 'bad archive' ;;
        esac
    fi
    [ "$(tree_digest "$new")" = "$digest" ] || refuse digest
}

take_delta() { # what changed is sent, the rest is copied from the base; false: that is not the release, and nothing of it stays
    new=$box/tree
    say send=delta
    if unpack "$delta" "$box" && copy_kept && [ "$(tree_digest "$new")" = "$digest" ]; then return 0; fi
    rm -rf "$box"
    mkdir "$box" 2>/dev/null || cannot_write
    return 1
}

has_base() { # the release that the delta goes by is here, whatever its app did to it since
    [ -n "$base" ] && [ -d "releases/$base" ] && [ -s ".rollout/digests/$base" ] || return 1
    read -r prepared <".rollout/digests/$base"
    [ "$prepared" = "$base_digest" ]
}

copy_kept() { # the base's files of the list that came along: copied, since a linked file would change with its base
    if [ -s "$box/kept" ]; then
        # What is missing there is missed when the whole is looked at. No room is no end: a file may have grown there since.
        # shellcheck disable=SC2016 # that is for the inner shell
        (cd "releases/$base" &&
            xargs -0 sh -c 'tar -cf - "$@" | tar -xof - -C "$0"' "$root/$new" <"$root/$box/kept") >/dev/null 2>&1 || return 1
    fi
    # Their modes are as an archive's would be here: what the app did to them is not part of the release.
    # shellcheck disable=SC2046 # two words
    set -- $(stat -c %a "$box/kept" "$new")
    [ "$#" -eq 2 ] || return 1
    plain=$1 executable=${2#"${2%???}"}
    find "$new" -type f -perm -100 ! -perm "$executable" -exec chmod "$executable" {} + &&
        find "$new" -type f ! -perm -100 ! -perm "$plain" -exec chmod "$plain" {} + &&
        linked=$(find "$new" -type f -links +1) && [ -z "$linked" ]
}

make_box() { # $box, empty; a leftover of a killed prepare is removed, a living one is not
    { command exec 8>>.rollout/unpacking; } 2>/dev/null || cannot_write
    flock -s 8
    mkdir "$box" 2>/dev/null && return 0
    [ -d "$box" ] || cannot_write
    flock -n 8 || refuse busy
    rm -rf "$box"
    mkdir "$box" 2>/dev/null || cannot_write
}

shelve() { # $new becomes the release; needs the lock
    old=releases/.old-$me
    if [ -e "releases/$commit" ]; then
        rm -f ".rollout/digests/$commit"
        { mkdir -p "$old" && mv -fT "releases/$commit" "$old/$commit"; } 2>/dev/null || cannot_write
    fi
    mv -fT "$new" "releases/$commit" 2>/dev/null || cannot_write
    [ "$new" = "$box" ] || rm -rf "$box"
    write_digest
}

tidy() { # keep the newest, and whatever is spared; needs journal and lock, gives the lock back before it deletes
    read_current
    spare=" $current $last_from $last_commit $commit $spare "
    order=$(ls -t .rollout/digests 2>/dev/null)
    kept=0 removed=0 ordered=' ' old=releases/.old-$me
    set +f
    for folder in releases/*; do
        case $spare in *" ${folder##*/} "*) kept=$((kept + 1)) ;; esac
    done
    for name in $order releases/*; do # those without a digest come last: they were never finished
        name=${name##*/}
        is_commit "$name" || continue
        case $ordered$spare in *" $name "*) continue ;; esac
        ordered="$ordered$name "
        if [ -s ".rollout/digests/$name" ] && [ -d "releases/$name" ] && [ "$kept" -lt "$keep" ]; then
            kept=$((kept + 1))
        else
            discard "$name"
        fi
    done
    set -f
    drop_leftovers
    exec 9>&-
    set +f
    for folder in releases/.old-*; do
        [ ! -d "$folder" ] || rm -rf "$folder" 2>/dev/null
    done
    set -f
}

discard() { # COMMIT: out of the way at once, deleted later
    rm -f ".rollout/digests/$1"
    [ -d "releases/$1" ] || return 0
    mkdir -p "$old" 2>/dev/null && mv -fT "releases/$1" "$old/$1" 2>/dev/null && removed=$((removed + 1))
}

drop_leftovers() { # folders of prepares that were killed; only while none is unpacking
    set +f
    for folder in releases/.new-*; do
        [ -d "$folder" ] || continue
        { command exec 8>>.rollout/unpacking; } 2>/dev/null && flock -n 8 && rm -rf releases/.new-* 2>/dev/null
        exec 8>&-
        break
    done
    set -f
}

# ---------------------------------------------------------------------------------------------------- verbs

hello() {
    read_header deep
    read_boot
    read_current
    read_clock
    printf 'rollout=1\nclock=%s\nboot=%s\ncurrent=%s\n' "$now" "$boot" "$current"
    [ -z "$deep" ] || look_deep
    finish 0
}

look_deep() { # what `rollout check` wants to know: tools are tried, not only looked for
    missing=''
    for tool in cat cp date df find flock grep gzip head id ln ls mkdir mv readlink rm sed setsid sha256sum sleep sort sync tail tar touch wc; do
        command -v "$tool" >/dev/null || lacks "$tool"
    done
    try=.rollout-try-$me writable=no
    if mkdir "$try" 2>/dev/null; then
        writable=yes
        { ln -s a "$try/b" && mv -fT "$try/b" "$try/c"; } 2>/dev/null || lacks 'mv -T'
        sync "$try" 2>/dev/null || lacks 'sync FILE'
        sleep 0.01 2>/dev/null || lacks 'sleep 0.01'
        rm -rf "$try"
    fi
    free=$(df -Pk . | tail -n 1)
    # shellcheck disable=SC2086 # the columns are wanted as words
    set -- $free
    printf 'now=%s\nmissing=%s\nfree_kb=%s\nwritable=%s\nuser=%s\n' "$(date +%s)" "$missing" "${4-}" "$writable" "$(id -un)"
}

lacks() { missing=$missing${missing:+${newline}missing=}$1; }

prepare() {
    read_header 'epoch op commit digest size keep spare base base_digest delta'
    need 'epoch op commit digest size keep'
    case $seen in *' base '* | *' base_digest '* | *' delta '*) need 'base base_digest delta' ;; esac
    make_folders
    open_lock
    check_fence
    if is_here; then
        touch ".rollout/digests/$commit" # it is the newest again
        say send=no
        finish 0
    fi
    ! is_wanted || refuse 'in use'
    box=releases/.new-$op
    make_box
    trap 'rm -rf "$box"' EXIT
    trap 'exit 1' HUP INT PIPE TERM
    { has_base && take_delta; } || take_whole
    { sync -f "$new" 2>/dev/null || sync; } || cannot_write
    read_clock
    wait_for_lock "$((now + lock_patience))" || refuse busy
    check_fence
    if is_here; then # somebody else brought it meanwhile
        rm -rf "$box"
    else
        ! is_wanted || refuse 'in use'
        shelve
    fi
    trap - EXIT
    exec 8>&-
    tidy
    finish 0
}

status() {
    read_header 'op_asked epoch op wait'
    case $seen in *' epoch '* | *' op '*) need 'epoch op' ;; esac
    read_boot
    sealed=no running=no code=0 said=''
    if [ -n "$epoch" ]; then seal; else look; fi
    what=none
    if [ -n "$op_asked" ] && find_record "$op_asked"; then what=$rec_what; fi
    result_of "$what"
    asked=$result
    if [ "$what" = back ]; then asked=back; fi # it was unhealthy, whatever cut its way back short
    result_of "$last_what"
    read_clock
    printf 'clock=%s\nboot=%s\ncurrent=%s\nepoch=%s\nrunning=%s\nop=%s\nverb=%s\ncommit=%s\nresult=%s\nasked=%s\nsealed=%s\n' \
        "$now" "$boot" "$current" "$seen_epoch" "$running" "$last_op" "$last_verb" "$last_commit" "$result" "$asked" "$sealed"
    finish "$code" "$said"
}

result_of() { # WHAT: as the reply says it, into result
    case $1 in
        'done' | failed) result=$1 ;;
        intent | back | left) result=intent ;;
        *) result=none ;;
    esac
}

look() { # the lock is shared while we read, so that journal and `running` are of one moment
    if { command exec 9<.rollout/lock; } 2>/dev/null; then flock -n -s 9 || running=yes; fi
    read_fence
    read_current
}

seal() { # nothing that was sent before us may act after our answer
    read_fence
    if [ "$epoch" -lt "$seen_epoch" ]; then
        look
        code=20 said=epoch
    elif leave_mark; then
        look_sealed
    else
        look
        code=30 said='no room'
    fi
}

leave_mark() { # first: whoever takes the lock after us will see it, whoever holds it looks before the switch
    [ "$epoch" -gt "$seen_epoch" ] || [ "$op" -gt "$seen_op" ] || return 0
    raise_mark "$epoch" "$op" && sync .rollout/raised .rollout || return 1
    drop_lower "$epoch" "$op"
}

look_sealed() { # for at most $wait ms; who asks for no outcome does not wait for it
    open_lock
    read_clock
    give_up=$((now + wait))
    while :; do
        running=no
        flock -n -s 9 || running=yes
        read_fence
        read_current
        sealed=yes
        # Who still holds the lock may be between its last look at the marks and its switch.
        if [ "$running" = yes ] && [ "$last_what" = intent ] && [ "$last_commit" != "$current" ]; then sealed=no; fi
        [ "$running" = yes ] || return 0
        [ "$sealed" = no ] || [ -n "$op_asked" ] || return 0
        read_clock
        [ "$now" -lt "$give_up" ] || return 0
        sleep 0.05
    done
}

clean() {
    read_header 'keep spare'
    need keep
    make_folders
    open_lock
    read_clock
    wait_for_lock "$((now + lock_patience))" || refuse busy
    read_journal
    tidy
    say "removed=$removed"
    finish 0
}

verb=${1-}
root=${0%/.rollout/bin/*}
if [ "$root" = "$0" ] || ! cd -P "${root:-/}" 2>/dev/null; then broken 'not installed'; fi
root=$PWD
[ -r /proc/uptime ] || broken 'no /proc'

case $verb in
    hello | prepare | status | clean) "$verb" ;;
    activate | rollback) switch ;;
    *) bad_input 'unknown verb' ;;
esac
