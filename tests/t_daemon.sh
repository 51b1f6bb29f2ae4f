#!/bin/sh
# The daemon's life: start, one line when ready, a second one refused, sd_notify, a clean end, recovery after kill -9.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts

# state HOST: what a daemon may leave in a namespace, as text.
state() {
	at "$1" ip -o link show
	at "$1" ip rule show
	at "$1" ip -6 rule show
	at "$1" ip route show table all
	at "$1" ip -6 route show table all | grep -v ' fe80'
	at "$1" nft list ruleset
	find /run/kipsec -path "*/$tag-$1*" 2>/dev/null || :
	grep "kipsec/$tag-$1/" /proc/self/mountinfo || :
	at "$1" sh -c 'grep -r . /proc/sys/net/ipv4/conf /proc/sys/net/ipv6/conf 2>/dev/null | grep -v enc0' || :
}

step "help and version"
must "$BIN/kipsecd" -h >"$work/help" 2>&1
for flag in netns name mount f sysctl cleanup version h; do contains "-h" "$work/help" "^ *-$flag"; done
must "$BIN/kipsecd" -version
refuse "$BIN/kipsecd" -no-such-flag 2>"$work/err"
refuse "$BIN/kipsecd" stray 2>"$work/err"

step "a start and an orderly stop leave nothing behind"
state left >"$work/before"
daemon left
equal "lines on start" "$(wc -l <"$work/left.log")" 1
contains "no core file, it would hold keys" "/proc/$(pid left)/limits" "Max core file size *0 *0 "
state left >"$work/during"
contains "a running daemon" "$work/during" enc0
contains "a running daemon" "$work/during" "table ip kipsec"
stop left
state left >"$work/after"
must diff "$work/before" "$work/after"

step "a second daemon for the same namespace is refused; another namespace is not"
daemon left
refuse "$BIN/kipsecd" -netns "$tag-left" 2>"$work/err"
equal "lines of the error" "$(wc -l <"$work/err")" 1
contains "the error" "$work/err" "already running"
daemon right
equal "tree of left" "$(cat "$(sys left)/net/inet/ipsec/dfbit")" 0
at right sh -c "echo 1 >$(sys right)/net/inet/ipsec/dfbit"
equal "left after a write to right" "$(cat "$(sys left)/net/inet/ipsec/dfbit")" 0
equal "right after a write to right" "$(cat "$(sys right)/net/inet/ipsec/dfbit")" 1
refuse "$BIN/kipsecd" -netns "$tag-left" -cleanup 2>"$work/err"
contains "cleaning under a live daemon" "$work/err" "running"
stop right

step "after kill -9 a new start recovers by itself"
run kill -9 "$(pid left)"
gone "$(pid left)" || :
refuse cat "$(sys left)/net/inet/ipsec/dfbit" 2>/dev/null
daemon left
must cat "$(sys left)/net/inet/ipsec/dfbit"
equal "mounts" "$(grep -c "kipsec/$tag-left/" /proc/self/mountinfo)" 1
stop left
state left >"$work/after"
must diff "$work/before" "$work/after"

step "after kill -9, -cleanup puts things right"
daemon left
run kill -9 "$(pid left)"
gone "$(pid left)" || :
must "$BIN/kipsecd" -netns "$tag-left" -cleanup
state left >"$work/after"
must diff "$work/before" "$work/after"
must "$BIN/kipsecd" -netns "$tag-left" -cleanup

step "-cleanup finds an instance of another name, with its tree elsewhere"
mkdir "$work/tree"
daemon left -name "$tag-other" -mount "$work/tree"
must cat "$work/tree/net/inet/ipsec/dfbit" >/dev/null
run kill -9 "$(pid left)"
must "$BIN/kipsecd" -netns "$tag-left" -cleanup
must ls "$work/tree"
[ ! -e "/run/kipsec/$tag-other" ] || fail "the files of the other instance are still there"

step "scripts and variables from files"
printf 'spdadd 10.9.0.1 10.9.0.2 any -P out discard;\n' >"$work/one.conf"
printf 'spdadd 10.9.0.3 10.9.0.4 any -P out discard;\n' >"$work/two.conf"
printf '# comment\nnet.inet.ipsec.dfbit=2\nnet.key.spi_minval = 512\n' >"$work/sysctl.conf"
daemon left -f "$work/one.conf" -f "$work/two.conf" -sysctl "$work/sysctl.conf"
equal "policies" "$(at left "$BIN/setkey" -DP | grep -c discard)" 2
equal "dfbit" "$(cat "$(sys left)/net/inet/ipsec/dfbit")" 2
equal "spi_minval" "$(cat "$(sys left)/net/key/spi_minval")" 512
stop left
printf 'spdadd 10.9.0.1 10.9.0.2 any -P out nonsense;\n' >"$work/bad.conf"
refuse "$BIN/kipsecd" -netns "$tag-left" -f "$work/bad.conf" 2>"$work/err"
contains "a bad script" "$work/err" "bad.conf"
printf 'net.inet.ipsec.dfbit=7\n' >"$work/bad.sysctl"
refuse "$BIN/kipsecd" -netns "$tag-left" -sysctl "$work/bad.sysctl" 2>"$work/err"
contains "a bad variable" "$work/err" "dfbit"
state left >"$work/after"
must diff "$work/before" "$work/after"

step "missing things are said in one line"
refuse "$BIN/kipsecd" -netns no-such-namespace 2>"$work/err"
equal "lines" "$(wc -l <"$work/err")" 1
refuse setpriv --reuid 65534 --regid 65534 --clear-groups "$BIN/kipsecd" 2>"$work/err"
equal "lines without privilege" "$(wc -l <"$work/err")" 1
mkdir "$work/empty"
refuse unshare -m sh -c "mount -t tmpfs none /dev && exec '$BIN/kipsecd' -netns '$tag-left'" 2>"$work/err"
equal "lines without /dev" "$(wc -l <"$work/err")" 1
contains "without /dev" "$work/err" "/dev/"
state left >"$work/after"
must diff "$work/before" "$work/after"

step "rubbish in files does not reach the terminal"
head -c 3000 /dev/urandom >"$work/bad.conf"
refuse "$BIN/kipsecd" -netns "$tag-left" -sysctl "$work/bad.conf" 2>"$work/err"
equal "lines" "$(wc -l <"$work/err")" 1
equal "control characters" "$(tr -d '[:print:]\n' <"$work/err" | tr -d '\200-\377' | wc -c)" 0

step "sd_notify"
/usr/bin/python3 - "$work/notify" >"$work/notified" <<-'PY' &
	import socket, sys
	s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
	s.bind(sys.argv[1])
	s.settimeout(20)
	try:
	    while True:
	        print(s.recv(1000).decode(), flush=True)
	except socket.timeout:
	    pass
PY
background="$background $!"
wait_for 5 test -S "$work/notify"
NOTIFY_SOCKET="$work/notify" daemon left
wait_for 3 grep -q READY=1 "$work/notified" || fail "systemd was not told READY=1"
stop left
wait_for 3 grep -q STOPPING=1 "$work/notified" || fail "systemd was not told STOPPING=1"
