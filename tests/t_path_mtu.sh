#!/bin/sh
# A link of 1,280 bytes in the middle: nothing stalls, and who must not be fragmented is told what fits. From a host of its
# own packets and from one behind a gateway; transport and tunnel mode, both families.
#
#   site 10.11.0.1 ── 10.11.0.2 left 10.1.0.1 ── router ══1,280══ 10.2.0.2 right      IPv6: fd00:11::1 … fd00:2::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
for h in site left router right; do host $h; done
wire site left 11
wire left router 1
wire router right 2
for h in left router; do
	at $h sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
done
at router ip link set to-right mtu 1280
at right ip link set to-router mtu 1280
for via in "site 10.11.0.2 fd00:11::2" "left 10.1.0.2 fd00:1::2" "right 10.2.0.1 fd00:2::1"; do
	# shellcheck disable=SC2086 # three words
	set -- $via
	at "$1" ip route add default via "$2"
	at "$1" ip -6 route add default via "$3"
done
at router ip route add 10.11.0.0/24 via 10.1.0.1
at router ip -6 route add fd00:11::/64 via fd00:1::1
daemon left
daemon right
for a in 10.2.0.2 fd00:2::2; do
	behind serve right /usr/bin/python3 "$(dirname "$0")/udp.py" serve $a >"$work/serve"
	wait_for 10 grep -q serving "$work/serve" || fail "nobody serves $a"
done
head -c 5000000 /dev/urandom >"$work/data"

# load MODE LEFT RIGHT NEAR FAR: policies between NEAR and FAR, by SAs between LEFT and RIGHT. Their windows have room for a packet
# that arrives whole, and on the fast wire overtakes those that arrive in fragments.
load() {
	there='' back=''
	[ "$1" = transport ] || there=$2-$3 back=$3-$2
	for h in left right; do
		out=out in=in
		[ $h = left ] || out=in in=out
		setkey $h <<-END
			flush; spdflush;
			add $2 $3 esp 0x1001 -m $1 -r 32 -E aes-gcm-16 $key_gcm;
			add $3 $2 esp 0x1002 -m $1 -r 32 -E aes-gcm-16 $key_gcm_back;
			spdadd $4 $5 any -P $out ipsec esp/$1/$there/require;
			spdadd $5 $4 any -P $in ipsec esp/$1/$back/require;
		END
	done
}

# tcp FROM TO ADDR
tcp() {
	listen "$2" got "$3" 4000
	at "$1" timeout 20 nc -N "$3" 4000 <"$work/data" || fail "TCP from $1 to $3"
	wait_for 5 cmp "$work/data" "$work/got" || fail "TCP from $1 to $3: data differs"
}

# told FROM ADDR LEAST: ping without leave to fragment is told a size, which then passes and is the largest that does,
# of at least LEAST bytes.
told() {
	headers=28
	case $2 in *:*) headers=48 ;; esac
	at "$1" ping -c 1 -W 1 -M "do" -s 1400 "$2" >"$work/out" 2>&1 || : # the way is not known, or lenient
	at "$1" ping -c 3 -i 0.2 -W 1 -M "do" -s 1400 "$2" >"$work/out" 2>&1 && fail "$1: ping -M do -s 1400 $2 passes"
	mtu=$(sed -n 's/.*mtu *[:=] *\([0-9]*\).*/\1/p' "$work/out" | tail -1)
	say "  $1 is told $mtu for $2"
	if [ -z "$mtu" ] || [ "$mtu" -gt 1280 ] || [ "$mtu" -lt "$3" ]; then
		fail "$1: told MTU '$mtu' for $2"
		cat "$work/out"
		return
	fi
	at "$1" ping -c 1 -W 1 -M "do" -s $((mtu - headers)) "$2" >/dev/null || fail "$1: $mtu bytes do not pass to $2"
	at "$1" ping -c 1 -W 1 -M "do" -s $((mtu - headers + 1)) "$2" >/dev/null 2>&1 && fail "$1: more than $mtu bytes pass to $2"
	return 0
}

# restart: forget what was learnt, in clear and protected.
restart() {
	stop left
	stop right
	for h in site left right; do
		at $h sh -c 'echo 1 >/proc/sys/net/ipv4/route/flush'
		at $h ip -6 route flush cache
	done
	rm "$work/left.log" "$work/right.log" # or the old ones say that the new daemons are ready
	daemon left
	daemon right
}

sizes="1 500 1100 1180 1200 1210 1220 1230 1240 1252 1253 1300 1400 1420 1440 1460 1472 1473 2000 4000 9000 60000"

