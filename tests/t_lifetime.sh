#!/bin/sh
# Lifetimes of SAs as an operator sets them with setkey: in time, hard alone too, and in bytes; what the wire and the
# other host see of their ends.
#
#   left 10.1.0.1 ───── right 10.1.0.2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right
require 10.1.0.1 10.1.0.2 | setkey left
require 10.1.0.2 10.1.0.1 | setkey right

# sas LIFETIME: new SAs on both hosts, the left one's outbound SA with a lifetime.
sas() {
	back="add 10.1.0.2 10.1.0.1 esp 0x2002 -m transport -E aes-gcm-16 \"0123456789abcdef0123\";"
	forth="add 10.1.0.1 10.1.0.2 esp 0x1001 -m transport"
	{
		echo "flush; $back"
		echo "$forth $1 -E aes-gcm-16 \"0123456789abcdef0123\";"
	} | setkey left || fail "left refuses $1"
	{
		echo "flush; $back"
		echo "$forth -E aes-gcm-16 \"0123456789abcdef0123\";"
	} | setkey right || fail "right refuses"
}

# state WORD: the outbound SA of left is in that state.
state() {
	echo 'get 10.1.0.1 10.1.0.2 esp 0x1001;' | setkey left 2>/dev/null | grep -q "state=$1"
}

# over: there is no such SA any more.
over() { ! echo "get 10.1.0.1 10.1.0.2 esp 0x1001;" | setkey left >/dev/null 2>&1; }

ping_once() { at left ping -c 1 -W 1 10.1.0.2 >/dev/null; }

step 'a hard lifetime alone, in seconds'
sas '-lh 5'
must ping_once
must state mature
wait_for 10 over || fail 'the SA outlives its lifetime'
refuse ping_once

step 'soft before hard: dying, and still in use'
sas '-ls 2 -lh 7'
must ping_once
wait_for 6 state dying || fail 'not dying'
must ping_once
wait_for 10 over || fail 'the SA outlives its lifetime'
refuse ping_once

step 'never used: dying all the same'
sas '-ls 1 -lh 60'
wait_for 4 state dying || fail 'not dying'

step 'bytes, to the packet: 84 bytes become 120, and 400 hold three of them'
sas '-bh 400'
sniff left to-right wire 'src 10.1.0.1 and esp'
at left ping -c 6 -i 0.2 -W 1 10.1.0.2 >"$work/ping" || true
sniffed wire
equal 'packets on the wire' "$(grep -c 'ESP(spi=0x00001001' "$work/wire")" 3
contains 'what came back' "$work/ping" ' 3 received'
refuse state mature
