#!/bin/sh
# kipsecd on a host of containers, whose engine masquerades them and publishes their ports with rules that know nothing of
# IPsec. What a policy protects leaves protected, with the addresses that it has; what policies of the same addresses let go in
# clear is translated as ever; answers come back. The judges are the far host and a sniffer on the wire.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
go=$(command -v go) || skip "no go to build the traffic with"
CGO_ENABLED=0 "$go" build -C "$(dirname "$0")/traffic" -o "$work/traffic" .

# box 172.17.0.2, fd00:17::2 ── docker0 of mid 10.2.0.1, fd00:2::1 ── far 10.2.0.2, fd00:2::2, with others on its loopback:
#   10.9.0.1   everything protected              10.4.0.1   protected if there is an SA, and there is none
#   10.3.0.1   protected, as all of 10.3/16      10.5.0.1   no policy
#   10.3.0.2   but this                          10.6.0.1   protected to and from mid itself
#   10.2.0.2   TCP to port 5001
for h in box mid far; do host $h; done
wire mid far 2
ip -n "$tag-mid" link add docker0 type bridge
ip -n "$tag-mid" link add veth0 type veth peer name eth0 netns "$tag-box"
at mid ip link set veth0 master docker0
for a in 172.17.0.1/16 fd00:17::1/64; do at mid ip addr add $a dev docker0; done
for a in 172.17.0.2/16 fd00:17::2/64; do at box ip addr add $a dev eth0; done
at mid ip link set docker0 up
at mid ip link set veth0 up
at box ip link set eth0 up
at box ip route add default via 172.17.0.1
at box ip -6 route add default via fd00:17::1
at mid sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
for n in 3 4 5 6 9; do
	at far ip addr add 10.$n.0.1/32 dev lo
	at mid ip route add 10.$n.0.0/16 via 10.2.0.2
	at far ip -6 addr add fd00:$n::1/128 dev lo
	at mid ip -6 route add fd00:$n::/64 via fd00:2::2
done
at far ip addr add 10.3.0.2/32 dev lo
at far ip -6 addr add fd00:3::2/128 dev lo
# What comes with a container's address far can answer, in clear where no policy says otherwise.
at far ip route add 172.17.0.0/16 via 10.2.0.1
at far ip -6 route add fd00:17::/64 via fd00:2::1
wait_for 5 at box ping -c 1 -W 1 fd00:17::1 || fail "no IPv6 to box"

# masquerade WITH: the rules of a container engine, as it writes them.
masquerade() {
	case $1 in
	nft)
		at mid nft -f - <<-'END'
			table ip nat {
				chain POSTROUTING { type nat hook postrouting priority srcnat; ip saddr 172.17.0.0/16 oifname != "docker0" counter masquerade; }
				chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local counter jump DOCKER; }
				chain OUTPUT { type nat hook output priority -100; ip daddr != 127.0.0.0/8 fib daddr type local counter jump DOCKER; }
				chain DOCKER { iifname != "docker0" tcp dport 8080 counter dnat to 172.17.0.2:80; }
			}
			table ip6 nat {
				chain POSTROUTING { type nat hook postrouting priority srcnat; ip6 saddr fd00:17::/64 oifname != "docker0" counter masquerade; }
				chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local counter jump DOCKER; }
				chain DOCKER { iifname != "docker0" tcp dport 8080 counter dnat to [fd00:17::2]:80; }
			}
		END
		;;
	*)
		tables "$1" 172.17.0.0/16 172.17.0.2
		tables "ip6${1#ip}" fd00:17::/64 "[fd00:17::2]"
		;;
	esac
}

# tables TOOL NETWORK CONTAINER
tables() {
	at mid "$1" -t nat -N DOCKER
	at mid "$1" -t nat -A POSTROUTING -s "$2" ! -o docker0 -j MASQUERADE
	at mid "$1" -t nat -A PREROUTING -m addrtype --dst-type LOCAL -j DOCKER
	at mid "$1" -t nat -A OUTPUT -m addrtype --dst-type LOCAL -j DOCKER
	at mid "$1" -t nat -A DOCKER ! -i docker0 -p tcp --dport 8080 -j DNAT --to-destination "$3:80"
}

unmasquerade() {
	case $1 in
	nft) at mid nft 'delete table ip nat; delete table ip6 nat' ;;
	*)
		for tool in "$1" "ip6${1#ip}"; do
			at mid "$tool" -t nat -F
			at mid "$tool" -t nat -X
		done
		;;
	esac
}

