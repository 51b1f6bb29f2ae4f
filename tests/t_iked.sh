#!/bin/sh
# OpenIKED as Debian packages it, run by kipsec-run on two gateways: tunnels come up, carry traffic, are rekeyed under it, come back
# after their keys are lost, and go; over IPv4, over IPv6, and through an address translator.
#
#   siteA ── gwA ── router ── gwB ── siteB        10.11  10.1  10.2  10.12, IPv6 alike
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
command -v iked >/dev/null || skip "no iked (openiked)"

for h in siteA gwA router gwB siteB; do host $h; done
wire siteA gwA 11
wire gwA router 1
wire router gwB 2
wire gwB siteB 12
at siteA ip route add default via 10.11.0.2
at siteA ip -6 route add default via fd00:11::2
at gwA ip route add default via 10.1.0.2
at gwA ip -6 route add default via fd00:1::2
at gwB ip route add default via 10.2.0.1
at gwB ip -6 route add default via fd00:2::1
at siteB ip route add default via 10.12.0.1
at siteB ip -6 route add default via fd00:12::1
for h in gwA router gwB; do
	at $h sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
daemon gwA
daemon gwB
# iked deletes its old keys as soon as it has new ones, and tells the peer meanwhile: who still sends under the old ones loses packets.
# A rekey that SIGTERM interrupts leaves an SPI behind, which no daemon takes back: it goes by itself.
for h in gwA gwB; do must at $h "$BIN/sysctl" -w net.key.preferred_oldsa=0 net.key.larval_lifetime=5; done

# ike HOST MODE LOCAL PEER SOURCE DESTINATION [OPTION...]: start iked for one tunnel; it sees directories /etc/iked and /run of its own.
ike() {
	on=$1 home=$work/ike-$1
	rm -rf "$home"
	mkdir -p "$home/etc" "$home/run"
	cp -a /etc/iked/. "$home/etc"
	{
		printf 'ikev2 "test" %s esp from %s to %s local %s peer %s' "$2" "$5" "$6" "$3" "$4"
		printf ' childsa auth hmac-sha2-512 enc aes-256'
		shift 6
		# Only gwA renews keys: when both do at the same time, iked deletes keys that the other still uses.
		case $on in gwA) printf ' %s' "$@" 'lifetime 8' ;; *) printf ' %s' "$@" 'lifetime 100' ;; esac
		printf ' psk "secret of the test"'
		echo
	} >"$home/conf"
	chmod 600 "$home/conf"
	say "+ iked on $on: $(cat "$home/conf")"
	# shellcheck disable=SC2016 # the variables are the inner shell's
	behind "iked-$on" "$on" "$BIN/kipsec-run" unshare -m sh -c \
		'mount --bind "$1/etc" /etc/iked && mount --bind "$1/run" /run && exec iked -d -v -f "$1/conf"' - "$home" >"$home/log" 2>&1
	wait_for 5 test -S "$home/run/iked.sock" || broken "iked does not start on $on: $(cat "$home/log")"
}

# broken REASON: nothing that follows can work.
broken() {
	fail "$*"
	exit 1
}

# established HOST: an IKE SA is up and its keys are in the kernel.
established() {
	wait_for 10 grep -q 'established peer' "$work/ike-$1/log" || broken "no IKE SA on $1: $(cat "$work/ike-$1/log")"
	wait_for 5 keys "$1" || broken "no keys on $1"
}

sadb() { at "$1" "$BIN/setkey" -D; }
spd() { at "$1" "$BIN/setkey" -DP; }
keys() { [ "$(sadb "$1" | grep -c state=mature)" -ge 2 ]; }
empty() { sadb "$1" | grep -q 'No SAD' && spd "$1" | grep -q 'No SPD'; }
spis() { sadb "$1" | grep -o 'spi=[0-9]*' | sort; }

# watch_wire: look at what passes between gwA and the router.
watch_wire() { sniff router to-gwA wire; }
only() { # WHAT PATTERN: every packet seen has the pattern
	sniffed wire
	contains "$1" "$work/wire" "$2"
	grep -v -e "$2" -e 'ICMP6, [nmr]' -e 'ARP' -e 'isakmp' "$work/wire" >"$work/strange" || :
	equal "$1: other packets" "$(head -3 "$work/strange")" ""
}

# transfer ADDRESS: 1 MB from siteA to siteB.
transfer() {
	listen siteB "got-$1" "$1" 5000
	head -c 1000000 /dev/urandom >"$work/sent"
	must at siteA nc -N -w 5 "$1" 5000 <"$work/sent"
	wait_for 5 cmp -s "$work/sent" "$work/got-$1" || fail "the transfer arrived damaged"
}

# down HOST: end iked in order.
down() {
	kill "$(pid "iked-$1")"
	gone "$(pid "iked-$1")" || fail "iked does not stop on $1"
	wait_for 10 empty "$1" || fail "left on $1: $(sadb "$1"; spd "$1")"
}

