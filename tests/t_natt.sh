#!/bin/sh
# ESP in UDP (RFC 3948) from behind a translator that changes address and port, both families, both modes, while port 4500
# is also that of an IKE daemon.
#
#   left 10.11.0.1 fd00:11::1 ── nat ══ as 10.1.0.1 fd00:1::1, port 14500 ══ right 10.1.0.2 fd00:1::2
#   10.21.0.1 fd00:21::1                                                     10.22.0.1 fd00:22::1
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
for h in left nat right; do host $h; done
wire left nat 11
wire nat right 1
at left ip route add default via 10.11.0.2
at left ip -6 route add default via fd00:11::2
at right ip route add 10.21.0.1 via 10.1.0.1
at right ip -6 route add fd00:21::1 via fd00:1::1
for end in "left 21" "right 22"; do
	at "${end% *}" ip addr add "10.${end#* }.0.1/32" dev lo
	at "${end% *}" ip addr add "fd00:${end#* }::1/128" dev lo
done
at nat sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
at nat nft -f - <<'END' || skip "nft cannot make a translator here"
table ip nat {
	chain out {
		type nat hook postrouting priority 100
		oifname "to-right" udp sport 4500 snat to 10.1.0.1:14500
		oifname "to-right" masquerade
	}
}
table ip6 nat {
	chain out {
		type nat hook postrouting priority 100
		oifname "to-right" udp sport 4500 snat to [fd00:1::1]:14500
		oifname "to-right" masquerade
	}
}
END

# ike HOST: what a UDP socket on port 4500 receives, one line in hex for each datagram, goes to $work/ike-HOST.
ike() {
	behind "ike-$1" "$1" python3 -c '
import socket
s = socket.socket(socket.AF_INET6, socket.SOCK_DGRAM)
s.bind(("::", 4500))
while True: print("got", s.recv(70000)[:16].hex(), flush=True)
' >"$work/ike-$1"
}

# datagram HOST DESTINATION PORT HEX: from port 4500 of the host.
datagram() {
	at "$1" python3 -c '
import socket, sys
s = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_RAW, 17)
data = bytes.fromhex(sys.argv[3])
ports = (4500).to_bytes(2, "big") + int(sys.argv[2]).to_bytes(2, "big")
if ":" in sys.argv[1]: s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_CHECKSUM, 6)
s.sendto(ports + (8 + len(data)).to_bytes(2, "big") + b"\0\0" + data, (sys.argv[1], 0))
' "$2" "$3" "$4"
}

ike left
ike right
daemon left
daemon right
ike_port=4500

# keys MODE LEFT NAT RIGHT [ORIGINAL]: SAs of both ends; ORIGINAL is what right knows of left's own address.
keys() {
	setkey left <<-END
		flush; spdflush;
		add $2 $4[$ike_port] esp-udp 0x1001 -m $1 -r 32 -E aes-gcm-16 $key_gcm;
		add $4[$ike_port] $2 esp-udp 0x1002 -m $1 -r 32 -E aes-gcm-16 $key_gcm_back;
	END
	setkey right <<-END
		flush; spdflush;
		add $3[14500] $4[$ike_port] esp-udp ${5:-} 0x1001 -m $1 -r 32 -E aes-gcm-16 $key_gcm;
		add $4[$ike_port] $3[14500] esp-udp 0x1002 -m $1 -r 32 -E aes-gcm-16 $key_gcm_back;
	END
}

# tunnel INNERLEFT INNERRIGHT LEFT NAT RIGHT
tunnel() {
	keys tunnel "$3" "$4" "$5"
	setkey left <<-END
		spdadd $1 $2 any -P out ipsec esp/tunnel/$3-$5/require;
		spdadd $2 $1 any -P in ipsec esp/tunnel/$5-$3/require;
	END
	setkey right <<-END
		spdadd $2 $1 any -P out ipsec esp/tunnel/$5-$4/require;
		spdadd $1 $2 any -P in ipsec esp/tunnel/$4-$5/require;
	END
}

# transport LEFT NAT RIGHT [ORIGINAL]
transport() {
	keys transport "$@"
	require "$1" "$3" | setkey left
	require "$3" "$2" | setkey right
}

