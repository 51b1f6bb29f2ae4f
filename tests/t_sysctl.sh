#!/bin/sh
# sysctl(8): the kernel of the namespace that it runs in, the output of BSD, and everything else from /proc/sys.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right
s="$BIN/sysctl"

# prints WANT COMMAND...
prints() {
	want=$1
	shift
	got=$("$@" 2>&1) && code=0 || code=$?
	equal "$*" "$code $got" "$want"
}

step "reading and setting"
prints "0 net.inet.ipsec.dfbit = 0" at left "$s" net.inet.ipsec.dfbit
prints "0 net.inet.ipsec.dfbit = 0" at left "$s" net/inet/ipsec/dfbit
prints "0 net.inet.ipsec.dfbit: 0 -> 2" at left "$s" -w net.inet.ipsec.dfbit=2
prints "0 net.inet.ipsec.dfbit: 2 -> 1" at left "$s" net.inet.ipsec.dfbit=1
prints "0 1" at left "$s" -n net.inet.ipsec.dfbit
prints "0 net.inet.ipsec.dfbit" at left "$s" -N net.inet.ipsec.dfbit
prints "0 " at left "$s" -q -w net.inet.ipsec.dfbit=0
prints "0 0" at left "$s" -n net.inet.ipsec.dfbit
prints "0 0" at right "$s" -n net.inet.ipsec.dfbit

step "subtrees and descriptions"
must at left "$s" net.inet.ipsec >"$work/tree"
contains subtree "$work/tree" '^net.inet.ipsec.def_policy = 1$'
contains subtree "$work/tree" '^net.inet.ipsec.stats.in_success = 0$'
lacks subtree "$work/tree" ipsec6
must at left "$s" -a >"$work/all"
for name in net.inet.ipsec.ecn net.inet6.ipsec6.ecn net.key.spi_minval net.ipv4.ip_forward; do
	contains "sysctl -a" "$work/all" "^$name = "
done
must at left "$s" -d net.inet.ipsec.dfbit >"$work/doc"
contains description "$work/doc" "DF bit"

step "errors"
for bad in "-w net.inet.ipsec.dfbit=9" "net.inet.ipsec.nonsense" "-w net.inet.ipsec.dfbit" "-w net.inet.ipsec.stats.in_success=1" \
	"-f /no/such/file" "--no-such-option"; do
	# shellcheck disable=SC2086 # words of a command line
	refuse at left "$s" $bad >/dev/null 2>"$work/err"
	contains "sysctl $bad" "$work/err" "^sysctl: "
done
refuse at left "$s" >/dev/null 2>&1
must at left "$s" -e net.inet.ipsec.nonsense
prints "0 0" at left "$s" -n net.inet.ipsec.dfbit

step "files"
printf '# c\n; c\nnet.inet.ipsec.dfbit = 2\n-net.inet.ipsec.nonsense=1\nnet.inet6.ipsec6.ecn=1\n' >"$work/conf"
must at left "$s" -p "$work/conf" >/dev/null
prints "0 2" at left "$s" -n net.inet.ipsec.dfbit
prints "0 1" at left "$s" -n net.inet6.ipsec6.ecn
printf 'net.inet.ipsec.dfbit=77\nnet.inet.ipsec.ecn=1\n' >"$work/conf"
refuse at left "$s" -f "$work/conf" >/dev/null 2>&1
prints "0 1" at left "$s" -n net.inet.ipsec.ecn

step "names that are not ours"
must at left "$s" -w net.ipv4.ip_default_ttl=77 >/dev/null
equal "the kernel's variable" "$(at left cat /proc/sys/net/ipv4/ip_default_ttl)" 77
prints "0 net.ipv4.ip_default_ttl = 77" at left "$s" net.ipv4.ip_default_ttl
prints "0 77" at left "$s" -n net/ipv4/ip_default_ttl

step "no daemon, and another kernel by name"
stop right
refuse at right "$s" net.inet.ipsec.dfbit 2>"$work/err"
contains "without a daemon" "$work/err" "no kipsecd"
prints "0 2" at right "$s" -k "$tag-left" -n net.inet.ipsec.dfbit
prints "0 2" at right env KIPSEC="$tag-left" "$s" -n net.inet.ipsec.dfbit
must at right "$s" -n net.ipv4.ip_forward

step "a daemon that was started by ip netns exec is found too"
behind right right "$BIN/kipsecd" >"$work/right.log" 2>&1
wait_for 10 grep -q ready "$work/right.log" || fail "not ready: $(cat "$work/right.log")"
prints "0 0" at right "$s" -n net.inet.ipsec.dfbit
must at right "$s" -w net.inet.ipsec.dfbit=1 >/dev/null
equal "its tree, seen from outside" "$(cat "$(sys right)/net/inet/ipsec/dfbit")" 1
stop right
equal "its mount after the stop" "$(grep -c "kipsec/$tag-right" /proc/self/mountinfo)" 0
