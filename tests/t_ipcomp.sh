#!/bin/sh
# IPComp alone and inside ESP, transport and tunnel: what shrinks, what stays as it is, and what is thrown away.
#
#   siteA 10.11.0.1 ── gwA 10.1.0.1 ══ gwB 10.1.0.2 ── siteB 10.12.0.2      IPv6: fd00:11::1 … fd00:12::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
command -v python3 >/dev/null || skip "no python3 to forge packets"
two_sites
daemon gwA
daemon gwB
head -c 1000 /dev/urandom >"$work/random"

# watch NAME: what passes between the gateways, but for neighbour discovery and ARP.
watch() { sniff gwA to-gwB "$1" "not arp and not (icmp6 and ip6[40] >= 133) and not multicast"; }

# shorter WHAT NAME PATTERN LIMIT: there are packets that match, and all are shorter.
shorter() {
	contains "$1" "$work/$2" "$3"
	sed -n "/$3/s/.*length \([0-9]*\).*/\1/p" "$work/$2" | while read -r length; do
		[ "$length" -lt "$4" ] || echo "$length"
	done >"$work/long"
	equal "$1: lengths not below $4" "$(cat "$work/long")" ""
}

# count HOST FAMILY COUNTER
count() {
	tree=net/inet/ipsec
	[ "$2" = 4 ] || tree=net/inet6/ipsec6
	cat "$(sys "$1")/$tree/stats/$3"
}

# random FROM TO ADDRESS: a datagram that does not shrink arrives as it was sent.
random() {
	listen "$2" received -u -W 1 "$3" 5000
	at "$1" nc -u -q 0 -w 1 "$3" 5000 <"$work/random" || :
	wait_for 5 cmp "$work/random" "$work/received" || fail "the random datagram did not arrive"
	kill "$(pid received)" 2>/dev/null || :
}

# load KEYS OUT IN SELECTORS: the same SAs on both gateways, and policies from A to B and back.
load() {
	printf 'flush; spdflush;\n%s\nspdadd %s %s any -P out ipsec %s;\nspdadd %s %s any -P in ipsec %s;\n' \
		"$1" "$4" "$5" "$2" "$5" "$4" "$3" | setkey gwA || fail "gwA refuses the configuration"
	printf 'flush; spdflush;\n%s\nspdadd %s %s any -P out ipsec %s;\nspdadd %s %s any -P in ipsec %s;\n' \
		"$1" "$5" "$4" "$3" "$4" "$5" "$2" | setkey gwB || fail "gwB refuses the configuration"
}

