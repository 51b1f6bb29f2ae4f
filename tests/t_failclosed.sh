#!/bin/sh
# A daemon that is killed leaves the namespace closed for what was protected: nothing leaves or enters in clear until
# it is back, or -cleanup says so. The judge is a sniffer on the wire.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
at left ip addr add 10.1.0.3/24 dev to-right
clear='(icmp or (icmp6 and (ip6[40] == 128 or ip6[40] == 129)))'

for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	a=${pair% *} b=${pair#* }
	{ transport_keys "$a" "$b"; require "$a" "$b"; } >"$work/left.conf"
	{ transport_keys "$a" "$b"; require "$b" "$a"; } >"$work/right.conf"

	step "$a: a script at start protects before the first packet"
	sniff right to-left wire "host $a and $clear"
	daemon left -f "$work/left.conf"
	daemon right -f "$work/right.conf"
	must at left ping -c 2 -i 0.2 -W 2 "$b" >/dev/null

	step "$a: kill -9, then neither direction passes in clear"
	run kill -9 "$(pid left)"
	gone "$(pid left)" || :
	refuse at left ping -c 2 -i 0.2 -W 1 "$b" >/dev/null 2>&1
	stop right
	refuse at right ping -c 2 -i 0.2 -W 1 "$a" >/dev/null
	sniffed wire
	lacks "from left" "$work/wire" " $a > "

	step "$a: what no policy covered goes on meanwhile"
	[ "$a" != 10.1.0.1 ] || must at left ping -c 1 -W 1 -I 10.1.0.3 10.1.0.2 >/dev/null

	step "$a: a new start puts things right, without a clear packet"
	sniff right to-left wire "host $a and $clear"
	daemon left -f "$work/left.conf"
	daemon right -f "$work/right.conf"
	must at left ping -c 2 -i 0.2 -W 2 "$b" >/dev/null
	sniffed wire
	equal "clear packets" "$(wc -l <"$work/wire")" 0

	step "$a: -cleanup opens the namespace again"
	run kill -9 "$(pid left)"
	gone "$(pid left)" || :
	stop right
	must "$BIN/kipsecd" -netns "$tag-left" -cleanup
	must at left ping -c 1 -W 2 "$b" >/dev/null
done

step "a start that fails does not open what a dead daemon left closed"
{ transport_keys 10.1.0.1 10.1.0.2; require 10.1.0.1 10.1.0.2; } >"$work/left.conf"
daemon left -f "$work/left.conf"
run kill -9 "$(pid left)"
gone "$(pid left)" || :
sniff right to-left wire "host 10.1.0.1 and $clear"
printf 'nonsense;\n' >"$work/bad.conf"
refuse "$BIN/kipsecd" -netns "$tag-left" -f "$work/bad.conf" 2>"$work/err"
at left ip link add enc0 type veth peer name enc1
refuse "$BIN/kipsecd" -netns "$tag-left" -f "$work/left.conf" 2>"$work/err"
contains "a taken device" "$work/err" "enc0"
refuse at left ping -c 2 -i 0.2 -W 1 10.1.0.2 >/dev/null 2>&1
at left ip link del enc0
refuse "$BIN/kipsecd" -netns "$tag-left" -name "$(printf '%0120d' $$)" -f "$work/left.conf" 2>"$work/err"
contains "a name that is too long for a socket, which comes when the rules are there" "$work/err" "PF_KEY socket"
refuse at left ping -c 2 -i 0.2 -W 1 10.1.0.2 >/dev/null 2>&1

step "nor does one that loses its device"
daemon left -f "$work/left.conf"
at left ip link del enc0
gone "$(pid left)" || fail "the daemon goes on without its device"
refuse at left ping -c 2 -i 0.2 -W 1 10.1.0.2 >/dev/null 2>&1
sniffed wire
lacks "from left" "$work/wire" "10.1.0.1 > "
must "$BIN/kipsecd" -netns "$tag-left" -cleanup
must at left ping -c 1 -W 1 10.1.0.2 >/dev/null

step "rules that somebody flushes come back at once, and so do routes when enc0 was down"
daemon left -f "$work/left.conf"
sniff right to-left wire "host 10.1.0.1 and $clear"
at left "$BIN/sysctl" -q -w net.inet.ipsec.debug=1
must at left nft flush ruleset
wait_for 3 at left nft list table ip kipsec || fail "the rules are gone"
must at left nft flush table ip kipsec
wait_for 3 sh -c "ip netns exec $tag-left nft list chain ip kipsec output | grep -q jump" || fail "the rules of one table are gone"
must at left nft insert rule ip kipsec output accept
wait_for 3 sh -c "! ip netns exec $tag-left nft list chain ip kipsec output | grep -q 'accept\$'" || fail "a rule among ours stays"
must at left ip rule flush
must at left ip rule add pref 32766 table main
wait_for 3 sh -c "ip netns exec $tag-left ip rule | grep -q 27497" || fail "the routing rules are gone"
must at left ip link set enc0 down
refuse at left ping -c 1 -W 1 10.1.0.2 >/dev/null 2>&1
must at left ip link set enc0 up
wait_for 3 sh -c "ip netns exec $tag-left ip route show table 27497 | grep -q enc0" || fail "the route is gone"
transport_keys 10.1.0.1 10.1.0.2 >"$work/right.conf"
require 10.1.0.2 10.1.0.1 >>"$work/right.conf"
daemon right -f "$work/right.conf"
must at left ping -c 2 -i 0.2 -W 2 10.1.0.2 >/dev/null
sniffed wire
lacks "the wire" "$work/wire" "ICMP echo" # right may say that it knew no ESP before it had a kipsecd
stop right

step "kill -9 and a new start right away"
kill -9 "$(pid left)"
daemon left -f "$work/left.conf"
kill -9 "$(pid left)"
must "$BIN/kipsecd" -netns "$tag-left" -cleanup

step "a namespace whose name is gone is left in order"
daemon left
ip netns exec "$tag-left" sleep 30 &
background="$background $!"
sleep 0.2
ip netns del "$tag-left"
kill "$(pid left)"
gone "$(pid left)" || fail "kipsecd does not stop"
equal "what it said" "$(wc -l <"$work/left.log")" 1
