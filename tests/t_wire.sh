#!/bin/sh
# The fast wire and the raw one: which is used when, and that none of it changes what passes. The judges are sniffers,
# foreign firewall rules and the counters of the wire.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
unset KIPSEC_WIRE
two_hosts
at left nft list ruleset >/dev/null 2>&1 || skip "nft does not work here"

# wired HOST DIRECTION WIRE: wait until the wire is used.
wired() {
	wait_for 8 sh -c "grep -qx $3 '$(sys "$1")/net/inet/ipsec/wire/$2'" || fail "wire.$2 of $1 is $(cat "$(sys "$1")/net/inet/ipsec/wire/$2"), want $3"
}

# programs HOST DEVICE: how many programs take packets there, in front of the stack; nothing where the kernel has no place for them.
here=$(cd "$(dirname "$0")" && pwd)
programs() { at "$1" python3 "$here/tcx.py" count "$2" 2>/dev/null || :; }
stand() { [ "$(programs "$1" "$2")" = "$3" ]; }
case $(programs left to-right) in 0) takes=tcx ;; *) takes=packet ;; esac

# counter HOST NAME
counter() { cat "$(sys "$1")/net/inet/ipsec/wire/$2"; }

# both_ways: ping and TCP through all that protects
both_ways() {
	for to in 10.1.0.2 fd00:1::2; do
		must at left ping -c 3 -i 0.05 -W 2 -s 1200 "$to" >/dev/null
		must at left ping -c 1 -W 2 -s 6000 "$to" >/dev/null
		listen right got "$to" 4000
		at left timeout 10 nc -N "$to" 4000 <"$work/data" || fail "TCP to $to"
		wait_for 10 cmp "$work/data" "$work/got" || fail "TCP data to $to differs"
	done
}

# keys PROTO PORT: for both hosts, of tunnels
keys() {
	for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
		# shellcheck disable=SC2086 # two words
		set -- "$1" "${2:-}" $pair
		cat <<-END
			add $3$2 $4$2 $1 0x1001 -m transport -r 32 -E aes-gcm-16 $key_gcm;
			add $4$2 $3$2 $1 0x1002 -m transport -r 32 -E aes-gcm-16 $key_gcm_back;
		END
	done
}
protect() {
	for h in left right; do
		{ echo "flush; spdflush;"; keys "$@"; } | setkey $h
	done
	for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
		require "${pair% *}" "${pair#* }" | setkey left
		require "${pair#* }" "${pair% *}" | setkey right
	done
}

head -c 2000000 /dev/urandom >"$work/data"
for wires in "fast packet" "packet raw" "raw fast" "auto auto"; do
	daemon left -wire "${wires% *}"
	daemon right -wire "${wires#* }"
	for proto in "esp" "esp-udp [4500]" "esp-udp [4600]"; do
		step "${wires% *} wire to ${wires#* } wire: $proto"
		# shellcheck disable=SC2086 # a word or two
		protect $proto
		wait_for 5 at left ping -c 1 -W 1 10.1.0.2 || fail "nothing passes"
		sniff right to-left wire "host 10.1.0.1 and not arp"
		both_ways
		sniffed wire
		if [ "$proto" = esp ]; then # tcpdump knows no port of ESP but 4500
			equal "packets that are not ESP" "$(grep -vcE 'ESP|ip-proto-50' "$work/wire")" 0
		fi
	done
	case $wires in
	fast* | packet*)
		[ "$(counter left sent)" -gt 1000 ] || fail "the fast wire sent $(counter left sent)"
		[ "$(counter left received)" -gt 100 ] || fail "the fast wire received $(counter left received)"
		;;
	raw*) equal "sent over the fast wire" "$(counter left sent)" 0 ;;
	esac
	equal "replayed packets" "$(at right "$BIN/sysctl" -n net.inet.ipsec.stats.in_espreplay)" 0
	case $wires in
	raw*) takes_now=none standing=0 ;;
	packet*) takes_now=packet standing=0 ;;
	*) takes_now=$takes standing=1 ;;
	esac
	equal "what takes packets" "$(counter left hook)" $takes_now
	if [ $takes != packet ]; then
		# Nothing stands in the way of others that no SA is for, and now all are in UDP.
		equal "programs" "$(programs left to-right)" 0
		protect esp
		wait_for 5 stand left to-right $standing || fail "there are $(programs left to-right) programs, want $standing"
	fi
	[ "$wires" = "auto auto" ] || { stop left; stop right; }
done
protect esp

step "auto: rules of others are not gone past"
wired left in fast
wired left out fast
must at left nft -f - <<'END'
table inet mine {
	chain in { type filter hook input priority 0; ip protocol esp counter drop; }
}
END
wired left in raw
refuse at left ping -c 1 -W 1 10.1.0.2 >/dev/null
must at left nft delete table inet mine
wired left in fast
must at left ping -c 1 -W 2 10.1.0.2 >/dev/null
must at left nft -f - <<'END'
table ip mine {
	chain out { type filter hook output priority 0; ip protocol esp counter drop; }
}
END
wired left out raw
refuse at left ping -c 1 -W 1 10.1.0.2 >/dev/null
must at left nft flush chain ip mine out
wired left out fast
must at left ping -c 1 -W 2 10.1.0.2 >/dev/null
at left tc qdisc add dev to-right clsact 2>/dev/null && wired left in raw && at left tc qdisc del dev to-right clsact
wired left in fast

behind other left python3 -c 'import socket, time
s = socket.socket(socket.AF_INET, socket.SOCK_RAW, 50)
time.sleep(60)'
wired left in raw # within five seconds: nobody tells of a socket
kill "$(pid other)"
wired left in fast