# fit: whether the rules of mid know that addresses are translated. unfit: whether they do not, in neither family.
fit() { for family in ip ip6; do translated "$family" || return 1; done; }
unfit() { ! translated ip && ! translated ip6; }
translated() { at mid nft list chain "$1" kipsec translated | grep -q 'ct direction'; }

# six: the same addresses of IPv6. mirror: what far needs where mid has that.
six() { sed 's,172[.]17[.]0[.]0/16,fd00:17::/64,g; s,10[.]3[.]0[.]0/16,fd00:3::/64,g; s,10[.]\([0-9]\)[.]0[.]\([0-9]\),fd00:\1::\2,g'; }
mirror() { sed 's/-P out/-P IN/; s/-P in/-P out/; s/-P IN/-P in/'; }
policies() {
	cat >"$work/policies" <<-END
		spdadd 172.17.0.0/16 10.9.0.1 any -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
		spdadd 10.9.0.1 172.17.0.0/16 any -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;
		spdadd 172.17.0.0/16 10.3.0.2 any -P out none;
		spdadd 10.3.0.2 172.17.0.0/16 any -P in none;
		spdadd 172.17.0.0/16 10.3.0.0/16 any -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
		spdadd 10.3.0.0/16 172.17.0.0/16 any -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;
		spdadd 172.17.0.0/16 10.4.0.1 any -P out ipsec ah/tunnel/10.2.0.1-10.2.0.2/use;
		spdadd 172.17.0.0/16 10.2.0.2[5001] tcp -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
		spdadd 10.2.0.2[5001] 172.17.0.0/16 tcp -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;
		spdadd 10.2.0.1 10.6.0.1 any -P out ipsec esp/tunnel/10.2.0.1-10.2.0.2/require;
		spdadd 10.6.0.1 10.2.0.1 any -P in ipsec esp/tunnel/10.2.0.2-10.2.0.1/require;
	END
	cat "$work/policies"
	six <"$work/policies"
}
keys() {
	cat <<-END
		add 10.2.0.1 10.2.0.2 esp 0x1001 -m tunnel -E aes-gcm-16 $key_gcm;
		add 10.2.0.2 10.2.0.1 esp 0x1002 -m tunnel -E aes-gcm-16 $key_gcm_back;
		add fd00:2::1 fd00:2::2 esp 0x1003 -m tunnel -E aes-gcm-16 $key_gcm;
		add fd00:2::2 fd00:2::1 esp 0x1004 -m tunnel -E aes-gcm-16 $key_gcm_back;
	END
}
# tcp TEXT ADDRESS PORT: the text arrives at a port of far.
tcp() {
	listen far got "$2" "$3"
	echo "$1" | at box nc -N -w 3 "$2" "$3" || fail "$1: TCP to $2 port $3"
	wait_for 2 grep -q "$1" "$work/got" || fail "$1: nothing arrives at $2 port $3"
	kill "$(pid got)" 2>/dev/null || :
}

# published TEXT FAR MID: from an address of far it arrives at the port of box that mid publishes.
published() {
	box=172.17.0.2
	case $3 in *:*) box=fd00:17::2 ;; esac
	listen box got $box 80
	echo "$1" | at far nc -N -w 3 -s "$2" "$3" 8080 || fail "TCP from $2 to the port that $3 publishes"
	wait_for 2 grep -q "^$1\$" "$work/got" || fail "from $2 through the port that $3 publishes did not arrive: $1"
	kill "$(pid got)" 2>/dev/null || :
}

serve() { behind "udp$1" far python3 "$(dirname "$0")/udp.py" serve "$1"; }
udp() { must at box python3 "$(dirname "$0")/udp.py" "$@"; }

# The two families, and the addresses of mid and of far's N.
far4() { echo "10.$1.0.${2:-1}"; }
far6() { echo "fd00:$1::${2:-1}"; }

