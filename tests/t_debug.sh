#!/bin/sh
# net.inet.ipsec.debug: a line for each drop in KAME's words, none while it is 0, and never a key.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
traffic=$(helper traffic) || skip "no go to build the traffic with"
two_hosts
cat >"$work/syslog.py" <<'PY'
import os, socket, sys
s = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
s.bind(sys.argv[1])
while True:
    print(s.recv(9000).decode(), flush=True)
PY

step "without syslog the lines go to standard error"
if [ -S /dev/log ]; then say "(this machine has a syslog, so they do not)"; fi
daemon left
daemon right
{ transport_keys 10.1.0.1 10.1.0.2; require 10.1.0.1 10.1.0.2; } | setkey left
require 10.1.0.2 10.1.0.1 | setkey right
at left ping -c 1 -W 1 10.1.0.2 >/dev/null 2>&1 || :
lacks "while debug is 0" "$work/right.log" "no key association"
at right "$BIN/sysctl" -q -w net.inet.ipsec.debug=1
at left ping -c 1 -W 1 10.1.0.2 >/dev/null 2>&1 || :
if [ ! -S /dev/log ]; then
	wait_for 2 grep -q "IPv4 ESP input: no key association found for spi 4097" "$work/right.log" ||
		fail "no line: $(cat "$work/right.log")"
fi
equal "in_nosa" "$(cat "$(sys right)/net/inet/ipsec/stats/in_nosa")" 2

step "a wrong key"
printf 'add 10.1.0.1 10.1.0.2 esp 0x1001 -m transport -r 4 -E aes-gcm-16 %s;\n' "$key_gcm_back" | setkey right
at left ping -c 1 -W 1 10.1.0.2 >/dev/null 2>&1 || :
if [ ! -S /dev/log ]; then
	wait_for 2 grep -q "auth fail in IPv4 ESP input: packet(SPI=4097 src=10.1.0.1 dst=10.1.0.2) SA(SPI=4097 src=10.1.0.1 dst=10.1.0.2)" \
		"$work/right.log" || fail "no line: $(cat "$work/right.log")"
fi
equal "in_espauthfail" "$(cat "$(sys right)/net/inet/ipsec/stats/in_espauthfail")" 1

step "an SA that is refused"
printf 'add 10.1.0.1 10.1.0.2 esp-old 0x1005 -m transport -E aes-cbc "0123456789abcdef";\n' | setkey right >/dev/null && fail "esp-old with AES is accepted"
if [ ! -S /dev/log ]; then
	wait_for 2 grep -q "esp_cbc_mature: algorithm incompatible with esp-old" "$work/right.log" || fail "no line: $(cat "$work/right.log")"
fi

step "net.key.debug traces messages and packets"
lacks "while it is 0" "$work/right.log" "key_parse"
at right "$BIN/sysctl" -q -w net.inet.ipsec.debug=0 net.key.debug=0x77
printf 'add 10.1.0.1 10.1.0.2 esp 0x1006 -m transport -E aes-gcm-16 %s;\n' "$key_gcm" | setkey right
at right ping -c 1 -W 1 10.1.0.1 >/dev/null 2>&1 || :
if [ ! -S /dev/log ]; then
	for line in "debug: key_parse: SADB_ADD errno=0 satype=3" "key_sendup: sadb_msg{ version=2 type=3 errno=0 satype=3" "key= not shown" \
		"key_mature: SA(SPI=4102 src=10.1.0.1 dst=10.1.0.2) auth=0 (0 bits) encrypt=20 (160 bits)" "ipsec4_getpolicybyaddr: dir=2 src=10.1.0.2"; do
		wait_for 2 grep -qF "$line" "$work/right.log" || fail "no line $line: $(tail -n 20 "$work/right.log")"
	done
fi
lacks "the log" "$work/right.log" "20212223"
lacks "the log" "$work/right.log" "00010203"
stop right

step "with syslog they go there, with a priority"
if [ ! -S /dev/log ]; then
	mkdir -p "$work/dev/net"
	for device in fuse net/tun null; do
		: >"$work/dev/$device"
		devices="${devices:-} && mount --bind /dev/$device '$work/dev/$device'"
	done
	/usr/bin/python3 "$work/syslog.py" "$work/dev/log" >"$work/syslog" &
	background="$background $!"
	wait_for 5 test -S "$work/dev/log"
	rm "$work/right.log"
	# A /dev of its own, for the one that is there belongs to all.
	unshare -m sh -c ": $devices && mount --rbind '$work/dev' /dev &&
		exec '$BIN/kipsecd' -netns '$tag-right' -mount '$work/tree'" >"$work/right.log" 2>&1 &
	started right
	wait_for 10 grep -q ready "$work/right.log" || fail "not ready: $(cat "$work/right.log")"
	require 10.1.0.2 10.1.0.1 | setkey right
	at right "$BIN/sysctl" -q -w net.inet6.ipsec6.debug=1
	at left ping -c 1 -W 1 10.1.0.2 >/dev/null 2>&1 || :
	wait_for 3 grep -q "^<28>.*kipsecd.*no key association found for spi 4097" "$work/syslog" || fail "syslog got: $(cat "$work/syslog")"
	stop right
fi

step "a flood of drops does not flood the log"
daemon right
at right "$BIN/sysctl" -q -w net.inet.ipsec.debug=1
require 10.1.0.2 10.1.0.1 | setkey right
dropped() { [ "$(cat "$(sys right)/net/inet/ipsec/stats/in_nosa")" -ge 3000 ]; }
behind flood left "$traffic" drip 10.1.0.1:9 10.1.0.2:9 2000
wait_for 30 dropped || fail "no 3000 drops"
kill "$(pid flood)"
if [ ! -S /dev/log ]; then
	lines=$(grep -c "no key association" "$work/right.log")
	[ "$lines" -gt 20 ] || fail "only $lines lines"
	[ "$lines" -lt 1500 ] || fail "$lines lines for 3000 packets"
	contains "the log" "$work/right.log" "messages suppressed"
fi
