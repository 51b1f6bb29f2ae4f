#!/bin/sh
# Policies of sockets: what a program asks for its own packets, over what the SPD says.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right
# on HOST ARGUMENT...: a program with policies on its sockets
on() {
	where=$1
	shift
	at "$where" env SOCKOPT="/run/kipsec/$tag-$where/sockopt" python3 "$(dirname "$0")/sockpol.py" "$@"
}
# server HOST NAME ARGUMENT...: the same in the background
server() {
	where=$1 name=$2
	shift 2
	SOCKOPT="/run/kipsec/$tag-$where/sockopt" behind "$name" "$where" python3 "$(dirname "$0")/sockpol.py" serve "$@" >"$work/$name"
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
NOBODY=early on left try 4 "in bypass" "out entrust" >"$work/nobody"
equal "nobody" "$(cat "$work/nobody")" "EACCES in bypass
ok out entrust
in entrust, out entrust"

for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	# shellcheck disable=SC2086 # two words
	set -- $pair
	a=$1 b=$2

	step "$a: where everything must be protected, and no key is there, sockets with bypass still talk in clear"
	{ echo "flush; spdflush;"; require "$a" "$b"; } | setkey left
	{ echo "flush; spdflush;"; require "$b" "$a"; } | setkey right
	for kind in udp tcp; do
		server right "serve-$kind" $kind "$b" 500 "in bypass" "out bypass"
		must on left send $kind "$b" 500 "in bypass" "out bypass"
		refuse on left send $kind "$b" 500
		refuse on left send $kind "$b" 500 "out bypass"
		refuse on left send $kind "$b" 500 "in bypass"
		end "serve-$kind"
	done
	contains "an accepted socket" "$work/serve-tcp" "in bypass"
	server right deaf udp "$b" 500 "out bypass"
	refuse on left send udp "$b" 500 "in bypass" "out bypass"
	end deaf
done
