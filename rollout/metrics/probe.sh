#!/bin/sh
# Requests one address a few times at once and says what was answered. POSIX sh with curl or wget; changes nothing.
#
# In:  url= requests= limit=<seconds for each>, then an empty line.
# Out: rollout_probe=1, up=<seconds since boot>, then error=<why>, or status=<of each request; 000: no answer>, and end=0 last.

export LC_ALL=C
unset http_proxy https_proxy all_proxy HTTP_PROXY HTTPS_PROXY ALL_PROXY
url='' requests=0 limit=2
while IFS= read -r line && [ -n "$line" ]; do
  case $line in
    url=*) url=${line#*=} ;;
    requests=*) requests=${line#*=} ;;
    limit=*) limit=${line#*=} ;;
  esac
done

with_curl() {
  timeout "$((limit + 1))" curl -g -s -o /dev/null -m "$limit" -A rollout-probe/1 -w '%{http_code}' --url "$url" 2>/dev/null
}

with_wget() { # the first status is the address's own, whatever it redirects to; some BusyBoxes die of -T
  timeout "$limit" wget -S -O /dev/null -U rollout-probe/1 "$url" 2>&1 |
    sed -n 's|.*HTTP/[0-9.]* \([1-5][0-9][0-9]\).*|\1|p' | head -n 1
}

request() {
  status=$("$1") || :
  printf 'status=%s\n' "${status:-000}"
}

up=$(cat /proc/uptime)
printf '%s\n' rollout_probe=1 "up=${up%%.*}"
if command -v curl >/dev/null 2>&1; then
  how=with_curl
elif command -v wget >/dev/null 2>&1; then
  how=with_wget
else
  printf '%s\n' error=tool end=0
  exit 0
fi
while [ "$requests" -gt 0 ]; do
  requests=$((requests - 1))
  request "$how" 2>/dev/null & # also what the shell says of a command that was ended
done
wait
echo end=0
