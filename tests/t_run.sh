#!/bin/sh
# kipsec-run: the program is the process that was started, with its signals and its status; what it asks of the kernel is answered,
# whatever it is and becomes.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
here=$(cd "$(dirname "$0")" && pwd)
probe=$(helper probe) || skip "no go to build the probe with"
two_hosts
run=$BIN/kipsec-run
client() { echo "/usr/bin/python3 $here/kernel_client.py"; }

# status WANT COMMAND...: of a command on the left
status() {
	want=$1 got=0
	shift
	say "+ $*"
	at left "$@" || got=$?
	equal "exit status of: $*" $got "$want"
}

# ask WANT SUBCOMMAND...: what the client prints on the left, under kipsec-run
ask() {
	want=$1
	shift
	say "+ kipsec-run kernel_client.py $*"
	# shellcheck disable=SC2046 # two words
	equal "$*" "$(at left "$run" $(client) "$@" 2>&1)" "$want"
}

# supervisors HOST: their process ids
supervisors() {
	ip netns pids "$tag-$1" | while read -r p; do
		if tr '\0' ' ' <"/proc/$p/cmdline" 2>/dev/null | grep -q '^kipsec-run \[supervisor\]'; then echo "$p"; fi
	done
}
alone() { [ -z "$(supervisors left)" ]; }

step "options"
must "$run" -h >"$work/help"
contains "-h" "$work/help" "^usage: kipsec-run"
must "$run" -V
status 125 "$run" 2>"$work/err"
status 125 "$run" -z true 2>"$work/err"
contains "the error" "$work/err" "unknown option -z"
status 125 "$run" -k 2>"$work/err"

step "the exit status is the program's"
status 0 "$run" true
status 7 "$run" sh -c 'exit 7'
status 0 "$run" -- echo "behind --"
status 127 "$run" no-such-program 2>"$work/err"
status 127 "$run" ./no/such/program 2>"$work/err"
status 126 "$run" /etc 2>"$work/err"
# shellcheck disable=SC2016 # the script's own variable
echo 'echo "a script, $1"; exit 4' >"$work/script"
status 126 "$run" "$work/script" 2>"$work/err"
chmod +x "$work/script"
status 4 "$run" "$work/script" "of sh" >"$work/out"
equal "the script" "$(cat "$work/out")" "a script, of sh"
status 137 "$run" sh -c 'kill -9 $$'
status 125 "$run" "$run" true 2>"$work/err"
contains "kipsec-run in kipsec-run" "$work/err" "another supervisor"

step "it is the process that was started: input, output, descriptors, signals; it has no children that it did not make"
equal "input and output" "$(echo through | at left "$run" cat)" through
at left "$run" sh -c 'echo five >&5' 5>"$work/five"
equal "descriptor 5" "$(cat "$work/five")" five
behind own left "$run" sh -c 'trap "echo got USR1; exit 9" USR1; echo $$; while :; do sleep 0.05; done' >"$work/own"
wait_for 5 test -s "$work/own"
equal "process id" "$(cat "$work/own")" "$(pid own)"
kill -USR1 "$(pid own)"
got=0
wait "$(pid own)" || got=$?
equal "status after a signal" $got 9
contains "the trap" "$work/own" "got USR1"
behind sleeper left "$run" sleep 60
sleep 0.3
kill "$(pid sleeper)"
got=0
wait "$(pid sleeper)" || got=$?
equal "status of a killed program" $got 143
ask "orphan ECHILD" orphan
wait_for 5 alone || fail "supervisors outlive their programs: $(supervisors left)"

step "without kipsecd"
ask "socket EAFNOSUPPORT" socket
at left "$run" /usr/bin/python3 "$here/kernel_client.py" options >"$work/options"
contains "a policy" "$work/options" "^v4 in bypass ENOTSUP"

step "PF_KEY sockets"
daemon left
daemon right
ask "socket fd" socket raw
ask "socket fd nonblock cloexec" socket raw+nonblock+cloexec
ask "socket fd cloexec" socket raw+cloexec
ask "socket ESOCKTNOSUPPORT" socket dgram
ask "socket EPROTONOSUPPORT" socket raw 1
ask "socket EINVAL" socket raw+junk
ask "full EMFILE" full
ask "peek ok" peek 500
ask "poll ok" poll 500

