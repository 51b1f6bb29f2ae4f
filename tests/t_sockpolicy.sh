#!/bin/sh
# Policies of sockets: what a program asks for its own packets, over what the SPD says.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
docs=$(dirname "$0")/../docs
two_hosts
daemon left
daemon right
# on HOST ARGUMENT...: a program with policies on its sockets
on() {
	where=$1
	shift
	at "$where" env SOCKOPT="/run/kipsec/$tag-$where/sockopt" /usr/bin/python3 "$(dirname "$0")/sockpol.py" "$@"
}
# nobody COMMAND...: without privilege; later COMMAND...: without privilege when it has made its sockets
nobody() {
	export NOBODY=early
	"$@"
	unset NOBODY
}
later() {
	export NOBODY=late
	"$@"
	unset NOBODY
}
# answered ARGUMENT...: the same on the left
answered() { must on left "$@"; }
# unanswered ARGUMENT...: the same, in the background; silence waits for all of them, and none may have got an answer.
waiting=
unanswered() {
	say "+ $* # no answer"
	{ PATIENCE=0.5 on left "$@" && echo "$*" >>"$work/answers"; } &
	waiting="$waiting $!"
}
silence() {
	for each in $waiting; do wait "$each" || :; done
	waiting=
	[ ! -e "$work/answers" ] || fail "got an answer: $(cat "$work/answers")"
	rm -f "$work/answers"
}
# server HOST NAME ARGUMENT...: the same in the background
server() {
	where=$1 name=$2
	shift 2
	SOCKOPT="/run/kipsec/$tag-$where/sockopt" behind "$name" "$where" /usr/bin/python3 "$(dirname "$0")/sockpol.py" serve "$@" >"$work/$name"
	wait_for 5 grep -q serving "$work/$name" || fail "$name does not start"
}
end() {
	kill "$(pid "$1")"
	gone "$(pid "$1")" || fail "$1 does not end"
}

step "anybody may ask, for what he may have"
on left try 4 "in bypass" "out bypass" >"$work/root"
equal "root" "$(tail -1 "$work/root")" "in bypass, out bypass"
on left try 6 "out bypass" "out discard" "in none" "fwd bypass" "out entrust" >"$work/root6"
equal "root" "$(cat "$work/root6")" "ok out bypass
EINVAL out discard
EINVAL in none
EINVAL fwd bypass
ok out entrust
in entrust, out entrust"
nobody on left try 4 "in bypass" "out entrust" >"$work/nobody"
equal "nobody" "$(cat "$work/nobody")" "EACCES in bypass
ok out entrust
in entrust, out entrust"

if command -v gcc >/dev/null 2>&1; then
	step "the same from C"
	run gcc -std=c11 -D_GNU_SOURCE -Wall -Wextra -Wpedantic -Werror -I"$docs" -o "$work/program" \
		"$docs/ipsec_sockopt_example.c" "$docs/ipsec_sockopt.c" || fail "docs/ipsec_sockopt.c does not compile"
	at left "$work/program" 6 "in bypass" "out ipsec esp/transport//require" "out nonsense" >"$work/c"
	equal "a C program" "$(cat "$work/c")" "in bypass: ok
out ipsec esp/transport//require: ok
out nonsense: Invalid argument
in bypass, out ipsec esp/transport//require"
	host alone
	at alone "$work/program" 4 "in entrust" >"$work/c" 2>&1 || :
	contains "without kipsecd" "$work/c" "in entrust: No such file"
else
	say "no gcc: docs/ipsec_sockopt.c is not compiled"
fi

