#!/bin/sh
# Malformed, forged, replayed and nested ESP packets against a live daemon: each is dropped, moves its counter and no
# other, is logged under debug, and is answered with nothing. The daemon and its peers go on meanwhile.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
/usr/bin/python3 -c 'import scapy' 2>/dev/null || skip "needs python3-scapy"
two_hosts
daemon left
daemon right
for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	a=${pair% *} b=${pair#* }
	{ transport_keys "$a" "$b"; require "$a" "$b"; } | setkey left
	{
		transport_keys "$a" "$b"
		echo "spdadd $b $a any -P out ipsec esp/transport//require; spdadd $a $b any -P in ipsec esp/transport//use;"
		echo "add $a $b esp 0x3001 -m transport -r 4 -E null -A hmac-sha1 \"twenty bytes of key!\";"
		echo "add $a $b esp 0x3002 -m transport -E null;"
		echo "add $a $b esp 0x3003 -m tunnel -E null;"
	} | setkey right
	must at left ping -c 1 -W 2 "$b" >/dev/null
done
at right "$BIN/sysctl" -q -w net.inet.ipsec.debug=1
mac=$(ip -n "$tag-right" link show to-left | sed -n 's/.*ether \([^ ]*\).*/\1/p')
sniff left to-right answers "ether src $mac and not arp and not esp and not (icmp6 and ip6[40] >= 133) and not (ip6 multicast)"
for family in 4 6; do
	far=10.1.0.2
	[ $family = 4 ] || far=fd00:1::2
	step "IPv$family"
	behind peer left ping -i 0.02 "$far" >"$work/ping"
	at left /usr/bin/python3 "$(dirname "$0")/hostile.py" to-right "$mac" "$(sys right)" "$work/right.log" $family >&3 || fail "IPv$family"
	kill -INT "$(pid peer)"
	gone "$(pid peer)" || fail "ping does not stop"
	# Only the last one may have been on its way when ping was stopped.
	sent=$(sed -n 's/^\([0-9]*\) packets transmitted.*/\1/p' "$work/ping")
	answered=$(sed -n 's/.*icmp_seq=\([0-9]*\) .*/\1/p' "$work/ping" | sort -nu | awk '$1 == NR { n++ } END { print n + 0 }')
	[ "$answered" -ge 20 ] || fail "the peer's ping meanwhile: $answered answered"
	[ "$answered" -ge $((sent - 1)) ] || fail "the peer's ping meanwhile: $answered of $sent answered"
done
sniffed answers
equal "answers in clear" "$(cat "$work/answers")" ""
kill -0 "$(pid right)" || fail "kipsecd ended"
lacks "the log" "$work/right.log" "panic"
lacks "the log" "$work/right.log" "twenty bytes"

step "a flood of garbage, and the daemon is still there"
cat >"$work/flood.py" <<'PY'
import os, random, sys
from scapy.all import Ether, conf
wire = conf.L2socket(iface=sys.argv[1])
random.seed(1)
for i in range(3000):
    spi = random.choice((0x1001, 0x3001, 0x3002, 0x3003)).to_bytes(4, "big")
    body = spi + os.urandom(random.randrange(200))
    if i % 2:
        ip = b"\x45\0" + (20 + len(body)).to_bytes(2, "big") + b"\0\1\0\0\x40\x32\0\0" + bytes((10, 1, 0, 1, 10, 1, 0, 2))
        total = sum(int.from_bytes(ip[n:n + 2], "big") for n in range(0, 20, 2))
        total = (total & 0xffff) + (total >> 16)
        ip = ip[:10] + (~total & 0xffff).to_bytes(2, "big") + ip[12:]
    else:
        ip = b"\x60\0\0\0" + len(body).to_bytes(2, "big") + b"\x32\x40" + \
            bytes.fromhex("fd000001000000000000000000000001fd000001000000000000000000000002")
    wire.send(Ether(dst=sys.argv[2], type=0x0800 if i % 2 else 0x86DD) / (ip + body))
PY
at left /usr/bin/python3 "$work/flood.py" to-right "$mac"
for far in 10.1.0.2 fd00:1::2; do
	must at left ping -c 1 -W 2 $far >/dev/null
done