for family in 4 6; do
	a=10.1.0.1 b=10.1.0.2 siteA=10.11.0.1 siteB=10.12.0.2 neta=10.11.0.0/24 netb=10.12.0.0/24 ipip="$a > $b: IP "
	[ $family = 4 ] || a=fd00:1::1 b=fd00:1::2 siteA=fd00:11::1 siteB=fd00:12::2 neta=fd00:11::/64 netb=fd00:12::/64 ipip="$a > $b: IP6 "
	comp="add $a $b ipcomp 0x3001 -m MODE -C deflate FLAG; add $b $a ipcomp 0x3002 -m MODE -C deflate FLAG;"
	esp="add $a $b esp 0x1001 -m transport -r 4 -E aes-gcm-16 $key_gcm; add $b $a esp 0x1002 -m transport -r 4 -E aes-gcm-16 $key_gcm_back;"
	transport=$(echo "$comp" | sed 's/MODE/transport/g; s/FLAG//g')

	step "IPv$family transport: zeros shrink, random data and small packets stay clear"
	load "$transport" ipcomp/transport//require ipcomp/transport//require $a $b
	before=$(count gwA $family out_comphist)
	watch wire
	must at gwA ping -c 2 -i 0.2 -W 2 -p 00 -s 1000 $b >/dev/null
	sniffed wire
	shorter "the wire" wire "$a > $b: IPComp(cpi=0x0002)" 100
	shorter "the wire" wire "$b > $a: IPComp(cpi=0x0002)" 100
	equal "packets that are not IPComp" "$(grep -vc IPComp "$work/wire")" 0
	equal "out_comphist before and after" "$before; $(count gwA $family out_comphist)" "; 2 2"
	equal "in_comphist" "$(count gwA $family in_comphist)" "2 2"
	watch wire
	must at gwA ping -c 1 -W 2 -s 20 $b >/dev/null
	random gwA gwB $b
	sniffed wire
	lacks "the wire" "$work/wire" IPComp
	contains "the wire" "$work/wire" "$a.*> $b.*5000: UDP, length 1000"
	equal "out_comphist after one more attempt" "$(count gwA $family out_comphist)" "2 3"
	must at gwA ping -c 1 -W 2 -p 00 -s 60000 $b >/dev/null

	step "IPv$family: setkey -D"
	at gwA "$BIN/setkey" -D >"$work/sad"
	contains "-D" "$work/sad" "	C: deflate 	seq=0x00000000 replay=0 flags=0x00000040 state=mature"
	contains "-D" "$work/sad" "allocated: 3"

	step "IPv$family: a negotiated CPI is on the wire and found by it"
	load "$(echo "$comp" | sed 's/MODE/transport/g; s/FLAG/-R/g')" ipcomp/transport//require ipcomp/transport//require $a $b
	watch wire
	must at gwA ping -c 1 -W 2 -p 00 -s 1000 $b >/dev/null
	sniffed wire
	contains "the wire" "$work/wire" "$a > $b: IPComp(cpi=0x3001)"
	contains "the wire" "$work/wire" "$b > $a: IPComp(cpi=0x3002)"

	step "IPv$family: an algorithm's own CPI needs no SA"
	printf 'flush; spdflush;' | setkey gwB
	printf 'flush; %s' "$transport" | setkey gwA
	must at gwA ping -c 1 -W 2 -p 00 -s 1000 $b >/dev/null

	step "IPv$family transport: ESP outside"
	load "$transport $esp" "ipcomp/transport//require esp/transport//require" "ipcomp/transport//require esp/transport//require" $a $b
	watch wire
	must at gwA ping -c 2 -i 0.2 -W 2 -p 00 -s 1000 $b >/dev/null
	sniffed wire
	shorter "the wire" wire "$a > $b: ESP(spi=0x00001001" 120
	equal "packets that are not ESP" "$(grep -vc ESP "$work/wire")" 0
	watch wire
	must at gwA ping -c 1 -W 2 $b >/dev/null
	random gwA gwB $b
	sniffed wire
	equal "packets that are not ESP" "$(grep -vc ESP "$work/wire")" 0

	step "IPv$family: the inbound policy does without IPComp, and not without ESP"
	before=$(count gwB $family in_polvio)
	printf 'spdflush;' | setkey gwA
	refuse at gwA ping -c 1 -W 1 $b >/dev/null
	printf 'spdadd %s %s any -P out ipsec ipcomp/transport//require;' $a $b | setkey gwA
	refuse at gwA ping -c 1 -W 1 -p 00 -s 1000 $b >/dev/null
	equal "in_polvio" "$(count gwB $family in_polvio)" $((before + 2))

	for flag in "" -R; do
		step "IPv$family tunnel: what does not shrink is a packet in a packet ${flag:+(}$flag${flag:+)}"
		tunnel=$(echo "$comp" | sed "s/MODE/tunnel/g; s/FLAG/$flag/g")
		load "$tunnel" "ipcomp/tunnel/$a-$b/require" "ipcomp/tunnel/$b-$a/require" $neta $netb
		watch wire
		must at siteA ping -c 1 -W 2 -p 00 -s 1000 $siteB >/dev/null
		sniffed wire
		shorter "the wire" wire "$a > $b: IPComp" 100
		shorter "the wire" wire "$b > $a: IPComp" 100
		watch wire
		must at siteA ping -c 1 -W 2 -s 20 $siteB >/dev/null
		random siteA siteB $siteB
		sniffed wire
		lacks "the wire" "$work/wire" IPComp
		contains "the wire" "$work/wire" "$ipip$siteA"
	done

	step "IPv$family tunnel: ESP transport outside, of mode transport and any"
	for mode in transport any; do
		load "$tunnel $(echo "$esp" | sed "s/-m transport/-m $mode/g")" "ipcomp/tunnel/$a-$b/require esp/transport//require" \
			"ipcomp/tunnel/$b-$a/require esp/transport//require" $neta $netb
		watch wire
		must at siteA ping -c 1 -W 2 -p 00 -s 1000 $siteB >/dev/null
		sniffed wire
		shorter "the wire" wire "$a > $b: ESP(spi=0x00001001" 140
		must at siteA ping -c 1 -W 2 -s 20 $siteB >/dev/null
		random siteA siteB $siteB
	done
done

step "TCP through a compressing tunnel inside ESP"
yes 'all work and no play' | head -c 3000000 >"$work/data"
head -c 1000000 /dev/urandom >>"$work/data"
listen siteB got fd00:12::2 4000
at siteA nc -N fd00:12::2 4000 <"$work/data" || fail "TCP does not pass"
wait_for 10 cmp "$work/data" "$work/got" || fail "TCP data differs"

step "what PF_KEY refuses"
for words in "0x10000 -C deflate" "0x100 -C lzs" "0x100 -C oui" "0 -C deflate" "0x100 -E null" "0x100 -A hmac-md5 0x000102030405060708090a0b0c0d0e0f"; do
	say "+ add 10.1.0.1 10.1.0.2 ipcomp $words"
	echo "add 10.1.0.1 10.1.0.2 ipcomp $words;" | setkey gwA >"$work/refused" 2>&1 || :
	contains "setkey" "$work/refused" "Invalid argument"
