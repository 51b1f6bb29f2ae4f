#!/bin/sh
# The counters, as files, by sysctl and in netstat's words, agree with what the wire saw; enabled switches IPsec off and on.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right
stats() { "$BIN/kipsecd" -netns "$tag-$1" -stats >"$work/stats"; }
pings() { at left ping -c 3 -i 0.01 -W 1 "$1" >/dev/null 2>&1; }

step "a fresh kernel has counted nothing"
stats left
lacks "kipsecd -stats" "$work/stats" "^		*[1-9#a-z]"
equal "used" "$(cat "$(sys left)/net/inet/ipsec/used")" 0

step "three echoes each way"
for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	# shellcheck disable=SC2086 # two words
	set -- $pair
	{ transport_keys "$1" "$2"; require "$1" "$2"; } | setkey left
	{ transport_keys "$1" "$2"; require "$2" "$1"; } | setkey right
	sniff right to-left wire "host $1 and (esp or ip6 proto 50)"
	must pings "$2"
	sniffed wire
	equal "ESP packets of $1" "$(wc -l <"$work/wire")" 6
done
run stats left
cat >"$work/want" <<'END'
	3 inbound packets processed successfully
	3 inbound ESP packets considered authentic
	ESP input histogram:
		aes-gcm-16: 3
	3 outbound packets processed successfully
	ESP output histogram:
		aes-gcm-16: 3
END
for section in ipsec ipsec6; do
	sed -n "/^$section:/,/^[a-z]/p" "$work/stats" | grep '^	' | grep -v '^	0 ' >"$work/got"
	equal "$section" "$(cat "$work/got")" "$(cat "$work/want")"
done
contains "pfkey" "$work/stats" "		x_spdadd: 4"
equal "used" "$(cat "$(sys left)/net/inet6/ipsec6/used")" 1
at left "$BIN/sysctl" net.inet.ipsec.stats >"$work/sysctl"
contains "sysctl" "$work/sysctl" "^net.inet.ipsec.stats.in_espauthsucc = 3$"
contains "sysctl" "$work/sysctl" "^net.inet.ipsec.stats.out_esphist = 20 3$"
equal "lines of sysctl" "$(wc -l <"$work/sysctl")" 24
at left "$BIN/kipsecd" -stats >"$work/here"
"$BIN/kipsecd" -name "$tag-left" -stats >"$work/named"
cmp "$work/here" "$work/named" || fail "by namespace and by name differ"
refuse "$BIN/kipsecd" -name nobody -stats 2>/dev/null
refuse sh -c "echo 0 >'$(sys left)/net/inet/ipsec/stats/in_success'" 2>/dev/null

step "enabled 0: all goes in clear, also what def_policy would drop, and nothing is counted"
stats left
grep -v sent "$work/stats" >"$work/before"
for host in left right; do
	at $host "$BIN/sysctl" -q -w net.inet.ipsec.def_policy=0 net.inet6.ipsec6.enabled=0
done
equal "enabled in the other tree" "$(cat "$(sys left)/net/inet/ipsec/enabled")" 0
sniff right to-left wire "host 10.1.0.1"
must pings 10.1.0.2
sniffed wire
equal "clear packets" "$(grep -c ICMP "$work/wire")" 6
lacks "the wire" "$work/wire" ESP
listen right udp -u -W 1 10.1.0.2 4500
arrives() {
	echo "an SPI and more" | at left nc -u -q 0 -w 1 10.1.0.2 4500 || :
	grep -q "an SPI" "$work/udp"
}
wait_for 1 arrives || fail "ESP in UDP does not reach UDP"
stats left
grep -v sent "$work/stats" >"$work/after"
cmp "$work/before" "$work/after" || fail "counters moved: $(diff "$work/before" "$work/after")"

step "enabled 1: when echo has returned, not one packet is answered in clear"
sniff right to-left wire -tt "src 10.1.0.2"
behind flood left ping -q -f -i 0.001 10.1.0.2 >/dev/null 2>&1
sleep 0.2
at right sh -c "echo 1 >$(sys right)/net/inet/ipsec/enabled"
date +%s.%6N >"$work/moment"
sleep 0.3
kill "$(pid flood)"
sniffed wire
contains "the wire before" "$work/wire" "ICMP echo reply"
late=$(awk -v moment="$(cat "$work/moment")" '/ICMP/ && $1 > moment' "$work/wire" | wc -l)
equal "clear packets afterwards" "$late" 0
refuse pings 10.1.0.2
at left sh -c "echo 1 >$(sys left)/net/inet6/ipsec6/enabled"
sniff right to-left wire "host 10.1.0.1"
must pings 10.1.0.2
sniffed wire
equal "ESP packets" "$(grep -c ESP "$work/wire")" 6

step "off from the start: nothing is closed, after kill -9 neither"
stop left
stop right
printf 'net.inet.ipsec.enabled = 0\nnet.inet.ipsec.def_policy = 0\n' >"$work/off"
daemon left -sysctl "$work/off"
must pings 10.1.0.2
equal "enabled" "$(cat "$(sys left)/net/inet6/ipsec6/enabled")" 0
kill -9 "$(pid left)"
gone "$(pid left)" || :
must pings 10.1.0.2
