# shellcheck shell=sh
# What the shell tests share: hosts in network namespaces, daemons in them, sniffers on the wire, and a clean end.
#
# A test sources this file, builds a topology, and runs commands through `run`, which prints them first. Every name that
# it makes on the machine carries the shell's process id. Whatever happens, the trap takes everything away again.
set -eu

BIN=${BIN:-$(cd "$(dirname "$0")/.." && pwd)/bin}
work=$(mktemp -d "${TMPDIR:-/tmp}/kipsec-test.XXXXXX")
tag=k$$
namespaces=
background=
failures=0

exec 3>&1 # what the test says, also where a command's output goes elsewhere

say() { printf '%s\n' "$*" >&3; }
step() { printf '\n# %s\n' "$*" >&3; }

# skip REASON: this machine cannot run the test.
skip() {
	say "skipped: $*"
	exit 77
}

fail() {
	say "FAILED: $*"
	failures=$((failures + 1))
}

# run COMMAND...: print, then run.
run() {
	say "+ $*"
	"$@"
}

# must COMMAND...: print and run; a failure is the test's.
must() {
	run "$@" || fail "exit status $? of: $*"
}

# refuse COMMAND...: print and run; success is the test's failure.
refuse() {
	if run "$@"; then fail "succeeded: $*"; fi
}

# equal WHAT GOT WANT
equal() {
	[ "$2" = "$3" ] || fail "$1: got '$2', want '$3'"
}

# contains WHAT FILE PATTERN (a basic regular expression)
contains() {
	grep -q -e "$3" "$2" || {
		fail "$1: no '$3' in:"
		sed 's/^/    /' "$2" >&3
	}
}

# lacks WHAT FILE PATTERN
lacks() {
	! grep -q -e "$3" "$2" || {
		fail "$1: found '$3' in:"
		grep -e "$3" "$2" | head -5 | sed 's/^/    /' >&3
	}
}

# wait_for SECONDS COMMAND...: until the command succeeds.
wait_for() {
	tries=$(($1 * 20))
	shift
	while ! "$@" >/dev/null 2>&1; do
		tries=$((tries - 1))
		[ $tries -gt 0 ] || return 1
		sleep 0.05
	done
}

cleanup() {
	status=$?
	trap - EXIT INT TERM HUP PIPE
	for pid in $background; do ! child "$pid" || kill "$pid" 2>/dev/null || :; done
	for pid in $background; do ! child "$pid" || gone "$pid" || kill -9 "$pid" 2>/dev/null || :; done
	for ns in $namespaces; do
		"$BIN/kipsecd" -netns "$ns" -cleanup >/dev/null 2>&1 || :
		ip netns pids "$ns" 2>/dev/null | while read -r pid; do kill -9 "$pid" 2>/dev/null || :; done
		ip netns del "$ns" 2>/dev/null || :
	done
	rm -rf "$work"
	if [ $status -eq 0 ] && [ $failures -gt 0 ]; then
		say "$failures failed"
		status=1
	fi
	exit $status
}
trap cleanup EXIT
trap 'exit 130' INT TERM HUP PIPE

# child PID: this shell has started it. Of one that ended long ago another may have the number.
child() { grep -q "^PPid:[[:space:]]*$$\$" "/proc/$1/status" 2>/dev/null; }

# gone PID: wait up to three seconds for a process to end.
gone() {
	left=60
	while kill -0 "$1" 2>/dev/null; do
		left=$((left - 1))
		[ $left -gt 0 ] || return 1
		sleep 0.05
	done
}

# at HOST COMMAND...: run in the host's namespace. Hosts have short names (left); namespaces are $tag-left.
at() {
	host=$1
	shift
	ip netns exec "$tag-$host" "$@"
}

# behind NAME HOST COMMAND...: run in the host's namespace, in the background; `pid NAME` is the command's own.
behind() {
	process=$1 where=$2
	shift 2
	ip netns exec "$tag-$where" "$@" &
	started "$process"
}