done
must sh -c "echo 'add 10.1.0.1 10.1.0.2 ipcomp 0x18001 -C deflate -R;' | ip netns exec $tag-gwA $BIN/setkey -c"

# thrown: all of them are counted.
thrown() { [ "$(count gwB "$family" in_inval)" -ge $((inval + 6)) ] && [ "$(count gwB "$family" in_nosa)" -ge $((nosa + 3)) ]; }

step "bombs, broken streams and unknown CPIs are dropped and counted"
printf 'flush; spdflush;' | setkey gwB
for family in 4 6; do
	inval=$(count gwB $family in_inval) nosa=$(count gwB $family in_nosa)
	sniff gwB enc0 clear
	at gwA python3 - $family <<-'END'
		import socket, sys, zlib
		v4 = sys.argv[1] == "4"
		s = socket.socket(socket.AF_INET if v4 else socket.AF_INET6, socket.SOCK_RAW, 108)
		to = ("10.1.0.2", 0) if v4 else ("fd00:1::2", 0)
		def send(cpi, data, proto=17):
		    s.sendto(bytes([proto, 0, cpi >> 8, cpi & 255]) + data, to)
		def raw(data):
		    z = zlib.compressobj(9, zlib.DEFLATED, -15)
		    return z.compress(data) + z.flush()
		send(2, raw(bytes(10_000_000))[:1400])  # a bomb, and cut off
		send(2, raw(bytes(70_000)))             # a bomb
		send(2, raw(bytes(3000)))               # more than a stranger may send
		send(2, b"\xff" * 100)                  # no deflate
		send(2, raw(b"x" * 100)[:-2])           # cut off
		send(2, b"")                            # nothing
		send(3, raw(b"x" * 100))                # lzs
		send(0, raw(b"x" * 100))
		send(256, raw(b"x" * 100))              # no SA
	END
	wait_for 5 thrown || : # what is wrong is told below
	sniffed clear
	equal "in_inval of IPv$family" "$(count gwB $family in_inval)" $((inval + 6))
	equal "in_nosa of IPv$family" "$(count gwB $family in_nosa)" $((nosa + 3))
	equal "what reached the stack" "$(cat "$work/clear")" ""
done

# forge SRC DST: the same packet in a packet from gwA to gwB, bare and in IPComp.
forge() {
	at gwA python3 - "$@" <<-'END'
		import socket, sys, zlib
		def ip(src, dst, proto, data):
		    h = bytearray(20)
		    h[0], h[8], h[9] = 0x45, 64, proto
		    h[2:4] = (20 + len(data)).to_bytes(2, "big")
		    h[12:16], h[16:20] = socket.inet_aton(src), socket.inet_aton(dst)
		    s = sum(int.from_bytes(h[i:i+2], "big") for i in range(0, 20, 2))
		    h[10:12] = (0xffff - (s % 0xffff)).to_bytes(2, "big")
		    return bytes(h) + data
		inner = ip(sys.argv[1], sys.argv[2], 17, bytes([0, 9, 0, 9, 0, 108, 0, 0]) + bytes(100))
		z = zlib.compressobj(9, zlib.DEFLATED, -15)
		socket.socket(socket.AF_INET, socket.SOCK_RAW, 4).sendto(inner, ("10.1.0.2", 0))
		socket.socket(socket.AF_INET, socket.SOCK_RAW, 108).sendto(b"\4\0\0\2" + z.compress(inner) + z.flush(), ("10.1.0.2", 0))
	END
}

# let_in COUNT REQUESTS SRC DST: so many of the forged packets reach the clear side under a policy for 10.11.0.0/24 to 10.12.0.0/24.
let_in() {
	setkey gwB <<-END
		flush; spdflush;
		add 10.1.0.1 10.1.0.2 ipcomp 0x3001 -m tunnel -C deflate;
		add 10.1.0.1 10.1.0.2 esp 0x1001 -m transport -E aes-gcm-16 $key_gcm;
		spdadd 10.11.0.0/24 10.12.0.0/24 any -P in ipsec $2;
	END
	sniff gwB enc0 clear "src host $3 and dst host $4"
	forge "$3" "$4"
	sees clear "$1"
	sleep 0.3
	sniffed clear
	equal "forged packets from $3 to $4 under $2" "$(grep -c . "$work/clear")" "$1"
}

step "a forged tunnel brings in what its policy covers and does not protect, and nothing else"
tunnel=ipcomp/tunnel/10.1.0.1-10.1.0.2/require
let_in 2 $tunnel 10.11.0.1 10.12.0.2
let_in 0 "$tunnel esp/transport//require" 10.11.0.1 10.12.0.2
let_in 0 ipcomp/tunnel/10.1.0.9-10.1.0.2/require 10.11.0.1 10.12.0.2
let_in 0 $tunnel 127.0.0.1 127.0.0.1
let_in 0 $tunnel 192.0.2.1 10.12.0.2
