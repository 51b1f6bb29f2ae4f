#!/bin/sh
# A live tunnel against strongSwan's kernel-libipsec, a foreign implementation of ESP in UDP in user space.
#
#   left 10.1.0.1: kipsecd, and charon for IKE ══ right 10.1.0.2: charon with kernel-libipsec
#   10.21.0.1 fd00:21::1                          10.22.0.1 fd00:22::1
#
# The two charons negotiate an SA over ports 500 and 4500. kipsecd gets the keys out of the log of left's charon, and from
# then on takes the ESP that arrives at port 4500 away from that charon, which has the socket. Then left's charon is
# killed. So all packets below are encrypted by kipsecd and decrypted by strongSwan, and the other way round.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=strongswan.sh
. "$(dirname "$0")/strongswan.sh"
need_strongswan
two_hosts
at left ip addr add 10.21.0.1/32 dev lo
at left ip addr add fd00:21::1/128 dev lo
at left ip route add 10.22.0.1 via 10.1.0.2
at left ip -6 route add fd00:22::1 via fd00:1::2
at right ip addr add 10.22.0.1/32 dev lo
at right ip addr add fd00:22::1/128 dev lo

# What strongSwan calls the suite, and what setkey does.
suites='aes128gcm16:aes-gcm-16: aes256gcm16:aes-gcm-16: aes128-sha1:aes-cbc:hmac-sha1 aes256-sha256:aes-cbc:hmac-sha2-256 aes256-sha512:aes-cbc:hmac-sha2-512'

# hexkey NAME: of the last CHILD_SA in left's log.
hexkey() {
	awk -v name="$1 key =>" '
		index($0, name) { $0 = substr($0, index($0, "=>") + 2); left = $1; key = ""; next }
		left > 0 { sub(/.*: /, ""); n = left < 16 ? left : 16; for (i = 1; i <= n; i++) key = key $i; left -= n }
		END { print key }' FS=' ' "$work/swan-left/log"
}

# spi WAY: of left's CHILD_SA, in or out.
spi() { swanctl left --list-sas --raw | sed -n "s/.* spi-$1=\([0-9a-f]*\).*/0x\1/p"; }

# received: packets that strongSwan on the right has decrypted.
received() { swanctl right --list-sas --raw | sed -n 's/.* packets-in=\([0-9]*\).*/\1/p'; }

# passes SUITE: ping and TCP of both families.
passes() {
	sniff left to-right wire "not arp and not (icmp6 and ip6[40] >= 133)"
	before=$(received)
	for pair in "10.21.0.1 10.22.0.1" "fd00:21::1 fd00:22::1"; do
		near=${pair% *} far=${pair#* }
		must at left ping -c 2 -i 0.2 -W 2 -I "$near" "$far" >/dev/null
		must at left ping -c 1 -W 2 -s 5000 -I "$near" "$far" >/dev/null
		must at right ping -c 1 -W 2 -I "$far" "$near" >/dev/null
		listen right got "$far" 4000
		at left nc -N -s "$near" "$far" 4000 <"$work/data" || fail "TCP"
		wait_for 10 cmp "$work/data" "$work/got" || fail "TCP data differs"
	done
	sniffed wire
	contains "the wire with $1" "$work/wire" "10.1.0.1.4500 > 10.1.0.2.4500: .*ESP(spi=$out"
	contains "the wire with $1" "$work/wire" "10.1.0.2.4500 > 10.1.0.1.4500: .*ESP(spi=$in"
	lacks "the wire with $1" "$work/wire" "echo"
	after=$(received)
	[ "$after" -ge $((before + 100)) ] || fail "strongSwan counts $before packets, then $after"
}

head -c 300000 /dev/urandom >"$work/data"
daemon left
nets=10.21.0.1/32,fd00:21::1/128 peernets=10.22.0.1/32,fd00:22::1/128
names=$(for suite in $suites; do echo "${suite%%:*}"; done)
swan left 10.1.0.1 right 10.1.0.2 $nets $peernets "$names"
swan right 10.1.0.2 left 10.1.0.1 $peernets $nets "$(echo "$names" | paste -sd ,)"
last=
for suite in $suites; do
	name=${suite%%:*} rest=${suite#*:}
	enc=${rest%:*} auth=${rest#*:}
	step "$name: IKE passes at port 4500 while kipsecd runs"
	if [ -n "$last" ]; then swanctl left --terminate --child "$last" >/dev/null || fail "terminate"; fi
	last=$name
	swanctl left --initiate --child "$name" >"$work/initiate" || fail "IKE: $(cat "$work/initiate")"
	in=$(spi in) out=$(spi out)
	to="-E $enc 0x$(hexkey 'encryption initiator')" back="-E $enc 0x$(hexkey 'encryption responder')"
	if [ -n "$auth" ]; then
		to="$to -A $auth 0x$(hexkey 'integrity initiator')" back="$back -A $auth 0x$(hexkey 'integrity responder')"
	fi
	setkey left <<-END
		flush; spdflush;
		add 10.1.0.1 10.1.0.2 esp-udp $out -m tunnel -r 32 $to;
		add 10.1.0.2 10.1.0.1 esp-udp $in -m tunnel -r 32 $back;
		spdadd 10.21.0.1 10.22.0.1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
		spdadd 10.22.0.1 10.21.0.1 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
		spdadd fd00:21::1 fd00:22::1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
		spdadd fd00:22::1 fd00:21::1 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
	END
	passes "$name"
done

step "left's charon saw no ESP, and is not needed"
equal "packets of left's charon" "$(swanctl left --list-sas --raw | sed -n 's/.* packets-in=\([0-9]*\).*packets-out=\([0-9]*\).*/\1 \2/p')" "0 0"
kill -9 "$(pid swan-left)"
gone "$(pid swan-left)" || fail "charon does not end"
passes "$last"