step "each network namespace has its own kernel"
at left "$BIN/setkey" -c <<-END
	spdadd 10.9.0.1 10.9.0.2 any -P out none;
END
ask "spd 1" spd
# shellcheck disable=SC2046 # two words
{
	equal "in a namespace that the program enters" "$(at left "$run" ip netns exec "$tag-right" $(client) spd)" "spd 0"
	equal "-k" "$(at left "$run" -k "$tag-right" $(client) spd)" "spd 0"
	equal "\$KIPSEC" "$(at left env KIPSEC="$tag-right" "$run" $(client) spd)" "spd 0"
	equal "-k of one that does not run" "$(at left "$run" -k "$tag-none" $(client) socket)" "socket EAFNOSUPPORT"
}

step "privilege"
ask "the open one ok
its answer (7, 0)
a new one EPERM
bypass EACCES
entrust ok
UDP_ENCAP ok
drop ok" drop
nobody="setpriv --reuid=65534 --regid=65534 --clear-groups"
# shellcheck disable=SC2046,SC2086 # words
{
	equal "nobody" "$(at left "$run" $nobody $(client) socket)" "socket EPERM"
	equal "nobody with CAP_NET_ADMIN" \
		"$(at left "$run" $nobody --inh-caps=+net_admin --ambient-caps=+net_admin $(client) socket)" "socket fd"
	equal "nobody runs kipsec-run" "$(at left $nobody "$run" $(client) socket)" "socket EPERM"
	if [ "$(cat /proc/sys/kernel/yama/ptrace_scope 2>/dev/null || echo 0)" = 0 ]; then
		at left $nobody "$run" $(client) options >"$work/options"
		contains "nobody's socket" "$work/options" "^v4 out bypass EACCES"
		contains "nobody's socket" "$work/options" "^v4 out entrust ok"
		contains "nobody's socket" "$work/options" "^UDP_ENCAP is 2"
	fi
	equal "a way to more privilege, of nobody" "$(at left $nobody "$run" grep NoNewPrivs /proc/self/status | cut -f 2)" 1
	equal "a way to more privilege, of root" "$(at left "$run" grep NoNewPrivs /proc/self/status | cut -f 2)" 0
}

step "options of sockets"
ask "v4 in bypass ok
v4 out bypass ok
v4 out is (2, 18, 4, 2)
v4 out entrust ok
v4 out is (2, 18, 3, 2)
v4 in is (2, 18, 4, 1)
v6 in bypass ok
v6 out bypass ok
v6 out is (2, 18, 4, 2)
v6 out entrust ok
v6 out is (2, 18, 3, 2)
v6 in is (2, 18, 4, 1)
v4 on v6 in bypass ok
v4 on v6 out bypass ok
v4 on v6 out is (2, 18, 4, 2)
v4 on v6 out entrust ok
v4 on v6 out is (2, 18, 3, 2)
v4 on v6 in is (2, 18, 4, 1)
tcp in bypass ok
tcp out bypass ok
tcp out is (2, 18, 4, 2)
tcp out entrust ok
tcp out is (2, 18, 3, 2)
tcp in is (2, 18, 4, 1)
short EINVAL
long EMSGSIZE
discard EINVAL
direction 3 EINVAL
v6 on v4 ENOPROTOOPT
room for 15 EINVAL
UDP_ENCAP 2 ok
UDP_ENCAP is 2
UDP_ENCAP 0 ok
UDP_ENCAP is 0
UDP_ENCAP 1 EINVAL
UDP_ENCAP is 0
UDP_ENCAP 3 EINVAL
UDP_ENCAP is 0
UDP_ENCAP of three bytes EINVAL
UDP_ENCAP, room for one b'\\x02'
UDP_ENCAP of the other 0
UDP_ENCAP of TCP ENOPROTOOPT
no socket ENOTSOCK
no descriptor EBADF
wild pointer EFAULT
wild policy EFAULT
wild length EFAULT
options ok" options

