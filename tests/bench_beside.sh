#!/bin/sh
# What kipsecd costs traffic that no policy touches: pairs of hosts, with a kipsecd that has policies for something else on the
# sender, on the receiver, on both, on a router between them, or on none. A thread sends small UDP packets and TCP between the
# hosts of each, in turns, and counts its processor time: 64 KiB of TCP are a packet or two and an acknowledgement, all of them past
# the rules of each host with kipsecd. PLACES chooses; with SA=1 there is an SA, which is for somebody else too; with AWAKE=1 a packet has
# met a policy before, so that all rules stand; TO=fd00:1::2 measures IPv6.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
ROUNDS=${ROUNDS:-1000}
PLACES=${PLACES:-"sender receiver ends router"}
TO=${TO:-10.1.0.2}
CGO_ENABLED=0 go build -C "$(dirname "$0")/traffic" -o "$work/traffic" .
cat >"$work/policies" <<'END'
spdadd 10.66.0.1 10.67.0.1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
spdadd 10.67.0.0/24 10.66.0.0/24 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
spdadd fd00:66::1 fd00:67::1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
spdadd fd00:67::/64 fd00:66::/64 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
END
[ -z "${SA:-}" ] || echo "add 10.77.0.1 10.77.0.2 esp 0x7001 -E aes-gcm-16 $key_gcm;" >>"$work/policies"
pairs=

# pair NAME [HOST...]: two hosts, l and r; on these hosts of it, if any, there is a kipsecd.
pair() {
	host "$1-l"
	host "$1-r"
	wire "$1-l" "$1-r" 1
	joined "$@"
}

# routed NAME [HOST...]: two hosts and a router between them, m.
routed() {
	for h in l m r; do host "$1-$h"; done
	wire "$1-l" "$1-m" 9
	wire "$1-m" "$1-r" 1
	at "$1-l" ip route add default via 10.9.0.2
	at "$1-l" ip -6 route add default via fd00:9::2
	at "$1-r" ip route add default via 10.1.0.1
	at "$1-r" ip -6 route add default via fd00:1::1
	at "$1-m" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
	joined "$@"
}

joined() {
	pair=$1
	pairs="$pairs $tag-$pair-l $tag-$pair-r"
	shift
	for h; do
		daemon "$pair-$h" -f "$work/policies"
		[ -z "${AWAKE:-}" ] || wake "$pair-$h"
	done
}

# wake HOST: send a packet that a policy is for.
wake() {
	at "$1" ip addr add 10.66.0.1/32 dev lo
	at "$1" ip route add 10.67.0.1 dev lo
	at "$1" ping -c 1 -W 0.1 -I 10.66.0.1 10.67.0.1 >/dev/null || :
	at "$1" ip rule | grep -q fwmark || fail "the rules of $1 sleep on"
}

pair plain
for place in $PLACES; do
	case $place in
	sender) pair sender l ;;
	receiver) pair receiver r ;;
	ends) pair ends l r ;;
	router) routed routed && routed router m ;;
	esac
done
sleep 0.5
# shellcheck disable=SC2086 # one word for each host
GOMAXPROCS=1 "$work/traffic" cost "$TO" "$ROUNDS" $pairs >"$work/costs"
printf '%-10s  %29s  %32s\n' 'kipsecd at' '64-byte UDP packet' '64 KiB of TCP'
awk '
	{ split($1, name, "-"); place = name[2] }
	place == "plain" || place == "routed" { udp = $2; tcp = $3; next }
	{ printf "%-10s  %6d → %6d ns, × %.3f  %8d → %7d ns, × %.3f\n", place, udp, $2, $2 / udp, tcp, $3, $3 / tcp }' "$work/costs"
