#!/bin/sh
# setkey's explain says beforehand what the wire shows afterwards, and setkey -X what was dropped and why, as it happens.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right
explain() { echo "explain $2;" | setkey "$1" >"$work/explained"; }
pings() { at left ping -c 1 -W 0.1 "$@" >/dev/null 2>&1; }
# shown NAME PATTERN: a watcher has printed it.
shown() { wait_for 5 grep -q -e "$2" "$work/$1" || fail "$1 has not printed '$2': $(cat "$work/$1")"; }

step "what explain says of two policies and their SAs"
{
	transport_keys 10.1.0.1 10.1.0.2
	require 10.1.0.1 10.1.0.2
	echo "add 10.1.0.1 10.1.0.2 ah 0x1003 -m transport -r 4 -A hmac-sha256 \"01234567890123456789012345678901\";"
	echo "spdadd 10.1.0.1 10.1.0.2[9] udp -P out prio high ipsec esp/transport//require ah/transport//require;"
} | setkey left
explain left "out 10.1.0.1[1024] 10.1.0.2[9] udp"
contains "explain" "$work/explained" "SA 10.1.0.1 10.1.0.2 esp spi=4097(0x00001001) mode=transport"
contains "explain" "$work/explained" "leaves as 10.1.0.1 10.1.0.2: ah esp udp"
explain left "out 10.1.0.1 10.1.0.2 icmp 8,0"
contains "explain" "$work/explained" "leaves as 10.1.0.1 10.1.0.2: esp icmp"
explain left "in 10.1.0.2 10.1.0.1 icmp 0,0"
contains "explain" "$work/explained" "in clear it is dropped: in-policy"
contains "explain" "$work/explained" "spi=4098(0x00001002)"

step "the wire shows the same"
sniff right to-left wire "src 10.1.0.1 and (esp or ah)"
at left sh -c 'echo x | nc -u -q 0 -w 1 10.1.0.2 9' || :
pings 10.1.0.2 || :
sees wire 2
sniffed wire
equal "packets of both kinds" "$(grep -c 'AH(spi=0x00001003.*ESP(spi=0x00001001' "$work/wire") $(grep -c '10.1.0.2: ESP(spi=0x00001001' "$work/wire")" "1 1"

step "the largest packet that explain names leaves whole, one byte more does not"
explain left "out 10.1.0.1 10.1.0.2 icmp 8,0"
largest=$(sed -n 's/.*packets of up to \([0-9]*\) bytes.*/\1/p' "$work/explained")
sniff right to-left wire "src 10.1.0.1 and ip proto 50"
pings -M dont -s "$((largest - 28))" 10.1.0.2 || :
pings -M dont -s "$((largest - 27))" 10.1.0.2 || :
sees wire 3
sniffed wire
equal "packets" "$(wc -l <"$work/wire")" 3

step "two watchers see each drop and why; no SA on the right, a policy that wants one on the left"
for name in first second; do
	behind $name right "$BIN/setkey" -X >"$work/$name" 2>&1
done
behind third left "$BIN/setkey" -X >"$work/third" 2>&1
for i in 1 2 3 4 5 6 7 8; do
	pings 10.1.0.2 || :
	at right ping -c 1 -W 0.1 10.1.0.1 >/dev/null 2>&1 || :
	if [ "$(cat "$work/first" "$work/second" "$work/third" | grep -c .)" -gt $((i + 2)) ]; then break; fi
done
for name in first second; do
	shown $name '^[0-9:.]* in IPv4 10.1.0.1\[any] 10.1.0.2\[any] 50(esp) spi=4097(0x00001001) no-sa: IPv4 ESP input: no key association found for spi 4097$'
done
shown third '^[0-9:.]* in IPv4 10.1.0.2 10.1.0.1 1(icmp) 8,0 in-policy: IPv4 input: packet violates security policy'
lacks "the watchers" "$work/first" "$key_gcm"

step "what explain says of the drop, and of the SA that is missing"
require 10.1.0.2 10.1.0.1 | setkey right
explain right "out 10.1.0.2 10.1.0.1 icmp 0,0"
contains "explain" "$work/explained" "no SA from 10.1.0.2 to 10.1.0.1"
contains "explain" "$work/explained" "is dropped: out-no-key"
at right ping -c 1 -W 0.1 10.1.0.1 >/dev/null 2>&1 || :
shown second '^[0-9:.]* out IPv4 10.1.0.2 10.1.0.1 1(icmp) 8,0 out-no-key: '

step "a watcher ends on Ctrl-C, others go on, and when the kernel ends they say so"
at right timeout -s INT 0.5 "$BIN/setkey" -X >/dev/null && fail "setkey -X ends by itself"
kill "$(pid first)"
lines=$(wc -l <"$work/second")
pings 10.1.0.2 || :
wait_for 3 sh -c "[ \"\$(wc -l <'$work/second')\" -gt $lines ]" || fail "the second watcher sees nothing any more"
stop right
shown second "kipsecd has hung up"

step "others than root cannot ask"
refuse at left setpriv --reuid 65534 --regid 65534 --clear-groups "$BIN/setkey" -X 2>/dev/null