step "the policy of a socket takes effect"
transport_keys 10.1.0.1 10.1.0.2 | setkey left
transport_keys fd00:1::1 fd00:1::2 | setkey left
for address in 10.1.0.2 fd00:1::2; do
	sniff right to-left wire "esp or udp"
	ask "send ok" send $address
	sees wire 2
	sniffed wire
	equal "packets to $address" "$(sed -n 's/.*> [0-9a-f.:]*[.:]\(100[12]\): UDP.*/\1/p; s/.* ESP(spi=\([^,]*\).*/\1/p' "$work/wire" | sort | tr '\n' ' ')" \
		"0x00001001 1002 "
done

step "static programs, in a chroot with nothing else, of other processors, with many callers"
mkdir "$work/root"
cp "$probe" "$work/root/probe"
equal "static" "$(at left "$run" "$probe")" ok
equal "in a chroot" "$(at left "$run" chroot "$work/root" /probe)" ok
if [ "$(uname -m)" = x86_64 ]; then
	probe32=$(GOARCH=386 helper probe 386) || fail "no probe of 32 bits"
	equal "32 bits without kipsec-run" "$(at left "$probe32")" "probe: socket: address family not supported by protocol"
	equal "32 bits" "$(at left "$run" "$probe32")" ok
fi

mkfifo "$work/orders"
exec 9<>"$work/orders"
# shellcheck disable=SC2016 # the variables are the inner shell's
behind many left "$run" sh -c 'while read -r order; do $order; echo did "$order"; done <"$0"' "$work/orders" >"$work/many"
# order COMMAND...: let it run in the program that is under kipsec-run all the time
order() {
	say "+ $*"
	echo "$*" >&9
	wait_for 60 grep -q -x -e "did $*" "$work/many" || fail "no end of: $*"
}
order "$probe" 4 10
supervisor=$(supervisors left)
descriptors() { find "/proc/$supervisor/fd" -type l | wc -l; }
threads() { find "/proc/$supervisor/task" -mindepth 1 -maxdepth 1 | wc -l; }
before=$(descriptors)
order "$probe" 64 50
equal "programs that were content" "$(grep -c -x ok "$work/many")" 2
for _ in 1 2 3; do order timeout -s KILL 0.3 "$probe" 64 100000; done
order "$probe" 1 1
equal "programs that were content, after others were killed" "$(grep -c -x ok "$work/many")" 3
wait_for 3 test "$(descriptors)" -le "$before" || fail "$(descriptors) descriptors of the supervisor, were $before"
[ "$(threads)" -le 100 ] || fail "$(threads) threads of the supervisor"

step "other calls do not meet the supervisor"
kill -STOP "$supervisor"
order "$(client)" plain
contains "calls while it is stopped" "$work/many" "^plain ok"
kill -CONT "$supervisor"

step "signals that end programs do not end the supervisor; when it is killed, calls fail"
kill -TERM "$supervisor"
kill -HUP "$supervisor"
order "$(client)" socket raw
contains "after signals" "$work/many" "^socket fd"
kill -KILL "$supervisor"
gone "$supervisor" || :
order "$(client)" socket raw+cloexec
contains "without a supervisor" "$work/many" "^socket ENOSYS"
exec 9>&-
kill "$(pid many)"

step "a program that goes into the background keeps its supervisor, and no one else waits for it"
# shellcheck disable=SC2016 # the variables are the inner shell's
daemonise='setsid sh -c "sleep 1; exec $0 >$1" </dev/null >/dev/null 2>&1 & exit 3'
got=0
out=$(at left timeout 5 "$run" sh -c "echo started; $daemonise" "$probe" "$work/daemon") || got=$?
equal "its output" "$out" started
equal "its status" $got 3
[ -n "$(supervisors left)" ] || fail "the supervisor is gone already"
wait_for 5 grep -q ok "$work/daemon" || fail "no PF_KEY in the background"
wait_for 5 alone || fail "supervisors outlive their programs: $(supervisors left)"