step "IPv4: the tunnel comes up and carries ping and TCP, all of it as ESP"
ike gwB passive 10.2.0.2 10.1.0.1 10.12.0.0/24 10.11.0.0/24
watch_wire
ike gwA active 10.1.0.1 10.2.0.2 10.11.0.0/24 10.12.0.0/24
established gwA
established gwB
must at siteA ping -c 3 -i 0.1 -W 2 10.12.0.2
transfer 10.12.0.2
only "the wire" "IP 10.[12].0.[12] > 10.[12].0.[12]: ESP"

# renewal: ping for as long as keys live; every SPI has changed then. It fails when a packet was lost.
renewal() {
	spis gwA >"$work/spis"
	run at siteA ping -q -c 170 -i 0.05 -W 2 10.12.0.2 >"$work/ping" || :
	spis gwA >"$work/spis-after"
	equal "SPIs that are still the same" "$(comm -12 "$work/spis" "$work/spis-after")" ""
	grep -q ' 0% packet loss' "$work/ping"
}
step "keys are renewed under traffic, and no packet is lost"
# Where a machine is so busy that iked stands still between its two ends' changes, the peer is early or late: then once more.
renewal || renewal || renewal || fail "packets are lost whenever keys are renewed: $(cat "$work/ping")"

step "a packet that finds no keys makes the daemon negotiate some"
at gwA "$BIN/setkey" -F
refuse keys gwA
wait_for 10 at siteA ping -c 1 -W 1 10.12.0.2 || fail "no answer after the keys of gwA are lost: $(tail -20 "$work/ike-gwA/log")"
keys gwA || fail "no new keys"

step "SIGTERM empties both databases"
down gwA
down gwB

step "transport mode: the policies cover IKE's own packets, which pass in clear all the same"
ike gwB "passive transport" 10.2.0.2 10.1.0.1 10.2.0.2 10.1.0.1
watch_wire
ike gwA "active transport" 10.1.0.1 10.2.0.2 10.1.0.1 10.2.0.2
established gwA
must at gwA ping -c 3 -i 0.1 -W 2 10.2.0.2
at gwA "$BIN/setkey" -F
at gwB "$BIN/setkey" -F
wait_for 10 at gwA ping -c 1 -W 1 10.2.0.2 || fail "no answer after all keys are lost: $(tail -20 "$work/ike-gwA/log")"
only "the wire" "IP 10.[12].0.[12] > 10.[12].0.[12]: ESP"
down gwA
down gwB

step "IPv6, inside and outside, beside def_policy 0 and policies for the way to the sites"
for h in gwA gwB; do must at $h "$BIN/sysctl" -w net.inet6.ipsec6.def_policy=0; done
sites() { # COMMAND [TYPE]
	echo "$1 fd00:11::/64 fd00:12::/64 any -P in $2; $1 fd00:12::/64 fd00:11::/64 any -P out $2;" | setkey gwA
	echo "$1 fd00:12::/64 fd00:11::/64 any -P in $2; $1 fd00:11::/64 fd00:12::/64 any -P out $2;" | setkey gwB
}
sites spdadd none
ike gwB passive fd00:2::2 fd00:1::1 fd00:12::/64 fd00:11::/64
watch_wire
ike gwA active fd00:1::1 fd00:2::2 fd00:11::/64 fd00:12::/64
established gwA
must at siteA ping -c 3 -i 0.1 -W 2 fd00:12::2
transfer fd00:12::2
refuse at gwA ping -c 1 -W 1 fd00:2::2
only "the wire" "IP6 fd00:[12]::[12] > fd00:[12]::[12]: ESP"
sites spddelete ""
down gwA
down gwB

step "through an address translator: ESP in UDP"
at router nft add table ip nat
at router nft add chain ip nat out '{ type nat hook postrouting priority 100; }'
at router nft add rule ip nat out oifname to-gwB masquerade
ike gwB passive 10.2.0.2 any 10.12.0.0/24 10.11.0.0/24 "srcid gwB dstid gwA"
watch_wire
sniff gwB to-router beyond
ike gwA active 10.1.0.1 10.2.0.2 10.11.0.0/24 10.12.0.0/24 "srcid gwA dstid gwB"
established gwA
must at siteA ping -c 3 -i 0.1 -W 2 10.12.0.2
must at siteB ping -c 3 -i 0.1 -W 2 10.11.0.1
transfer 10.12.0.2
only "the wire" "IP 10.[12].0.[12].4500 > 10.[12].0.[12].4500: UDP-encap: ESP"
sniffed beyond
lacks "behind the translator" "$work/beyond" "10.1.0.1"
contains "behind the translator" "$work/beyond" "10.2.0.1.[0-9]* > 10.2.0.2.4500: UDP-encap: ESP"
down gwA
down gwB