if [ $takes = tcx ]; then
	behind other left python3 "$here/tcx.py" stand to-right
	wired left in raw
	equal "programs" "$(programs left to-right)" 1
	kill "$(pid other)"
	wired left in fast
	equal "programs" "$(programs left to-right)" 1
fi

step "enabled 0 leaves ESP to the stack"
at left "$BIN/sysctl" -q -w net.inet.ipsec.enabled=0
wired left in raw
at left "$BIN/sysctl" -q -w net.inet.ipsec.enabled=1
wired left in fast

step "interfaces and addresses come and go, and the ruleset is flushed"
echo "add 10.77.0.1[4500] 10.77.0.2[4500] esp-udp 0x7001 -E aes-gcm-16 $key_gcm;" | setkey left # there are rules for what is in UDP
must at left ip addr add 10.1.0.3/24 dev to-right
must at left ip link set to-right down
must at left ip link set to-right up
at left ip -6 addr add fd00:1::1/64 dev to-right nodad 2>/dev/null || : # where Linux keeps none on links that are down
wired left in fast
must at left nft flush ruleset
wait_for 8 at left nft list table netdev kipsec || fail "the ingress rules are gone"
wait_for 5 at left ping -c 1 -W 1 10.1.0.2 || fail "nothing passes"
at left ip link add new type veth peer name new netns "$tag-right"
at left ip addr add 10.2.0.1/24 dev new
at right ip addr add 10.2.0.2/24 dev new
at left ip link set new up
at right ip link set new up
wait_for 5 sh -c "ip netns exec $tag-left nft list table netdev kipsec | grep -q 10.2.0.1" || fail "the new address is not served"
wait_for 5 sh -c "ip netns exec $tag-left nft list table netdev kipsec | grep -q '\"new\"'" || fail "the new interface is not served"
{ transport_keys 10.2.0.1 10.2.0.2 | sed 's/0x100/0x200/'; require 10.2.0.1 10.2.0.2; } | setkey left
{ transport_keys 10.2.0.1 10.2.0.2 | sed 's/0x100/0x200/'; require 10.2.0.2 10.2.0.1; } | setkey right
before=$(counter left received)
must at left ping -c 20 -i 0.01 -W 2 10.2.0.2 >/dev/null
[ $(($(counter left received) - before)) -ge 20 ] || fail "the new interface is not on the fast wire"
at left ip link del new
must at left ping -c 1 -W 2 10.1.0.2 >/dev/null

step "a flood finds the memory bounded, and PF_KEY and the mount answer"
traffic=$(helper traffic) || fail "no go to build the traffic with"
for w in raw packet fast; do
	stop left
	daemon left -wire $w -memory 32
	protect esp
	wait_for 5 at left ping -c 1 -W 1 10.1.0.2 || fail "nothing passes"
	for size in 60 1400 20000 60000; do
		for to in 10.1.0.2 fd00:1::2; do
			at right timeout 2 ping -q -f -s $size "$([ $to = 10.1.0.2 ] && echo 10.1.0.1 || echo fd00:1::1)" >/dev/null 2>&1 &
			at left timeout 2 ping -q -f -s $size $to >/dev/null 2>&1 &
		done
	done
	must "$traffic" answers "/run/kipsec/$tag-left/pfkey" "$(sys left)/net/inet/ipsec/dfbit" 1.5
	sleep 1
	peak=$(sed -n 's/^VmHWM:[^0-9]*\([0-9]*\) kB/\1/p' "/proc/$(pid left)/status")
	say "$w wire: at most $peak kB"
	[ "$peak" -lt 32768 ] || fail "the process had $peak kB, with a budget of 32 MiB"
	must at left ping -c 1 -W 2 10.1.0.2 >/dev/null
done
refuse "$BIN/kipsecd" -netns "$tag-left" -memory 1 2>/dev/null

step "a killed daemon's program is gone, its rules let no ESP in, until the next start or -cleanup"
kill -9 "$(pid left)"
gone "$(pid left)" || :
[ $takes = packet ] || equal "programs of the dead" "$(programs left to-right)" 0
keys esp >"$work/keys"
daemon left -wire packet -f "$work/keys"
kill -9 "$(pid left)"
gone "$(pid left)" || :
must at left nft list table netdev kipsec >"$work/rules"
contains "the rules of the dead" "$work/rules" "@local32 .*drop"
daemon left -wire raw
refuse at left nft list table netdev kipsec >/dev/null 2>&1
kill -9 "$(pid left)"
gone "$(pid left)" || :
must "$BIN/kipsecd" -netns "$tag-left" -cleanup
daemon left -wire packet
must at left nft list table netdev kipsec >/dev/null
kill -9 "$(pid left)"
gone "$(pid left)" || :
must "$BIN/kipsecd" -netns "$tag-left" -cleanup
refuse at left nft list table netdev kipsec >/dev/null 2>&1
for w in fast packet; do
	daemon left -wire $w
	stop left
	refuse at left nft list table netdev kipsec >/dev/null 2>&1
	[ $takes = packet ] || equal "programs" "$(programs left to-right)" 0
done
refuse "$BIN/kipsecd" -netns "$tag-left" -wire slow 2>"$work/err"
if unshare -Urnm true 2>/dev/null; then # where nobody may load a program
	refuse timeout 20 unshare -Urnm sh -c "mount -t tmpfs tmpfs /run && exec '$BIN/kipsecd' -wire tcx" 2>"$work/err"
	equal "lines" "$(wc -l <"$work/err")" 1
	contains "the error" "$work/err" "^kipsecd: no program at tcx: "
fi
