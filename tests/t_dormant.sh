#!/bin/sh
# While no packet has met a policy, the rules of kipsecd are few and there are no routing rules. The first packet that does, wherever it
# comes from, wakes the others: it is protected or checked like any later one, and not lost.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_sites
for h in gwA gwB; do
	cat >"$work/$h.conf" <<-END
		add 10.1.0.1 10.1.0.2 esp 0x1001 -m tunnel -E aes-gcm-16 $key_gcm;
		add 10.1.0.2 10.1.0.1 esp 0x1002 -m tunnel -E aes-gcm-16 $key_gcm_back;
	END
done
for nets in "10.11.0.0/24 10.12.0.0/24" "fd00:11::/64 fd00:12::/64"; do
	a=${nets% *} b=${nets#* }
	cat >>"$work/gwA.conf" <<-END
		spdadd $a $b any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
		spdadd $b $a any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
	END
	cat >>"$work/gwB.conf" <<-END
		spdadd $b $a any -P out ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
		spdadd $a $b any -P in ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
	END
done

# routed HOST: how many routing rules there are that look at marks.
routed() { { at "$1" ip rule && at "$1" ip -6 rule; } | grep -c fwmark || :; }

# begin: gateways whose policies nothing has met yet, though packets pass.
begin() {
	daemon gwA -f "$work/gwA.conf"
	daemon gwB -f "$work/gwB.conf"
	for other in 10.1.0.2 fd00:1::2; do
		must at siteA ping -c 1 -W 2 $other >/dev/null
		must at gwA ping -c 1 -W 2 $other >/dev/null
	done
	must at siteA ping -c 1 -W 2 -s 3000 10.1.0.2 >/dev/null
	for h in gwA gwB; do equal "routing rules at $h beside packets that no policy touches" "$(routed $h)" 0; done
	sniff gwB to-gwA wire "net 10.11.0.0/24 and net 10.12.0.0/24 or net fd00:11::/64 and net fd00:12::/64"
}

# end: both have met a packet now, and none passed between them in clear.
end() {
	sniffed wire
	equal "clear packets" "$(wc -l <"$work/wire")" 0
	for h in "$@"; do [ "$(routed "$h")" -gt 0 ] || fail "no routing rules at $h"; done
	stop gwA
	stop gwB
	equal "routing rules behind a daemon" "$(routed gwA)" 0
}

step "the first packet is forwarded"
for to in 10.12.0.2 fd00:12::2; do
	begin
	must at siteA ping -c 1 -W 2 "$to" >/dev/null
	end gwA gwB
done

step "it is in fragments"
begin
must at siteA ping -c 1 -W 2 -s 3000 10.12.0.2 >/dev/null
end gwA gwB

step "many wait at a time: none is lost"
begin
at siteB nft 'table ip seen { chain input { type filter hook input priority 0; udp dport 7000 counter; }; }'
kill -STOP "$(pid gwA)"
must at siteA python3 -c '
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
for _ in range(1500): s.sendto(bytes(1000), ("10.12.0.2", 7000))'
kill -CONT "$(pid gwA)"
# arrived: how many of them, for some come joined.
arrived() { echo $(($(at siteB nft list table ip seen | sed -n 's/.*packets \([0-9]*\) bytes \([0-9]*\).*/(\2 - 28 * \1) \/ 1000/p'))); }
all() { [ "$(arrived)" = 1500 ]; }
wait_for 5 all || :
equal "packets that arrived" "$(arrived)" 1500
end gwA gwB

step "it is sent by the host itself"
for pair in "10.11.0.2 10.12.0.1" "fd00:11::2 fd00:12::1"; do
	begin
	must at gwA ping -c 1 -W 2 -I "${pair% *}" "${pair#* }" >/dev/null
	end gwA gwB
done

step "it begins a connection of TCP"
begin
listen siteB got 10.12.0.2 4000
echo hello | must at siteA nc -n -N -w 2 10.12.0.2 4000
wait_for 2 grep -q hello "$work/got" || fail "nothing arrived"
end gwA gwB

step "it is for the port of ESP in UDP"
begin
at siteA sh -c 'printf xxxx | nc -n -u -w 1 10.1.0.2 4500'
wait_for 2 sh -c "ip netns exec $tag-gwA ip rule | grep -q fwmark" || fail "gwA does not look at ESP in UDP"
end gwA gwB

step "it comes in clear against a policy"
begin
sniffed wire
stop gwB
sniff siteA to-gwA inside "src net 10.12.0.0/24 or src net fd00:12::/64"
for to in 10.11.0.1 fd00:11::1; do refuse at siteB ping -c 2 -i 0.2 -W 1 $to >/dev/null; done
sniffed inside
equal "clear packets that got in" "$(wc -l <"$work/inside")" 0
[ "$(routed gwA)" -gt 0 ] || fail "no routing rules at gwA"
stop gwA

step "rules of others give it such an address behind ours"
at gwA ip route add 10.77.0.0/24 via 10.11.0.1
for hook in prerouting forward; do
	rewrite="table ip rewrite { chain way { type filter hook $hook priority 0; ip daddr 10.77.0.1 ip daddr set 10.11.0.1; }; }"
	for when in before after; do
		[ $when = after ] || at gwA nft "$rewrite"
		begin
		sniffed wire
		stop gwB
		[ $when = before ] || at gwA nft "$rewrite"
		wait_for 5 at gwA nft list chain ip kipsec forward || fail "gwA does not see a rule at hook $hook that comes $when it"
		sniff siteA to-gwA inside "src net 10.12.0.0/24"
		refuse at siteB ping -c 2 -i 0.2 -W 1 10.77.0.1 >/dev/null
		sniffed inside
		equal "clear packets that got in" "$(wc -l <"$work/inside")" 0
		stop gwA
		at gwA nft delete table ip rewrite
	done
done
at gwA ip route del 10.77.0.0/24

step "nobody is there any more who could wake them"
begin
kill -9 "$(pid gwA)"
gone "$(pid gwA)" || :
for to in 10.12.0.2 fd00:12::2; do refuse at siteA ping -c 2 -i 0.2 -W 1 $to >/dev/null; done
must at siteA ping -c 1 -W 2 10.1.0.2 >/dev/null
sniffed wire
equal "clear packets" "$(wc -l <"$work/wire")" 0

step "and a new one, which does not know what the dead one had marked, has them awake at once"
daemon gwA -f "$work/gwA.conf"
[ "$(routed gwA)" -gt 0 ] || fail "no routing rules at gwA"
must at siteA ping -c 1 -W 2 10.12.0.2 >/dev/null
stop gwA
stop gwB

step "rules of others come: translation of addresses, and what tracks connections"
begin
at gwA nft 'table ip nat { chain out { type nat hook postrouting priority srcnat; ip saddr 10.11.0.0/24 masquerade; }; }'
wait_for 5 sh -c "ip netns exec $tag-gwA nft list table ip kipsec | grep -q 'chain translated'" || fail "gwA does not see them"
must at siteA ping -c 1 -W 2 10.1.0.2 >/dev/null
equal "routing rules at gwA beside packets that others translate" "$(routed gwA)" 0
must at siteA ping -c 1 -W 2 10.12.0.2 >/dev/null
end gwA gwB

step "what tracks connections is there, and its rules are about forwarded packets only"
# It joins fragments ahead of the rules: none of them may wait in clear for one that comes protected.
at gwA nft 'delete table ip nat; add table ip tracks; add chain ip tracks way { type filter hook forward priority 0; }; add rule ip tracks way ct state invalid drop'
begin
at gwA nft list chain ip kipsec enter >/dev/null || fail "fragments are not looked at before others join them"
stop gwA
stop gwB
