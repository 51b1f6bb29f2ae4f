#!/bin/sh
# Tunnels between gateways for the subnets behind them, of one family and of one family in the other.
#
#   siteA 10.11.0.1 ── gwA 10.1.0.1 ══ gwB 10.1.0.2 ── siteB 10.12.0.2      IPv6: fd00:11::1 … fd00:12::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_sites
wait_for 5 at siteA ping -c 1 -W 1 10.12.0.2 || fail "the sites do not reach each other in clear"
wait_for 5 at siteA ping -c 1 -W 1 fd00:12::2 || fail "the sites do not reach each other in clear over IPv6"
daemon gwA
daemon gwB

# tunnel NETA NETB GWA GWB
tunnel() {
	keys="flush; spdflush;
	add $3 $4 esp 0x2001 -m tunnel -r 4 -E aes-gcm-16 $key_gcm;
	add $4 $3 esp 0x2002 -m tunnel -r 4 -E aes-gcm-16 $key_gcm_back;"
	setkey gwA <<-END
		$keys
		spdadd $1 $2 any -P out ipsec esp/tunnel/$3-$4/require;
		spdadd $2 $1 any -P in ipsec esp/tunnel/$4-$3/require;
	END
	setkey gwB <<-END
		$keys
		spdadd $2 $1 any -P out ipsec esp/tunnel/$4-$3/require;
		spdadd $1 $2 any -P in ipsec esp/tunnel/$3-$4/require;
	END
}

head -c 3000000 /dev/urandom >"$work/data"
net4="10.11.0.0/24 10.12.0.0/24" net6="fd00:11::/64 fd00:12::/64"
gw4="10.1.0.1 10.1.0.2" gw6="fd00:1::1 fd00:1::2"
for inner in 4 6; do
	for outer in 4 6; do
		step "IPv$inner in IPv$outer"
		nets=$net4 far=10.12.0.2 gws=$gw4
		[ $inner = 4 ] || nets=$net6 far=fd00:12::2
		[ $outer = 4 ] || gws=$gw6
		# shellcheck disable=SC2086 # two words each
		tunnel $nets $gws
		sniff gwA to-gwB wire "not arp and not (icmp6 and ip6[40] >= 133)"
		must at siteA ping -c 2 -i 0.2 -W 2 $far >/dev/null
		sniffed wire
		contains "the wire" "$work/wire" "${gws% *} > ${gws#* }: ESP(spi=0x00002001"
		contains "the wire" "$work/wire" "${gws#* } > ${gws% *}: ESP(spi=0x00002002"
		lacks "the wire" "$work/wire" "echo re"
		# Each site may lose one: IPv6 fragments that do not fit are refused, and it learns the MTU.
		for _ in 1 2 3; do
			if at siteA ping -c 1 -W 2 -s 8000 $far >"$work/ping"; then break; fi
		done
		contains "the third ping of 8000 bytes at the latest" "$work/ping" " 0% packet loss"
		listen siteB got $far 4000
		at siteA nc -N $far 4000 <"$work/data" || fail "TCP"
		wait_for 5 cmp "$work/data" "$work/got" || fail "TCP data differs"
	done
done

step "a clear packet for a protected subnet does not cross the gateway"
at gwA "$BIN/setkey" -FP
sniff siteB to-gwB inside "icmp6"
refuse at siteA ping -c 1 -W 1 fd00:12::2 >/dev/null
sniffed inside
lacks "behind gwB" "$work/inside" "echo request"

step "strict reverse path checks on all interfaces do not hinder"
# shellcheck disable=SC2086
tunnel $net4 $gw4
for gw in gwA gwB; do
	for dev in all to-gwA to-gwB to-siteA to-siteB; do
		at $gw sh -c "[ ! -e /proc/sys/net/ipv4/conf/$dev ] || echo 1 >/proc/sys/net/ipv4/conf/$dev/rp_filter"
	done
done
must at siteA ping -c 1 -W 2 10.12.0.2 >/dev/null
