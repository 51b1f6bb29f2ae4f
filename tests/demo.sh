#!/bin/sh
# The main job in a minute: two hosts and two sites, clear at first, then protected by ESP.
#
#   left 10.1.0.1 fd00:1::1 ───── right 10.1.0.2 fd00:1::2
#        10.21.0.1 (subnet)             10.22.0.1 (subnet)
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# watch TITLE FILTER COMMAND...: run a command on left and show what the wire carried meanwhile.
watch() {
	title=$1 filter=$2
	shift 2
	printf '\n%s\n' "$title"
	sniff right to-left wire "$filter"
	printf '  left$ %s\n' "$*"
	at left "$@" >"$work/out" 2>&1 && result=ok || result="exit status $?"
	sniffed wire
	grep -e 'bytes from' -e 'packet loss' -e 'rror' "$work/out" | head -2 | sed 's/^/        /'
	[ "$result" = ok ] || printf '        (%s)\n' "$result"
	if [ -s "$work/wire" ]; then
		sed -e 's/^[0-9:.]* /  wire  /' "$work/wire" | cut -c1-110 | head -4
	else
		printf '  wire  (nothing)\n'
	fi
}

# type_on HOST: show a setkey script and load it.
type_on() {
	tee "$work/script" | sed "s/^/  $1 setkey: /"
	at "$1" "$BIN/setkey" -f "$work/script"
}

say "Two hosts, left and right, in network namespaces, one kipsecd each."
two_hosts
at left ip addr add 10.21.0.1/24 dev lo
at right ip addr add 10.22.0.1/24 dev lo
at left ip route add 10.22.0.0/24 via 10.1.0.2 src 10.21.0.1
at right ip route add 10.21.0.0/24 via 10.1.0.1 src 10.22.0.1
daemon left
daemon right
sed 's/^/  /' "$work/left.log" "$work/right.log"

watch "1. Nothing is configured: a ping crosses the wire in clear." icmp ping -c 1 -W 2 10.1.0.2

printf '\n2. Keys and policies, the same keys on both ends.\n'
{
	transport_keys 10.1.0.1 10.1.0.2
	transport_keys fd00:1::1 fd00:1::2
} >"$work/keys"
{ cat "$work/keys"; require 10.1.0.1 10.1.0.2; require fd00:1::1 fd00:1::2; } | type_on left
{ cat "$work/keys"; require 10.1.0.2 10.1.0.1; require fd00:1::2 fd00:1::1; } | at right "$BIN/setkey" -c

watch "3. The same ping is ESP now." 'icmp or esp' ping -c 1 -W 2 10.1.0.2
watch "   And over IPv6:" 'ip6 proto 50 or (icmp6 and ip6[40] >= 128 and ip6[40] <= 129)' ping -c 1 -W 2 fd00:1::2

printf '\n4. A tunnel between two subnets, 10.21.0.0/24 and 10.22.0.0/24.\n'
tunnel='
add 10.1.0.1 10.1.0.2 esp 0x2001 -m tunnel -r 4 -E aes-cbc "sixteen byte key" -A hmac-sha2-256 "a key of thirty-two bytes, yes..";
add 10.1.0.2 10.1.0.1 esp 0x2002 -m tunnel -r 4 -E aes-cbc "another key 16 b" -A hmac-sha2-256 "and another thirty-two byte key.";'
printf '%s\n%s\n%s\n' "$tunnel" \
	'spdadd 10.21.0.0/24 10.22.0.0/24 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;' \
	'spdadd 10.22.0.0/24 10.21.0.0/24 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;' | sed '/^$/d' | type_on left
printf '%s\n%s\n%s\n' "$tunnel" \
	'spdadd 10.22.0.0/24 10.21.0.0/24 any -P out ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;' \
	'spdadd 10.21.0.0/24 10.22.0.0/24 any -P in ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;' | at right "$BIN/setkey" -c
watch "   The inner addresses are gone from the wire:" 'icmp or esp' ping -c 1 -W 2 -I 10.21.0.1 10.22.0.1

printf '\n5. The knobs. def_policy 0 discards what no policy covers.\n'
at left ip addr add 10.1.0.99/24 dev to-right
watch "   Before, from an address without a policy:" 'icmp or esp' ping -c 1 -W 1 -I 10.1.0.99 10.1.0.2
printf '\n  left$ sysctl -w net.inet.ipsec.def_policy=0\n'
at left "$BIN/sysctl" -w net.inet.ipsec.def_policy=0 | sed 's/^/        /'
watch "   After:" 'icmp or esp' ping -c 1 -W 1 -I 10.1.0.99 10.1.0.2
watch "   What a policy covers goes on:" 'icmp or esp' ping -c 1 -W 2 -I 10.1.0.1 10.1.0.2
printf '\n  left$ echo 1 > %s/net/inet/ipsec/def_policy\n' "$(sys left)"
at left sh -c "echo 1 > $(sys left)/net/inet/ipsec/def_policy"
watch "   Back again:" 'icmp or esp' ping -c 1 -W 2 -I 10.1.0.99 10.1.0.2

printf '\n6. A peer without keys is refused: right forgets its SAs and policies and speaks in clear.\n'
at right "$BIN/setkey" -F
at right "$BIN/setkey" -FP
printf '  right$ ping -c 1 10.1.0.1\n'
if at right ping -c 1 -W 1 10.1.0.1 >"$work/out" 2>&1; then
	fail "a clear ping was answered"
else
	grep 'packet loss' "$work/out" | sed 's/^/        /'
fi
printf '  left$ cat %s/net/inet/ipsec/stats/in_polvio\n' "$(sys left)"
at left cat "$(sys left)/net/inet/ipsec/stats/in_polvio" | sed 's/^/        /'

printf '\nWhat left has in its SADB, with live counters:\n'
at left "$BIN/setkey" -D | head -13 | sed 's/^/  /'
stop left
stop right
printf '\nDone; everything is removed again.\n'
