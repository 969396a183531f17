#!/bin/sh
# Counts the new lines of an access log by status class and 2 s bin. POSIX sh and awk, read-only, bounded work.
#
# In:  log= file=<device:inode, empty to begin> mark=<length:checksum of its first bytes> offset= skip= ready= was_now= was_up=
#      most= apart=, then an empty line; to begin also since=<seconds since readiness> history=<seconds>
#      current=<the link that was switched; empty: none was>.
# Out: rollout_log=1, now=, up=, ready=, then error=<why>, or bin=<number> <class> <count> … file= mark= offset= skip= more=
#      rotated= lost=, and end=0 last. Bins count from `ready` (seconds since 1970 on this host's clock), which moves along
#      when that clock is stepped: how much time has passed since the last reading is said by the uptime alone.
#      To begin, the log's tail is counted into bins below 0; begins= is the time of its first line, switched= that of the link.

export LC_ALL=C
log='' file='' mark='' offset=0 skip=0 ready=0 was_now=0 was_up=0 most=0 apart='' since=0 history=0 current='' rotated=0 lost=0 more=0
while IFS= read -r line && [ -n "$line" ]; do
  case $line in
    log=*) log=${line#*=} ;;
    file=*) file=${line#*=} ;;
    mark=*) mark=${line#*=} ;;
    offset=*) offset=${line#*=} ;;
    skip=*) skip=${line#*=} ;;
    ready=*) ready=${line#*=} ;;
    was_now=*) was_now=${line#*=} ;;
    was_up=*) was_up=${line#*=} ;;
    most=*) most=${line#*=} ;;
    apart=*) apart=${line#*=} ;;
    since=*) since=${line#*=} ;;
    history=*) history=${line#*=} ;;
    current=*) current=${line#*=} ;;
  esac
done

# shellcheck disable=SC2016
count='
function days(y, m, d,   era, year, day) {  # since 1970-01-01
  m += 0  # a part of a text is compared as a text: "11" is less than 2
  if (m <= 2) y--
  era = int(y / 400); year = y - era * 400
  day = int((153 * (m > 2 ? m - 3 : m + 9) + 2) / 5) + d - 1
  return era * 146097 + year * 365 + int(year / 4) - int(year / 100) + day - 719468
}
function seconds(y, m, d, time, zone,   shift) {
  gsub(/:/, "", zone)
  shift = zone == "Z" ? 0 : (substr(zone, 2, 2) * 60 + substr(zone, 4, 2)) * 60
  if (substr(zone, 1, 1) == "-") shift = -shift
  return days(y, m, d) * 86400 + substr(time, 1, 2) * 3600 + substr(time, 4, 2) * 60 + substr(time, 7) - shift
}
function parsed(text,   zone) {  # the time in a text, -1 when there is none
  if (match(text, /[0-9][0-9]\/[A-Z][a-z][a-z]\/[0-9][0-9][0-9][0-9]:[0-9][0-9]:[0-9][0-9]:[0-9][0-9] [-+][0-9][0-9][0-9][0-9]/)) {
    text = substr(text, RSTART, RLENGTH)
    return seconds(substr(text, 8, 4), (index(months, substr(text, 4, 3)) + 2) / 3, substr(text, 1, 2), substr(text, 13, 8), substr(text, 22))
  }
  if (match(text, /[0-9][0-9][0-9][0-9]-[0-9][0-9]-[0-9][0-9][T ][0-9][0-9]:[0-9][0-9]:[0-9][0-9](\.[0-9]+)?(Z|[-+][0-9][0-9]:?[0-9][0-9])/)) {
    text = substr(text, RSTART, RLENGTH)
    match(text, /(Z|[-+][0-9][0-9]:?[0-9][0-9])$/); zone = substr(text, RSTART)
    return seconds(substr(text, 1, 4), substr(text, 6, 2), substr(text, 9, 2), substr(text, 12, RSTART - 12), zone)
  }
  if (match(text, /(^|[^0-9.:])1[0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9][0-9](\.[0-9]+|[0-9][0-9][0-9])?($|[^0-9.])/)) {
    text = substr(text, RSTART, RLENGTH); gsub(/[^0-9.]/, "", text); text += 0
    return text > 99999999999 ? text / 1000 : text
  }
  return -1
}
function moment(text) {  # many lines share a second
  if (text != seen) { seen = text; seen_at = parsed(text) }
  return seen_at
}
function value(line, key) {  # of a key of a JSON line
  if (!match(line, "\"" key "\"[ \t]*:[ \t]*\"?")) return ""
  line = substr(line, RSTART + RLENGTH)
  return match(line, /[",}]/) ? substr(line, 1, RSTART - 1) : line
}
function json_time(line,   n, i, text) {
  if (time_key != "") return moment(value(line, time_key))
  n = split("msec time_iso8601 time_local @timestamp timestamp time ts", keys, " ")
  for (i = 1; i <= n; i++) {
    text = value(line, keys[i])
    if (text != "" && parsed(text) >= 0) { time_key = keys[i]; return parsed(text) }
  }
  return -1
}
function flat(line,   out, depth, token) {  # a JSON line without what is nested in it: the request that was sent on has a status too
  if (line !~ /^[ \t]*\{.*[[{]/ || length(line) > 65536) return line
  out = ""; depth = 0
  while (match(line, /"([^"\\]|\\.)*"|[][{}]/)) {
    token = substr(line, RSTART, RLENGTH)
    if (depth < 2) out = out substr(line, 1, RSTART - 1)
    line = substr(line, RSTART + RLENGTH)
    if (token == "{" || token == "[") depth++
    if (depth < 2) out = out token
    if (token == "}" || token == "]") depth--
  }
  return out
}
function json_status(line) {
  return match(line, /"status"[ \t]*:[ \t]*"?[1-5][0-9][0-9][^0-9]/) ? substr(line, RSTART + RLENGTH - 4, 3) : ""
}
function quoted_status(line) {  # the field after the quoted request; `rest` is what follows it
  rest = line
  while (match(rest, /"([^"\\]|\\.)*"/)) {
    rest = substr(rest, RSTART + RLENGTH)
    if (rest ~ /^ [1-5][0-9][0-9]( |$)/) return substr(rest, 2, 3)
  }
  return ""
}
function named(text) {  # the request time that a text without quotes names
  if (!match(text, /(^|[ \t,;|])(rt|request_time)[=:][0-9]+\.[0-9]+/)) return -1
  text = substr(text, RSTART, RLENGTH); sub(/^[^0-9]*/, "", text)
  return text + 0
}
function trailing(text,   plain, quoted, spent) {  # $request_time: named, or alone behind the last quote
  # What is quoted is for the client to choose, and what comes before the status is, too.
  while (match(text, /"([^"\\]|\\.)*"/)) {
    plain = substr(text, 1, RSTART - 1); quoted = substr(text, RSTART + 1, RLENGTH - 2)
    text = substr(text, RSTART + RLENGTH)
    spent = named(plain)
    if (spent < 0 && plain ~ /(^|[ \t,;|])(rt|request_time)[=:]$/ && quoted ~ /^[0-9]+\.[0-9]+$/) spent = quoted + 0
    if (spent >= 0) return spent
  }
  sub(/".*/, "", text)
  spent = named(text)
  if (spent >= 0) return spent
  return text ~ /^ [0-9]+\.[0-9][0-9][0-9]( |$)/ ? substr(text, 2) + 0 : 0
}
function probe(line) {  # health checkers by their user agent; curl and wget only where they ask for health
  if (line ~ /"(rollout-probe\/|kube-probe\/|ELB-HealthChecker\/|GoogleHC\/|Amazon-Route53-Health-Check-Service|Consul Health Check)/) return 1
  return line ~ /"(curl|Wget)\// && line ~ /"((GET|HEAD) )?\/(health|healthz|healthcheck|livez|readyz|ping)[ ?"]/
}
function take(line,   top, status, at, spent, ended, bin) {
  lines++
  if (line ~ /^[ \t]*\{/) {
    top = flat(line); status = json_status(top)
    if (status == "") { top = line; status = json_status(top) }  # nested as a whole
    at = json_time(top); spent = value(top, "request_time")
    spent = spent ~ /^[0-9]+\.[0-9]+[ \t]*$/ ? spent + 0 : 0  # whole numbers are milliseconds, or whatever
  } else {
    status = quoted_status(line); at = moment(substr(line, 1, index(line, "\"")))
    spent = status == "" ? 0 : trailing(rest)
  }
  if (status == "") { garbage++; return }
  if (probe(line)) { probes++; return }
  if (step && (at < ready || at >= now + 1) && at + step >= ready && at + step <= now) at += step  # written before the step
  if (begins == "" && at >= 0) begins = at - ready
  if (at < 0 || at > now + 5 || at < ready - 3600) {  # of no use as a time: counts now, unless it is anything from the past
    if (history) { before++; return }
    at = now; spent = 0
  }
  at -= ready
  if (at > last) last = at
  if (history && at < 0 && at >= switched) { before++; return }  # neither the old release nor the new one: the switch
  ended = at; at -= spent
  if (at < 0 && (ended >= 0 || at < -history)) { before++; return }
  if (at > now - ready) at = now - ready
  if (status < 200) return
  bin = int((at + 2 * history) / 2) - history  # int() rounds towards zero
  counts[bin " " (index(apart, " " status " ") ? status : substr(status, 1, 1) "xx")]++
}
BEGIN { months = "JanFebMarAprMayJunJulAugSepOctNovDec"; last = -1 }
NR > 1 { if (skip) skip = 0; else take(line) }
{ line = $0; bytes += length(line) + 1 }
END {
  if (NR && bytes <= want) { if (skip) skip = 0; else take(line) }
  else if (NR) bytes -= length(line) + 1
  if (NR && !bytes && want >= room) { bytes = want; garbage++; skip = 1 }  # a line longer than all that may be read
  for (key in counts) print "bin=" key " " counts[key]
  if (begins != "") printf "begins=%d\n", begins
  printf "lines=%d\ngarbage=%d\nprobes=%d\nbefore=%d\nlast=%d\nskip=%d\nconsumed=%d\n", lines, garbage, probes, before, last, skip, bytes
}'

facts() { stat -L -c '%d:%i:%s' -- "$1" 2>/dev/null; }

# marked FILE LENGTH: a checksum of its first bytes; empty when there is none to be had.
marked() {
  [ "$2" -gt 0 ] || return 0
  head -c "$2" -- "$1" 2>/dev/null | tr '\000' ' ' | awk -v length_of="$2" '
    BEGIN { for (i = 1; i < 256; i++) code[sprintf("%c", i)] = i }
    { for (i = 1; i <= length($0); i++) sum = (sum * 257 + code[substr($0, i, 1)]) % 2147483647 }
    END { if (NR) print length_of ":" sum }'
}

# same FILE: it begins as the one did that was read; inodes are used again, and what was truncated grows.
same() { [ -z "$mark" ] || [ "$(marked "$1" "${mark%%:*}")" = "$mark" ]; }

# mark_of FILE: by which it is known again, of what has been read of it.
mark_of() { marked "$1" "$((offset < 256 ? offset : 256))"; }

# after FILE: the file that the log was next, when that is not `log` itself: it was renamed too since.
after() {
  next=$(find "$log".* "$log"-* -prune -type f -newer "$1" ! -name '*.gz' ! -name '*.bz2' ! -name '*.xz' ! -name '*.zst' \
    -exec stat -c '%y %n' {} + 2>/dev/null | awk 'best == "" || $0 < best { best = $0 } END { print best }')
  [ -z "$next" ] || echo "/${next#*/}"
}

finish() { printf '%s\n' "$@"; exit 0; }

# part FILE FROM TO: counts what is there, as much as there is room for; moves `offset`, `skip`, `room`, `more`.
part() {
  offset=$2 want=$(($3 - $2))
  [ "$want" -gt 0 ] || return 0
  if [ "$want" -gt "$room" ]; then want=$room more=1; fi
  [ "$want" -gt 0 ] || return 0
  told=$(tail -c "+$(($2 + 1))" -- "$1" | head -c "$want" | tr '\000' ' ' |
    awk -v want="$want" -v room="$room" -v skip="$skip" -v now="$now" -v step="$step" -v ready="$ready" -v apart=" $apart " \
      -v history="$history" -v switched="$switched" "$count")
  consumed=${told##*consumed=}
  if [ -z "$told" ] || [ -z "$consumed" ]; then finish error=awk end=0; fi
  printf '%s\n' "$told"
  skip=${told##*skip=}
  skip=${skip%%[!0-9]*}
  offset=$((offset + consumed)) room=$((room - want))
}

now=$(date +%s) up=$(cat /proc/uptime)
up=${up%%.*} step=0 switched=0
if [ -z "$file" ]; then
  ready=$((now - since))
  if [ -n "$current" ]; then
    switched=$(stat -c %Y -- "$current" 2>/dev/null) || switched=0 # not known when: then nothing is its past
    switched=$((switched > 0 ? switched - ready : -history))
  fi
fi
if [ "$was_up" -gt 0 ] && [ "$up" -gt 0 ]; then
  passed=$((up - was_up))
  [ "$passed" -ge 0 ] || passed=$up # booted since: the time that it was down does not count
  step=$((now - was_now - passed))
  case $step in -1 | 1) step=0 ;; esac # the two clocks tick at different moments
  ready=$((ready + step))
fi
printf '%s\n' rollout_log=1 "now=$now" "up=$up" "ready=$ready" "switched=$switched"
there=$(facts "$log") || there=''
if [ -n "$there" ] && { [ ! -f "$log" ] || [ ! -r "$log" ]; }; then finish error=unreadable end=0; fi

if [ -z "$file" ]; then
  [ -n "$there" ] || finish error=missing end=0
  room=$most size=${there##*:}
  if [ "$size" -gt "$most" ]; then offset=$((size - most)) skip=1; fi # the newest part of a huge log
  part "$log" "$offset" "$size"
  finish "file=${there%:*}" "mark=$(mark_of "$log")" "offset=$offset" "skip=$skip" more=0 rotated=0 lost=0 end=0
fi

room=$most
size=${there##*:}
read=$log
if [ "${there%:*}" = "$file" ]; then
  if [ "$size" -lt "$offset" ] || ! same "$log"; then offset=0 skip=0 rotated=1 lost=1; fi
  part "$log" "$offset" "$size"
else
  old=$(find "${log%/*}/" -maxdepth 1 -type f -inum "${file#*:}" 2>/dev/null | head -n 1)
  was=''
  [ -z "$old" ] || was=$(facts "$old") || was=''
  if [ "${was%:*}" = "$file" ] && [ "${was##*:}" -ge "$offset" ] && [ -r "$old" ] && same "$old"; then
    read=$old
    part "$old" "$offset" "${was##*:}"
    # The writer keeps the renamed file open for a moment: it is left when the new one has its first line.
    while [ "$more" = 0 ] && [ "$read" != "$log" ] && [ -n "$there" ] && [ "$size" -gt 0 ]; do
      read=$(after "$read")
      read=${read:-$log} was=$(facts "${read:-$log}") || was=''
      if [ -z "$was" ] || [ ! -r "$read" ]; then read=$log was=$there lost=1; fi
      file=${was%:*} skip=0 rotated=1
      part "$read" 0 "${was##*:}"
    done
  else
    [ -n "$there" ] || finish error=missing end=0
    file=${there%:*} skip=0 rotated=1 lost=1
    part "$log" 0 "$size"
  fi
fi
finish "file=$file" "mark=$(mark_of "$read")" "offset=$offset" "skip=$skip" "more=$more" "rotated=$rotated" "lost=$lost" end=0