# host NAME: a namespace with loopback up.
host() {
	ip netns add "$tag-$1" || skip "cannot make network namespaces (not root?)"
	namespaces="$namespaces $tag-$1"
	at "$1" ip link set lo up
	at "$1" sh -c 'echo 0 >/proc/sys/net/ipv6/conf/default/accept_dad'
}

# wire A B SUBNET: join two hosts. A gets interface to-B with 10.SUBNET.0.1 and fd00:SUBNET::1, B the addresses that end in 2.
wire() {
	ip -n "$tag-$1" link add "to-$2" type veth peer name "to-$1" netns "$tag-$2"
	at "$1" ip addr add "10.$3.0.1/24" dev "to-$2"
	at "$2" ip addr add "10.$3.0.2/24" dev "to-$1"
	at "$1" ip -6 addr add "fd00:$3::1/64" dev "to-$2" nodad
	at "$2" ip -6 addr add "fd00:$3::2/64" dev "to-$1" nodad
	at "$1" ip link set "to-$2" up
	at "$2" ip link set "to-$1" up
	# Linux takes a second or two until a new link answers neighbour solicitations.
	wait_for 5 at "$1" ping -c 1 -W 1 "fd00:$3::2" || fail "the wire between $1 and $2 carries no IPv6"
}

# two_hosts:   left (10.1.0.1, fd00:1::1) ── right (10.1.0.2, fd00:1::2)
two_hosts() {
	host left
	host right
	wire left right 1
}

# two_sites:   siteA ── gwA ── gwB ── siteB     10.11.0.1|.2   10.1.0.1|.2   10.12.0.1|.2, IPv6 alike
two_sites() {
	for h in siteA gwA gwB siteB; do host $h; done
	wire siteA gwA 11
	wire gwA gwB 1
	wire gwB siteB 12
	at siteA ip route add default via 10.11.0.2
	at siteA ip -6 route add default via fd00:11::2
	at siteB ip route add default via 10.12.0.1
	at siteB ip -6 route add default via fd00:12::1
	at gwA ip route add default via 10.1.0.2
	at gwA ip -6 route add default via fd00:1::2
	at gwB ip route add default via 10.1.0.1
	at gwB ip -6 route add default via fd00:1::1
	for h in gwA gwB; do
		at $h sh -c 'echo 1 >/proc/sys/net/ipv4/ip_forward; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding'
	done
}

# daemon HOST FLAG...: start kipsecd for the host and wait until it says that it is ready. $KIPSEC_WIRE, if set, chooses its
# wire.
daemon() {
	on=$1
	shift
	rm -f "$work/$on.log" # of the one before
	"$BIN/kipsecd" -netns "$tag-$on" ${KIPSEC_WIRE:+-wire "$KIPSEC_WIRE"} "$@" >"$work/$on.log" 2>&1 &
	started "$on"
	if ! wait_for 10 grep -q ready "$work/$on.log"; then
		sed 's/^/    /' "$work/$on.log"
		say "FAILED: kipsecd on $on did not get ready"
		exit 1
	fi
}

# started HOST: the last background command is the host's daemon.
started() {
	echo $! >"$work/$1.pid"
	background="$background $!"
}

# pid HOST: of its daemon.
pid() { cat "$work/$1.pid"; }

# stop HOST: end its daemon in order.
stop() {
	kill "$(pid "$1")"
	gone "$(pid "$1")" || fail "kipsecd on $1 does not stop"
}

# sys HOST: where the host's tree is mounted.
sys() { printf '/run/kipsec/%s/sys' "$tag-$1"; }

# setkey HOST: read commands from standard input.
setkey() { at "$1" "$BIN/setkey" -c; }

# sniff HOST INTERFACE NAME [FILTER]: write what passes to $work/NAME.
sniff() {
	where=$1 dev=$2 capture=$3
	shift 3
	behind "$capture" "$where" tcpdump --immediate-mode -U -l -n -i "$dev" "$@" >"$work/$capture" 2>"$work/$capture.err"
	wait_for 5 grep -q listening "$work/$capture.err" || fail "tcpdump does not start: $(cat "$work/$capture.err")"
}