out="out ipsec esp/transport//require" in="in ipsec esp/transport//require"
for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	# shellcheck disable=SC2086 # two words
	set -- $pair
	a=$1 b=$2

	step "$a: where everything must be protected, and no key is there, sockets with bypass still talk in clear"
	{ echo "flush; spdflush;"; require "$a" "$b"; } | setkey left
	{ echo "flush; spdflush;"; require "$b" "$a"; } | setkey right
	for kind in udp tcp; do
		server right "serve-$kind" $kind "$b" 500 "in bypass" "out bypass"
		answered send $kind "$b" 500 "in bypass" "out bypass"
		unanswered send $kind "$b" 500
		unanswered send $kind "$b" 500 "out bypass"
		unanswered send $kind "$b" 500 "in bypass"
		silence
		end "serve-$kind"
	done
	contains "an accepted socket" "$work/serve-tcp" "in bypass"
	server right deaf udp "$b" 500 "out bypass"
	unanswered send udp "$b" 500 "in bypass" "out bypass"
	silence
	end deaf

	step "$a: a socket that asks for protection gets it, other sockets stay as they are"
	{ echo "flush; spdflush;"; transport_keys "$a" "$b"; } | setkey left
	{ echo "flush; spdflush;"; transport_keys "$a" "$b"; } | setkey right
	for kind in udp tcp; do
		server right safe $kind "$b" 501 "$in" "$out"
		server right clear $kind "$b" 502
		sniff right to-left wire "host $a and (esp or port 501 or port 502)"
		answered send $kind "$b" 501 "$in" "$out"
		sniffed wire
		contains "protected $kind" "$work/wire" ESP
		lacks "protected $kind" "$work/wire" '\.501'
		answered much $kind "$b" 501 "$in" "$out"
		sniff right to-left wire "host $a and (esp or port 501 or port 502)"
		answered send $kind "$b" 502
		sniffed wire
		contains "clear $kind" "$work/wire" '\.502'

		# What comes is not as one of the two sockets wants it.
		unanswered send $kind "$b" 501
		unanswered send $kind "$b" 502 "$in"
		answered send $kind "$b" 501 "$out"
		unanswered send $kind "$b" 502 "$in" "$out"
		answered send $kind "$b" 502 "$out" "in bypass"
		silence
		end safe
		end clear
	done

	step "$a: ESP is not AH, also where other sockets take it"
	server right safe udp "$b" 501 "in ipsec ah/transport//require" "$out"
	server right clear udp "$b" 502 "$out"
	unanswered send udp "$b" 501 "$out"
	answered send udp "$b" 502 "$out"
	silence
	end safe
	end clear

	step "$a: raw sockets"
	sniff right to-left wire "host $a and esp"
	unanswered ping "$b" "$in" "$out"
	answered ping "$b" "$out"
	answered ping "$b"
	unanswered ping "$b" "$in"
	silence
	sniffed wire
	equal "requests as ESP" "$(grep -c ESP "$work/wire")" 2
	require "$b" "$a" | setkey right
	answered ping "$b" "$in" "$out"
	unanswered ping "$b" "$in"

	step "$a: the SPD comes first for sockets without privilege, and not at all for others"
	silence
	echo "spdflush;" | setkey right
	echo "spdflush; spdadd $a $b any -P out none; spdadd $b $a any -P in none;" | setkey left
	server right clear udp "$b" 502
	server right safe udp "$b" 501 "$in" "$out"
	nobody answered send udp "$b" 502 "$out" "$in"
	nobody unanswered send udp "$b" 501 "$out" "$in"
	answered send udp "$b" 501 "$out" "$in"
	later answered send udp "$b" 501 "$out" "$in"
	silence
	echo "spdflush;" | setkey left
	nobody answered send udp "$b" 501 "$out" "$in"
	end clear
	end safe
done

step "TCP between protected sockets takes nothing that is forged in clear, before it is established, before it is accepted, and later"
for pair in "10.1.0.1 10.1.0.2 4" "fd00:1::1 fd00:1::2 6"; do
	# shellcheck disable=SC2086 # three words
	set -- $pair
	for h in left right; do { echo "flush; spdflush;"; transport_keys "$1" "$2"; } | setkey $h; done
	must /usr/bin/python3 "$(dirname "$0")/inject.py" "$tag" "$3"
done

step "programs that call setsockopt, under kipsec-run"
a=10.1.0.1 b=10.1.0.2
# plain HOST ARGUMENT...
plain() {
	where=$1
	shift
	at "$where" "$BIN/kipsec-run" /usr/bin/python3 "$(dirname "$0")/sockpol.py" "$@"
}
plain left try 6 "in bypass" "out ipsec esp/transport//require" >"$work/plain"
equal "what is set" "$(cat "$work/plain")" "ok in bypass
ok out ipsec esp/transport//require
in bypass, out ipsec esp/transport//require"
nobody plain left try 4 "in bypass" "out ipsec esp/transport//require" >"$work/plain"
equal "what is set without privilege" "$(cat "$work/plain")" "EACCES in bypass
ok out ipsec esp/transport//require
in entrust, out ipsec esp/transport//require"
{ echo "flush; spdflush;"; transport_keys $a $b; } | setkey left
{ echo "flush; spdflush;"; transport_keys $a $b; } | setkey right
server right safe tcp $b 501 "$in" "$out"
must plain left send tcp $b 501 "$in" "$out"
unanswered send tcp $b 501
silence
end safe

step "after a kill -9, a new kipsecd knows what bypasses, and lets nothing through for sockets that asked for more"
server right safe udp $b 501 "$in" "$out"
server right free udp $b 500 "in bypass" "out bypass"
kill -9 "$(pid right)"
gone "$(pid right)" || :
daemon right
{ transport_keys $a $b; require $b $a; } | setkey right
{ echo "flush; spdflush;"; transport_keys $a $b; } | setkey left
unanswered send udp $b 501 "$in" "$out"
answered send udp $b 500 "in bypass" "out bypass"
silence
