#!/bin/sh
# kipsecd beside the rest of the network: NAT as container engines set it up, a stateful firewall, routing rules of the
# user, rp_filter strict everywhere, and another kipsecd next door. What no policy touches works as before, and after the
# end everything is as it was.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"

# box 10.1.0.1 ── 10.1.0.2 mid 10.2.0.1 ── 10.2.0.2 far, with 10.9.0.1 behind far
for h in box mid far; do host $h; done
wire box mid 1
wire mid far 2
at far ip addr add 10.9.0.1/32 dev lo
at far ip addr add 10.2.0.4/24 dev to-mid
at mid sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward'
at mid ip route add 10.9.0.0/24 via 10.2.0.2
at mid ip addr add 10.2.0.3/24 dev to-far
at box ip route add default via 10.1.0.2
for h in box mid far; do
	at $h sh -c "for f in /proc/sys/net/ipv4/conf/*/rp_filter; do echo 1 >\$f; done"
done
at mid nft -f - <<'END'
table ip containers {
	chain out { type nat hook postrouting priority srcnat; ip saddr 10.1.0.0/24 oifname != "to-box" masquerade; }
	chain in { type nat hook prerouting priority dstnat; iifname "to-far" tcp dport 8080 dnat to 10.1.0.1:80; }
}
table inet firewall {
	chain forward {
		type filter hook forward priority filter; policy drop;
		ct state established,related accept
		ct state invalid drop
		iifname "to-box" accept
		ct status dnat accept
	}
	chain marks { type filter hook prerouting priority mangle; iifname "to-box" udp dport 99 meta mark set 0x1; }
}
END
at mid ip rule add from 10.2.0.3 table 100 pref 500
at mid ip route add 10.77.0.0/24 via 10.2.0.2 table 100
at mid ip rule add fwmark 0x1/0xff table 101 pref 600
at mid ip route add blackhole default table 101
at far ip addr add 10.77.0.1/32 dev lo

# state HOST: everything that a program could have changed.
state() {
	at "$1" nft list ruleset 2>&1
	for v in -4 -6; do
		at "$1" ip $v rule
		at "$1" ip $v route show table all
	done
	at "$1" ip -o link | sed 's/ state .*//'
	at "$1" ip -o addr | sed 's/valid_lft.*//'
	at "$1" sysctl -a 2>/dev/null | grep -e '^net[.]' | grep -v -e nf_conntrack_count -e neigh -e random
	at "$1" ls /dev/net
}

# works WHEN: the traffic that no policy touches.
works() {
	sniff far to-mid wire "icmp or tcp"
	must at box ping -c 1 -W 2 10.2.0.2 >/dev/null
	listen far got 10.2.0.2 4000
	echo "to far" | at box nc -N -w 2 10.2.0.2 4000 || fail "$1: TCP through masquerading"
	wait_for 2 grep -q "to far" "$work/got" || fail "$1: TCP through masquerading brought nothing"
	listen box got2 10.1.0.1 80
	echo "to box" | at far nc -N -w 2 10.2.0.1 8080 || fail "$1: TCP through destination NAT"
	wait_for 2 grep -q "to box" "$work/got2" || fail "$1: TCP through destination NAT brought nothing"
	sniffed wire
	contains "$1: masqueraded" "$work/wire" "10.2.0.1.* > 10.2.0.2"
	lacks "$1: masqueraded" "$work/wire" "10.1.0.1"
	# The firewall is stateful, and the routing rules of the user hold.
	refuse at far ping -c 1 -W 1 -I 10.2.0.4 10.1.0.1 >/dev/null
	must at mid ping -c 1 -W 2 -I 10.2.0.3 10.77.0.1 >/dev/null
	refuse at mid ping -c 1 -W 1 -I 10.2.0.1 10.77.0.1 >/dev/null 2>&1
}
at far ip route add 10.1.0.0/24 via 10.2.0.1

step "without kipsecd"
works "before"
for h in mid far; do state $h >"$work/before-$h"; done

step "with kipsecd, and a policy for something else"
daemon mid
daemon far
echo "spdadd 10.66.0.0/24 10.67.0.0/24 any -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
spdadd 10.67.0.0/24 10.66.0.0/24 any -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;" | setkey mid
sniff mid enc0 enc
works "beside a policy"
sniffed enc
equal "packets on enc0" "$(wc -l <"$work/enc")" 0

step "a tunnel for the containers, whose masquerading does not know of it; the firewall sees its state"
keys="add 10.2.0.1 10.2.0.2 esp 0x1001 -m tunnel -E aes-gcm-16 $key_gcm; add 10.2.0.2 10.2.0.1 esp 0x1002 -m tunnel -E aes-gcm-16 $key_gcm_back;"
echo "$keys spdadd 10.1.0.1 10.9.0.0/24 any -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
spdadd 10.9.0.0/24 10.1.0.1 any -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;" | setkey mid
echo "$keys spdadd 10.9.0.0/24 10.1.0.1 any -P out ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;
spdadd 10.1.0.1 10.9.0.0/24 any -P in ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;" | setkey far
sniff far to-mid wire "not arp"
sniff far enc0 inner
must at box ping -c 2 -i 0.2 -W 2 10.9.0.1 >/dev/null
listen far got 10.9.0.1 4000
echo protected | at box nc -N -w 2 10.9.0.1 4000 || fail "TCP through the tunnel"
wait_for 2 grep -q protected "$work/got" || fail "TCP through the tunnel brought nothing"
refuse at far ping -c 1 -W 1 -I 10.9.0.1 10.1.0.1 >/dev/null
sniffed wire
sniffed inner
contains "the wire" "$work/wire" "10.2.0.1 > 10.2.0.2: ESP"
lacks "the wire" "$work/wire" "10.9.0.1"
contains "inside" "$work/inner" "10.1.0.1.* > 10.9.0.1"

step "two daemons: what one does and leaves does not touch the other"
state far >"$work/during"
at mid "$BIN/setkey" -FP
run kill -9 "$(pid mid)"
gone "$(pid mid)" || :
must "$BIN/kipsecd" -netns "$tag-mid" -cleanup
state far >"$work/after"
must diff "$work/during" "$work/after"
must at far "$BIN/setkey" -D >/dev/null

step "after the end all is as it was"
daemon mid
printf 'spdadd 10.1.0.0/24 10.9.0.0/24 any -P out discard;' | setkey mid
stop mid
stop far
for h in mid far; do
	state $h >"$work/after"
	must diff "$work/before-$h" "$work/after"
done
works "after"