# sniffed NAME: end the sniffer when it has written what passed until now; its lines are in $work/NAME.
sniffed() {
	sleep 0.2 # packets may still be on their way to the wire
	wait_for 10 written "$1" || fail "the sniffer of $1 does not come to an end: $(tail -1 "$work/$1.err")"
	! child "$(pid "$1")" || kill "$(pid "$1")" || :
	gone "$(pid "$1")" || :
	sed -i '/^$/d' "$work/$1" # tcpdump ends its output with an empty line
}

# sees NAME COUNT [PATTERN]: wait until the sniffer has written so many packets that match.
sees() {
	wait_for 5 lines "$work/$1" "$2" "${3:-.}" || fail "the sniffer has $(grep -c -e "${3:-.}" "$work/$1") packets of ${3:-any kind}, want $2"
}
lines() { [ "$(grep -c -e "$3" "$1")" -ge "$2" ]; }

# written NAME: the sniffer has written as many packets as the kernel has for it. Of a packet on lo the kernel has two; one that came
# before there was a filter is counted and never written, so ten answers alike will do too.
written() {
	told=$(wc -l <"$work/$1.err")
	child "$(pid "$1")" || return 0
	kill -USR1 "$(pid "$1")"
	looks=0
	while [ "$(wc -l <"$work/$1.err")" = "$told" ]; do
		looks=$((looks + 1))
		[ $looks -lt 100 ] || return 1
		sleep 0.01
	done
	[ "$(tail -n 10 "$work/$1.err" | sort -u | wc -l)" != 1 ] || return 0
	tail -n 1 "$work/$1.err" | sed 's/[^0-9]*\([0-9]*\)[^0-9]*\([0-9]*\)[^0-9]*\([0-9]*\).*/\1 \2 \3/' | {
		read -r captured received dropped
		[ $((captured + dropped)) -ge "$received" ] || { grep -q 'listening on lo,' "$work/$1.err" && [ $((2 * captured + dropped)) -ge "$received" ]; }
	}
}

# listen HOST NAME [-u] ADDRESS PORT: nc writes what it receives over TCP, or UDP, to $work/NAME.
listen() {
	where=$1 heard=$2
	shift 2
	behind "$heard" "$where" nc -n -v -l "$@" >"$work/$heard" 2>"$work/$heard.err"
	wait_for 5 grep -q -e ^Listening -e ^Bound "$work/$heard.err" || fail "nc -l $* on $where: $(cat "$work/$heard.err")"
}

# helper NAME [SUFFIX]: the path of a program of this directory. Who runs many scripts has built them once, in $HELPERS.
helper() {
	built=${HELPERS:-$work}/$1${2:-}
	[ -x "$built" ] || CGO_ENABLED=0 go build -C "$(dirname "$0")/.." -o "$built" "./tests/$1" || return 1
	echo "$built"
}

# Keys of the tests.
key_gcm="0x000102030405060708090a0b0c0d0e0f10111213"
key_gcm_back="0x202122232425262728292a2b2c2d2e2f30313233"

# transport_keys A B: a pair of SAs between two addresses, the same on both ends.
transport_keys() {
	cat <<-EOF
		add $1 $2 esp 0x1001 -m transport -r 4 -E aes-gcm-16 $key_gcm;
		add $2 $1 esp 0x1002 -m transport -r 4 -E aes-gcm-16 $key_gcm_back;
	EOF
}

# require A B: transport policies on the host that owns A.
require() {
	cat <<-EOF
		spdadd $1 $2 any -P out ipsec esp/transport//require;
		spdadd $2 $1 any -P in ipsec esp/transport//require;
	EOF
}

[ "$(id -u)" = 0 ] || skip "needs root"
[ -c /dev/net/tun ] || skip "no /dev/net/tun"
[ -c /dev/fuse ] || skip "no /dev/fuse"