# all FROM ADDR LEAST: every kind of traffic
all() {
	# shellcheck disable=SC2086 # a list
	at "$1" /usr/bin/python3 "$(dirname "$0")/udp.py" "$2" 3 $sizes || fail "UDP from $1"
	told "$1" "$2" "$3"
	tcp "$1" right "$2"
}

for mode in transport tunnel; do
	for pair in "10.1.0.1 10.2.0.2 1180" "fd00:1::1 fd00:2::2 1280"; do
		# shellcheck disable=SC2086 # three words
		set -- $pair
		step "$mode mode, $1 to $2"
		restart
		at left "$BIN/sysctl" -w net.inet.ipsec.dfbit=2 >/dev/null
		load $mode "$1" "$2" "$1" "$2"
		all left "$2" "$3"
		tcp right left "$1"
	done
done
# The outer header of an IPv6 packet in IPv4 has DF with dfbit 1 only; without it routers fragment and nobody learns.
for net in "10.11.0.1 10.1.0.1 10.2.0.2 1180 2" "fd00:11::1 fd00:1::1 fd00:2::2 1280 2" \
	"10.11.0.1 fd00:1::1 fd00:2::2 1160 2" "fd00:11::1 10.1.0.1 10.2.0.2 1280 1"; do
	# shellcheck disable=SC2086 # five words
	set -- $net
	far=10.2.0.2
	case $1 in *:*) far=fd00:2::2 ;; esac
	step "$1 behind the gateway, tunnel $2 to $3"
	restart
	at left "$BIN/sysctl" -w net.inet.ipsec.dfbit="$5" >/dev/null
	load tunnel "$2" "$3" "$1" "$far"
	all site "$far" "$4"
	tcp right site "$1"
done

step "dfbit 0: IPv4 is fragmented outside, nobody is told; dfbit 1: what has no DF is cut before"
restart
load tunnel 10.1.0.1 10.2.0.2 10.11.0.1 10.2.0.2
must at site ping -c 2 -i 0.2 -W 1 -M "do" -s 1400 10.2.0.2 >/dev/null
at left "$BIN/sysctl" -w net.inet.ipsec.dfbit=1 >/dev/null
at site ping -c 1 -W 1 -M dont -s 1400 10.2.0.2 >/dev/null || : # the way is not known yet
sniff router to-left wire "esp and src 10.1.0.1"
must at site ping -c 1 -W 1 -M dont -s 1400 10.2.0.2 >/dev/null
sniffed wire
equal "packets that are not fragments" "$(wc -l <"$work/wire")" 2
at site ping -c 1 -W 1 -M "do" -s 1400 10.2.0.2 >"$work/out" 2>&1 && fail "dfbit 1: ping -M do passes"
contains "ping" "$work/out" "mtu"

step "nothing is left of what the stack was told"
at right ip link set to-router mtu 1500
at router ip link set to-right mtu 1500
restart
load transport 10.1.0.1 10.2.0.2 10.1.0.1 10.2.0.2
at left ping -c 2 -i 0.2 -W 1 -s 1460 10.2.0.2 >/dev/null 2>&1 || :
at left ip route get 10.2.0.2 >"$work/out"
contains "the route" "$work/out" "mtu"
stop left
at left ip route get 10.2.0.2 >"$work/out"
lacks "the route" "$work/out" "mtu"

step "a report about no SA of ours is not believed"
rm "$work/left.log"
daemon left
load transport 10.1.0.1 10.2.0.2 10.1.0.1 10.2.0.2
at left "$BIN/sysctl" -w net.inet.ipsec.debug=1 >/dev/null
cat >"$work/lie.py" <<'PY'
import sys
from scapy.all import ICMP, IP, Raw, send
spi, mtu = int(sys.argv[1], 0), int(sys.argv[2])
quoted = IP(src="10.1.0.1", dst="10.2.0.2", proto=50, flags="DF", len=1500) / Raw(spi.to_bytes(4, "big") + bytes(4))
send(IP(src="10.1.0.2", dst="10.1.0.1") / ICMP(type=3, code=4, nexthopmtu=mtu) / quoted, verbose=0)
PY
/usr/bin/python3 -c 'import scapy' 2>/dev/null || skip "the rest needs python3-scapy"
at router /usr/bin/python3 "$work/lie.py" 0x9999 900
wait_for 5 grep -q "of a packet without an SA" "$work/left.log" || fail "no word of the report without an SA"
lacks "the log" "$work/left.log" "path MTU to"
at router /usr/bin/python3 "$work/lie.py" 0x1001 68
wait_for 5 grep -q "path MTU to 10.2.0.2 is 576" "$work/left.log" || fail "the report about an SA is not believed"
