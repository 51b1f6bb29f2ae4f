#!/bin/sh
# Nothing leaks while something changes: at start, while the SPD is replaced, at a flush, when interfaces and addresses come
# and go, when enc0 is taken down, at kill -9 and at the next start. Packets flow all the time, in both directions and both
# families. The judges are a sniffer on the wire and a program that hears what reaches a socket in clear.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
traffic=$(helper traffic) || skip "no go to build the traffic with"
POLICIES=${POLICIES:-10000}

two_hosts
# Only left has a kipsecd. What it sends protected nobody answers, and right sends in clear, always.
at right nft 'table inet quiet { chain o { type filter hook output priority 0; icmp type destination-unreachable drop; icmpv6 type 1 drop; }; }'
for a in 10.1.0.1:6101 "[fd00:1::1]:6101"; do
	behind "hear$a" left "$traffic" hear "$a" >"$work/heard$a"
done
sniff right to-left wire -tt "(udp port 6100 and (src host 10.1.0.1 or src host fd00:1::1)) or esp"
behind drip1 left "$traffic" drip 10.1.0.1:6100 10.1.0.2:6100 400
behind drip2 left "$traffic" drip "[fd00:1::1]:6100" "[fd00:1::2]:6100" 400
behind drip3 right "$traffic" drip 10.1.0.2:6101 10.1.0.1:6101 400
behind drip4 right "$traffic" drip "[fd00:1::2]:6101" "[fd00:1::1]:6101" 400
# This one no policy names.
at right ip addr add 10.1.0.9/24 dev to-left
behind drip5 left "$traffic" drip 10.1.0.1:6200 10.1.0.9:6200 400
at left nft 'table ip unnamed { counter around { }; counter through { }
	chain p { type filter hook postrouting priority 0; udp dport 6200 oifname enc0 counter name through; udp dport 6200 oifname to-right counter name around; }; }'

now() { date +%s.%N; }

# between FROM TO FILE PATTERN [COLUMN]: how many lines of the file match and have a time between these.
between() { awk -v a="$1" -v b="$2" -v p="$4" -v c="${5:-1}" '$c >= a && $c <= b && $0 ~ p { n++ } END { print n + 0 }' "$work/$3"; }

# seen FROM TO [COLUMN]: what passed in clear in that time: out IPv4, out IPv6, in IPv4, in IPv6. What came in has the time when it
# arrived, and in column 2 when it had been let through: it may wait for the policies that it is judged by.
seen() {
	sleep 0.1 # what writes may lag behind
	echo "$(between "$1" "$2" wire "IP 10.*[.]6100 >") $(between "$1" "$2" wire "IP6 fd00.*[.]6100 >")" \
		"$(between "$1" "$2" heard10.1.0.1:6101 . "${3:-1}") $(between "$1" "$2" "heard[fd00:1::1]:6101" . "${3:-1}")"
}

# closed WHAT FROM: nothing passed in clear since then.
closed() {
	until=$(now)
	got=$(seen "$2" "$until")
	[ "$got" = "0 0 0 0" ] || {
		fail "$1: in clear passed (out 4, out 6, in 4, in 6): $got"
		awk -v a="$2" -v b="$until" '$1 >= a && $1 <= b && /6100 >/' "$work/wire" | head -3 >&3
	}
}

# all_open WHAT: packets pass in clear, all four ways, within five seconds.
all_open() {
	from=$(now)
	wait_for 5 flows "$from" || fail "$1: does not flow in clear (out 4, out 6, in 4, in 6): $(seen "$from" "$(now)")"
}
flows() { case " $(seen "$1" "$(now)") " in *" 0 "*) false ;; esac }

# protected WHAT: ESP leaves, of both families, within ten seconds.
protected() {
	from=$(now)
	wait_for 10 esp_flows "$from" || fail "$1: nothing leaves protected"
}
esp_flows() {
	[ "$(between "$1" "$(now)" wire "IP 10.*ESP")" -gt 0 ] && [ "$(between "$1" "$(now)" wire "IP6 fd00.*ESP")" -gt 0 ]
}

both() {
	transport_keys 10.1.0.1 10.1.0.2
	transport_keys fd00:1::1 fd00:1::2
	require 10.1.0.1 10.1.0.2
	require fd00:1::1 fd00:1::2
}
both >"$work/left.conf"

step "before: all flows in clear, so that the judges have something to see"
all_open "before"

step "start: policies of -f are in force when kipsecd is ready"
daemon left -f "$work/left.conf"
from=$(now)
protected "start"
closed "start" "$from"
at left nft reset counters table ip unnamed >"$work/unnamed"