# works WHAT: all kinds of traffic, each as its policy says.
works() {
	say "  ($1)"
	sniff far to-mid wire "not arp and not icmp6"
	sniff far enc0 inner
	for v in 4 6; do
		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 9)" >/dev/null
		# Of IPv6 packets that connection tracking joined on a bridge Linux has forgotten how large their fragments were.
		[ $v = 6 ] || must at box ping -c 2 -i 0.2 -W 2 -s 3000 "$(far$v 9)" >/dev/null
		tcp "protected" "$(far$v 9)" 5000
		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 3 1)" >/dev/null
		tcp "the port with a policy" "$(far$v 2 2)" 5001

		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 3 2)" >/dev/null
		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 2 2)" >/dev/null
		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 4)" >/dev/null
		must at box ping -c 2 -i 0.2 -W 2 "$(far$v 5)" >/dev/null
		tcp "none in a wider policy" "$(far$v 3 2)" 5000
		tcp "another port" "$(far$v 2 2)" 5002
		udp "$(far$v 2 2)" 3 10 1400 4000 20000
		published "published, in clear" "$(far$v 5)" "$(far$v 2)"
		published "published, protected" "$(far$v 6)" "$(far$v 2)"
	done
	sniffed wire
	sniffed inner
	lacks "$1: the wire" "$work/wire" "IP6* \(172[.]17\|fd00:17:\)"
	lacks "$1: the wire" "$work/wire" "> \(172[.]17\|fd00:17:\)"
	lacks "$1: the wire" "$work/wire" "10[.][69][.]0[.]1\|10[.]3[.]0[.]1[. :]"
	lacks "$1: the wire" "$work/wire" "fd00:[69]::1\|fd00:3::1[. :]"
	lacks "$1: the wire" "$work/wire" "[.]5001[ :]"
	for from in "172[.]17[.]0[.]2.* > 10[.]9[.]0[.]1" "fd00:17::2.* > fd00:9::1" "172[.]17[.]0[.]2[.].* > 10[.]2[.]0[.]2[.]5001" \
		"fd00:17::2[.].* > fd00:2::2[.]5001" "10[.]2[.]0[.]1[.]8080 > 10[.]6[.]0[.]1" "fd00:2::1[.]8080 > fd00:6::1"; do
		contains "$1: protected" "$work/inner" "$from"
	done
	for from in "10[.]2[.]0[.]1[.].* > 10[.]2[.]0[.]2[.]5002" "fd00:2::1[.].* > fd00:2::2[.]5002" "10[.]2[.]0[.]1[.].* > 10[.]3[.]0[.]2[.]5000" \
		"10[.]2[.]0[.]1[.]8080 > 10[.]5[.]0[.]1"; do
		contains "$1: translated" "$work/wire" "$from"
	done
}

serve 10.2.0.2
serve fd00:2::2

step "policies for containers, and nobody's NAT: no connection tracking of ours"
daemon mid
daemon far
{ keys; policies; } | setkey mid
{ keys; policies | mirror; } | setkey far
must unfit
equal "connections tracked" "$(at mid sh -c 'cat /proc/sys/net/netfilter/nf_conntrack_count')" 0

for tool in iptables-nft iptables-legacy; do
	step "the same by $tool"
	at mid $tool -t nat -S >/dev/null 2>&1 || {
		say "not here"
		continue
	}
	masquerade $tool
	must wait_for 10 fit
	works $tool
	unmasquerade $tool
done

step "NAT as container engines write it"
masquerade nft
must wait_for 5 fit
works "nftables"

# count FILE PATTERN
count() { grep -c -e "$2" "$work/$1" || :; }

step "1000 policies come, change and go, while packets flow and connections begin"
sniff far to-mid wire "not arp and not icmp6"
behind drip1 box "$work/traffic" drip 172.17.0.2:7001 10.9.0.1:7001 300
behind drip2 box "$work/traffic" drip "[fd00:17::2]:7001" "[fd00:9::1]:7001" 300
behind pings box sh -c "for i in \$(seq 1000); do ping -c 1 -W 1 10.3.0.2; ping -c 1 -W 1 fd00:2::2; sleep 0.02; done" >"$work/pings"
i=0
while [ $i -lt 1000 ]; do
	echo "spdadd 10.200.$((i / 250)).$((i % 250)) 10.9.0.1[$i] udp -P out ipsec esp/transport//require;"
	i=$((i + 1))
done >"$work/many"
sed 's/spdadd/spdupdate/; s/require/use/' "$work/many" >"$work/changed"
sed 's/spdadd/spddelete/; s/ipsec.*/;/' "$work/many" >"$work/fewer"
for part in many changed fewer many fewer; do must at mid "$BIN/setkey" -f "$work/$part"; done
policies | grep -e -out | sed 's/spdadd/spdupdate/' >"$work/again"
for i in 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17 18 19 20; do at mid "$BIN/setkey" -f "$work/again"; done
sleep 0.3
for p in drip1 drip2 pings; do kill "$(pid $p)"; done
sniffed wire
lacks "while policies change: the wire" "$work/wire" "IP6* \(172[.]17\|fd00:17:\)"
lacks "while policies change: the wire" "$work/wire" "10[.]9[.]0[.]1\|fd00:9::1"
contains "while policies change: the wire" "$work/wire" "10.2.0.1 > 10.2.0.2: ESP"
contains "while policies change: the wire" "$work/wire" "fd00:2::1 > fd00:2::2: ESP"
say "  $(count pings "bytes from") of $(count pings "packets transmitted") new connections in clear were answered"
[ "$(count pings "bytes from")" -ge $(($(count pings "packets transmitted") * 9 / 10)) ] || fail "NAT fails while policies change"

