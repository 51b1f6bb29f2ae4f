#!/bin/sh
# Each path of a packet past a gateway, under each kind of policy, in clear, protected as asked and protected otherwise:
# what arrives is what docs/policy.md says. Then fragments of two origins, which must not become one packet.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)

# left 10.1.0.1 ── 10.1.0.2 mid 10.2.0.1 ── 10.2.0.2 right, IPv6 alike
for h in left mid right; do host $h; done
wire left mid 1
wire mid right 2
at mid ip addr add 10.1.0.3/24 dev to-left
at mid ip -6 addr add fd00:1::3/64 dev to-left nodad
at mid sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
at left ip route add default via 10.1.0.2
at left ip -6 route add default via fd00:1::2
at right ip route add default via 10.2.0.1
at right ip -6 route add default via fd00:2::1
for h in left mid right; do at $h sh -c 'echo 0 >/proc/sys/net/ipv4/icmp_echo_ignore_broadcasts'; done
daemon mid
daemon left

step "the table of paths"
must /usr/bin/python3 "$here/paths.py" "$tag" "$BIN"

step "half a packet that came protected and half of one that did not make none"
tunnel=esp/tunnel/10.1.0.1-10.1.0.2/require
sa="add 10.1.0.1 10.1.0.2 esp 0x1001 -m tunnel -E aes-gcm-16 $key_gcm;"
{
	echo "flush; spdflush; $sa"
	echo "spdadd 10.1.0.1 10.1.0.2 any -P out ipsec $tunnel;"
	echo "spdadd fd00:1::1 fd00:1::2 any -P out ipsec $tunnel;"
} | setkey left
{
	echo "flush; spdflush; $sa"
	echo "spdadd 10.1.0.1 10.1.0.2 any -P in ipsec $tunnel;"
	echo "spdadd fd00:1::1 fd00:1::2 any -P in ipsec $tunnel;"
} | setkey mid
for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	a=${pair% *} b=${pair#* }
	listen mid "got$a" -u -k "$b" 6000
	must at left /usr/bin/python3 "$here/two_origins.py" to-mid "$a" "$b" 6000
	wait_for 3 grep -q GOOD "$work/got$a" || fail "$a: fragments from one sender do not arrive"
	lacks "$a" "$work/got$a" EVIL
done

step "nobody else is this host, in a tunnel or in fragments"
for pair in "10.1.0.1 10.1.0.2 0.0.0.0/0" "fd00:1::1 fd00:1::2 ::/0"; do
	# shellcheck disable=SC2086 # three words
	set -- $pair
	echo "spdflush; spdadd $2 $2 any -P out ipsec $tunnel; spdadd $1 $2 any -P out ipsec $tunnel;" | setkey left
	echo "spdflush; spdadd $3 $2 any -P in none;" | setkey mid
	listen mid "got$1" -u -k "$2" 6001
	must at left /usr/bin/python3 "$here/martians.py" to-mid "$1" "$2" 6001
	wait_for 3 grep -q HONEST "$work/got$1" || fail "$1: an honest packet does not arrive"
	lacks "$1" "$work/got$1" MARTIAN
done

step "what ICMP errors quote of protected packets stays protected"
back="add 10.1.0.2 10.1.0.1 esp 0x1002 -m tunnel -E aes-gcm-16 $key_gcm_back;"
for f in "10.1.0.1 10.1.0.2 10.2.0.2" "fd00:1::1 fd00:1::2 fd00:2::2"; do
	# shellcheck disable=SC2086 # three words
	set -- $f
	for h in left mid; do
		out=out in=in
		[ $h = left ] || { out=in in=out; }
		echo "flush; spdflush; $sa $back
		spdadd $1 $2 udp -P $out ipsec $tunnel; spdadd $2 $1 udp -P $in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
		spdadd $1 $3 udp -P $out ipsec $tunnel; spdadd $3 $1 udp -P $in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;" | setkey $h
	done
	sniff left to-mid wire "icmp or (icmp6 and ip6[40] < 128)"
	sniff left enc0 inner "icmp or (icmp6 and ip6[40] < 128)"
	at left /usr/bin/python3 - "$2" "$3" <<-'END'
		import socket, sys
		for host, ttl in (sys.argv[1], 64), (sys.argv[2], 1):
		    six = ":" in host
		    s = socket.socket(socket.AF_INET6 if six else socket.AF_INET, socket.SOCK_DGRAM)
		    s.setsockopt(*((socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS) if six else (socket.IPPROTO_IP, socket.IP_TTL)), ttl)
		    s.sendto(b"secret", (host, 6999))
	END
	wait_for 3 sh -c "grep -q exceeded '$work/inner' && grep -q unreachable '$work/inner'" || fail "$1: no error arrives protected"
	sniffed wire
	sniffed inner
	equal "$1: ICMP errors in clear" "$(wc -l <"$work/wire")" 0
done

step "what a program says is neighbour discovery leaves in clear in one piece only"
echo "flush; spdflush; spdadd ::/0 ::/0 any -P out discard;" | setkey left
sniff left to-mid wire -vv "src host fd00:1::1 and dst host fd00:1::2"
at left /usr/bin/python3 - <<-'END'
	import socket
	target = socket.inet_pton(socket.AF_INET6, "fd00:1::2")
	for proto, header in (58, b""), (socket.IPPROTO_FRAGMENT, bytes([58, 0, 0, 1, 0, 0, 0, 1])):
	    s = socket.socket(socket.AF_INET6, socket.SOCK_RAW, proto)
	    s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_UNICAST_HOPS, 255)
	    s.sendto(header + bytes([135, 0, 0, 0, 0, 0, 0, 0]) + target, ("fd00:1::2", 0))
END
wait_for 3 grep -q "solicitation" "$work/wire" || fail "neighbour discovery does not leave"
sniffed wire
lacks "the wire" "$work/wire" frag