# passes FROM TO LEFT NAT RIGHT: ping and TCP, and nothing but ESP in UDP on the wires.
passes() {
	sniff left to-nat inside "not arp and not (icmp6 and ip6[40] >= 133)"
	sniff right to-nat outside "not arp and not (icmp6 and ip6[40] >= 133)"
	must at left ping -c 2 -i 0.2 -W 2 -I "$1" "$2" >/dev/null
	must at left ping -c 1 -W 2 -s 8000 -I "$1" "$2" >/dev/null
	sniffed inside
	sniffed outside
	to='.*ESP(spi=0x00001001' back='.*ESP(spi=0x00001002'
	[ $ike_port = 4500 ] || to=UDP back=UDP # tcpdump knows one port only
	contains "left's wire" "$work/inside" "$3.4500 > $5.$ike_port: $to"
	contains "left's wire" "$work/inside" "$5.$ike_port > $3.4500: $back"
	contains "right's wire" "$work/outside" "$4.14500 > $5.$ike_port: $to"
	contains "right's wire" "$work/outside" "$5.$ike_port > $4.14500: $back"
	lacks "left's wire" "$work/inside" "echo"
	lacks "right's wire" "$work/outside" "echo"
	listen right got "$2" 4000
	at left nc -N -s "$1" "$2" 4000 <"$work/data" || fail "TCP"
	wait_for 10 cmp "$work/data" "$work/got" || fail "TCP data differs"
}

head -c 3000000 /dev/urandom >"$work/data"
for family in 4 6; do
	inside="10.21.0.1 10.22.0.1" outside="10.11.0.1 10.1.0.1 10.1.0.2"
	[ $family = 4 ] || inside="fd00:21::1 fd00:22::1" outside="fd00:11::1 fd00:1::1 fd00:1::2"
	near=${outside%% *} far=${outside##* }
	step "IPv$family: tunnel mode"
	# shellcheck disable=SC2086 # two words and three
	{
		tunnel $inside $outside
		passes $inside $outside
	}

	step "IPv$family: IKE and other data of port 4500 go to its socket, ESP and keepalives do not"
	: >"$work/ike-right"
	datagram left "$far" 4500 ff
	datagram left "$far" 4500 0000100100000001
	datagram left "$far" 4500 12345678
	datagram left "$far" 4500 0000000069696969
	datagram left "$far" 4500 616263
	datagram left "$far" 4500 00000000"$(head -c 3000 "$work/data" | od -An -tx1 | tr -d ' \n')"
	datagram left "$far" 4500 00001001"$(head -c 3000 "$work/data" | od -An -tx1 | tr -d ' \n')"
	wait_for 5 grep -q 616263 "$work/ike-right" || fail "data too short for ESP does not arrive"
	wait_for 5 [ "$(grep -c got "$work/ike-right")" = 3 ] || :
	equal "datagrams" "$(grep -c got "$work/ike-right")" 3
	contains "the socket" "$work/ike-right" "got 0000000069696969$"
	contains "the socket" "$work/ike-right" "got 00000000................"

	step "IPv$family: transport mode, checksums made anew"
	# shellcheck disable=SC2086
	{
		transport $outside
		passes $near $far $outside
	}
	step "IPv$family: transport mode, right knows left's address"
	# shellcheck disable=SC2086
	{
		transport $outside $near
		passes $near $far $outside
	}
	at right "$BIN/setkey" -D >"$work/sad"
	contains "-D" "$work/sad" "\[14500\].*\[4500\]"
	contains "-D" "$work/sad" "NAT OA=$near"

	step "IPv$family: a port of the SA's own"
	ike_port=4700
	# shellcheck disable=SC2086
	{
		tunnel $inside $outside
		wait_for 5 at left ping -c 1 -W 1 -I "${inside% *}" "${inside#* }" || fail "the port is not taken"
		passes $inside $outside
	}
	ike_port=4500
done

step "the peer is accepted from another address and port than its SA says"
tunnel 10.21.0.1 10.22.0.1 10.11.0.1 10.1.0.1 10.1.0.2
setkey right <<END
delete 10.1.0.1 10.1.0.2 esp 0x1001;
spddelete 10.21.0.1 10.22.0.1 any -P in;
add 10.99.0.1[9999] 10.1.0.2[4500] esp-udp 0x1001 -m tunnel -r 32 -E aes-gcm-16 $key_gcm;
spdadd 10.21.0.1 10.22.0.1 any -P in ipsec esp/tunnel/10.99.0.1-10.1.0.2/require;
END
must at left ping -c 1 -W 2 -I 10.21.0.1 10.22.0.1 >/dev/null

step "keepalives keep the translator's mapping while nothing is sent, and reach no socket"
: >"$work/ike-right"
sniff right to-nat alive "udp port 4500"
wait_for 30 grep -q "10.1.0.1.14500 > 10.1.0.2.4500: isakmp-nat-keep-alive" "$work/alive" || fail "no keepalive in 30 seconds"
sniffed alive
equal "datagrams" "$(cat "$work/ike-right")" ""