# one TEXT: a policy for 10.5.0.1, and the other end of it.
one() {
	echo "$1 172.17.0.0/16 10.5.0.1 any -P out $2;" | setkey mid
	echo "$1 172.17.0.0/16 10.5.0.1 any -P in $2;" | setkey far
}
ipsec="ipsec esp/tunnel/10.2.0.1-10.2.0.2/require"

step "a policy comes under a masqueraded connection, and goes again"
sniff far to-mid clear "udp port 7001"
sniff far enc0 inner "udp port 7001"
behind drip1 box "$work/traffic" drip 172.17.0.2:7001 10.5.0.1:7001 50
sees clear 3 "10.2.0.1[.][0-9]* > 10.5.0.1"
one spdadd "$ipsec"
sees inner 1 "172.17.0.2.7001 > 10.5.0.1"
sleep 0.2
before=$(wc -l <"$work/clear")
sees inner 20 "172.17.0.2.7001 > 10.5.0.1"
equal "packets in clear until the policy came, and later" "$(wc -l <"$work/clear")" "$before"
one spddelete ""
sees clear 3 "172.17.0.2.7001 > 10.5.0.1"
kill "$(pid drip1)"
sniffed clear
sniffed inner

step "a policy comes under a connection that snat translated: dropped, counted, never in clear"
at mid nft insert rule ip nat POSTROUTING ip saddr 172.17.0.0/16 udp sport 7002 snat to 10.2.0.1
sniff far to-mid clear "udp port 7002"
sniff far enc0 inner "udp port 7002"
behind drip1 box "$work/traffic" drip 172.17.0.2:7002 10.5.0.1:7002 50
sees clear 3 "10.2.0.1[.]7002 > 10.5.0.1"
before=$(cat "$(sys mid)/net/inet/ipsec/stats/out_inval")
one spdadd "$ipsec"
grew() { [ "$(cat "$(sys mid)/net/inet/ipsec/stats/out_inval")" -ge $((before + $1)) ]; }
wait_for 5 grew 5 || fail "nobody counts them"
sleep 0.2
seen=$(wc -l <"$work/clear")
wait_for 5 grew 25 || fail "nobody counts all of them"
equal "packets in clear until the policy came, and later" "$(wc -l <"$work/clear")" "$seen"
kill "$(pid drip1)"
sniffed clear
sniffed inner
equal "packets protected with another address" "$(wc -l <"$work/inner")" 0
one spddelete ""

step "a narrower link behind, and one in front: who sends too much in clear is told, with the address that it knows"
at mid ip link set to-far mtu 1400
for v in 4 6; do
	refuse at box ping -c 1 -W 1 -M "do" -s 1400 "$(far$v 3 2)" >"$work/told"
	contains "told" "$work/told" "\(Frag needed and DF set (mtu = 1400)\|Packet too big: mtu=1400\)"
done
at mid ip link set to-far mtu 1500
at mid ip link set docker0 mtu 1300
at mid ip link set veth0 mtu 1300
head -c 100000 /dev/zero | tr '\0' x >"$work/much"
sniff far to-mid told "icmp or icmp6"
for v in 4 6; do
	published "$(cat "$work/much")" "$(far$v 2 2)" "$(far$v 2)"
done
sniffed told
contains "told" "$work/told" "10.2.0.1 > 10.2.0.2: ICMP 10.2.0.1 unreachable - need to frag (mtu 1300)"
contains "told" "$work/told" "fd00:2::1 > fd00:2::2: ICMP6, packet too big, mtu 1300"

step "kipsecd is killed: what policies name stays, the rest is translated"
sleep 0.3 # until the rules fit the policies
run kill -9 "$(pid mid)"
gone "$(pid mid)" || :
sniff far to-mid wire "not arp and not icmp6"
for v in 4 6; do
	for a in 9 "3 1" "3 2" "2 2" 4; do
		# shellcheck disable=SC2086
		refuse at box ping -c 1 -W 1 "$(far$v $a)" >/dev/null
	done
	must at box ping -c 1 -W 2 "$(far$v 5)" >/dev/null
done
sniffed wire
lacks "without kipsecd: the wire" "$work/wire" "IP6* \(172[.]17\|fd00:17:\)"
lacks "without kipsecd: the wire" "$work/wire" "> \(10[.]2[.]0[.]2\|10[.][349]\|fd00:2::2\|fd00:[349]:\)"
must "$BIN/kipsecd" -netns "$tag-mid" -cleanup
must at box ping -c 1 -W 2 10.3.0.2 >/dev/null