step "the SPD is replaced: $POLICIES policies, those of the traffic among them"
{
	i=0
	while [ $i -lt "$POLICIES" ]; do
		echo "spdadd 10.$((i / 65536 + 100)).$((i / 256 % 256)).$((i % 256)) 10.1.0.2 any -P out ipsec esp/transport//require;"
		i=$((i + 1))
	done
} >"$work/many"
must at left "$BIN/setkey" -f "$work/many"
closed "adding" "$from"
from=$(now)
{
	require 10.1.0.1 10.1.0.2 | sed 's/spdadd/spdupdate/'
	sed 's/spdadd/spdupdate/; s/require/use/' "$work/many"
	require fd00:1::1 fd00:1::2 | sed 's/spdadd/spdupdate/'
} >"$work/replaced"
must at left "$BIN/setkey" -f "$work/replaced"
closed "replacing" "$from"
sed 's/spdadd/spddelete/; s/ipsec.*/;/' "$work/many" >"$work/fewer"
must at left "$BIN/setkey" -f "$work/fewer"
i=0
while [ $i -lt 30 ]; do
	{ require 10.1.0.1 10.1.0.2; require fd00:1::1 fd00:1::2; } | sed 's/spdadd/spdupdate/' | setkey left
	i=$((i + 1))
done
sleep 0.3
closed "deleting the others" "$from"
protected "all that"
at left nft list counters table ip unnamed >"$work/unnamed"
equal "of a flow that no policy names, packets through kipsecd" "$(sed -n '/through/,/}/s/.*packets \([0-9]*\) .*/\1/p' "$work/unnamed")" 0
[ "$(sed -n '/around/,/}/s/.*packets \([0-9]*\) .*/\1/p' "$work/unnamed")" -gt 100 ] || fail "a flow that no policy names stands still"

step "keys come and go"
keys=$(now)
i=0
while [ $i -lt 10 ]; do
	{ echo "flush;"; transport_keys 10.1.0.1 10.1.0.2; transport_keys fd00:1::1 fd00:1::2; } | setkey left
	i=$((i + 1))
done
closed "keys" "$keys"

step "setkey -FP: in clear from then on, and not before"
before=$(now)
must at left "$BIN/setkey" -FP
all_open "flushed"
equal "in clear before the flush (out 4, out 6, in 4, in 6)" "$(seen "$keys" "$before" 2)" "0 0 0 0"
both | grep spdadd | setkey left
from=$(now)
sleep 0.3
closed "policies added again" "$from"

step "def_policy 0 without policies: neither in nor out, and back"
at left "$BIN/setkey" -FP
for f in inet/ipsec inet6/ipsec6; do at left sh -c "echo 0 >$(sys left)/net/$f/def_policy"; done
from=$(now)
sleep 0.3
closed "def_policy 0" "$from"
printf 'spdadd 10.1.0.9 10.1.0.2 any -P out none;' | setkey left
sleep 0.3
closed "def_policy 0 beside a policy" "$from"
both | grep spdadd | setkey left
for f in inet/ipsec inet6/ipsec6; do at left sh -c "echo 1 >$(sys left)/net/$f/def_policy"; done
sleep 0.3
closed "def_policy 1 again" "$from"

step "interfaces and addresses come and go"
from=$(now)
must at left ip link set to-right down
must at left ip link set to-right up
at left ip -6 addr add fd00:1::1/64 dev to-right nodad
must at left ip addr del 10.1.0.1/24 dev to-right
must at left ip addr add 10.1.0.1/24 dev to-right
must at left ip -6 addr del fd00:1::1/64 dev to-right
must at left ip -6 addr add fd00:1::1/64 dev to-right nodad
must at left ip link set to-right mtu 1400
must at left ip link set to-right mtu 1500
must at left ip route add 10.1.0.2/32 dev to-right
must at left ip route del 10.1.0.2/32 dev to-right
protected "interfaces and addresses"
closed "interfaces and addresses" "$from"

step "IPv6 is disabled, and enabled again"
from=$(now)
at left sh -c 'echo 1 >/proc/sys/net/ipv6/conf/all/disable_ipv6'
sleep 0.2
at left sh -c 'echo 0 >/proc/sys/net/ipv6/conf/all/disable_ipv6'
at left ip -6 addr add fd00:1::1/64 dev to-right nodad
protected "IPv6 again"
closed "IPv6 again" "$from"

step "enc0 is taken down, and brought up again"
from=$(now)
must at left ip link set enc0 down
sleep 0.3
must at left ip link set enc0 up
protected "enc0"
closed "enc0" "$from"

step "kill -9, and another start"
from=$(now)
run kill -9 "$(pid left)"
gone "$(pid left)" || :
sleep 0.5
closed "kill -9" "$from"
esp=$(now)
sleep 0.2
equal "ESP from a dead daemon" "$(between "$esp" "$(now)" wire ESP)" 0
must at left ip link set to-right down
must at left ip link set to-right up
at left ip -6 addr add fd00:1::1/64 dev to-right nodad
daemon left -f "$work/left.conf"
protected "another start"
closed "another start" "$from"

step "kill -9 under def_policy 0: all stays closed"
at left "$BIN/setkey" -FP
for f in inet/ipsec inet6/ipsec6; do at left sh -c "echo 0 >$(sys left)/net/$f/def_policy"; done
from=$(now)
run kill -9 "$(pid left)"
gone "$(pid left)" || :
sleep 0.3
daemon left -f "$work/left.conf"
protected "a start after that"
closed "kill -9 under def_policy 0" "$from"

step "an orderly stop: all is in clear again"
stop left
all_open "stopped"
