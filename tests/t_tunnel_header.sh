#!/bin/sh
# The headers of tunnels as the wire has them: each cell of the ecn and dfbit tables, TTL, identification, flow label; and
# what reaches the inner header from a mark that a router set on the way. Both families in both.
#
#   siteA 10.11.0.1 ── gwA 10.1.0.1 ── mid ── gwB 10.1.0.2 ── siteB 10.12.0.2      IPv6: fd00:11::1 … fd00:12::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
/usr/bin/python3 -c 'import scapy' 2>/dev/null || skip "needs python3-scapy"
for h in siteA gwA mid gwB siteB; do host $h; done
wire siteA gwA 11
wire gwB siteB 12
for end in "gwA gwB 1" "gwB gwA 2"; do
	# shellcheck disable=SC2086 # three words
	set -- $end
	ip -n "$tag-$1" link add "to-$2" type veth peer name "to-$1" netns "$tag-mid"
	at "$1" ip addr add "10.1.0.$3/24" dev "to-$2"
	at "$1" ip -6 addr add "fd00:1::$3/64" dev "to-$2" nodad
	at "$1" ip link set "to-$2" up
	at mid ip link set "to-$1" up
	at "$1" sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
at gwA ip route add default via 10.1.0.2
at gwA ip -6 route add default via fd00:1::2
at gwB ip route add default via 10.1.0.1
at gwB ip -6 route add default via fd00:1::1
daemon gwA
daemon gwB

for inner in 4 6; do
	for outer in 4 6; do
		step "IPv$inner in IPv$outer"
		a=10.1.0.1 b=10.1.0.2 net_a=10.11.0.0/24 net_b=10.12.0.0/24
		[ $outer = 4 ] || { a=fd00:1::1 b=fd00:1::2; }
		[ $inner = 4 ] || { net_a=fd00:11::/64 net_b=fd00:12::/64; }
		for h in gwA gwB; do
			out=out
			[ $h = gwA ] || out=in
			setkey $h <<-END
				flush; spdflush;
				add $a $b esp 0x1001 -m tunnel -r 4 -E aes-gcm-16 $key_gcm;
				spdadd $net_a $net_b any -P $out ipsec esp/tunnel/$a-$b/require;
			END
		done
		/usr/bin/python3 "$(dirname "$0")/tunnel_header.py" "$tag" "$(sys gwA)" "$(sys gwB)" $inner $outer >&3 ||
			fail "IPv$inner in IPv$outer"
	done
done
