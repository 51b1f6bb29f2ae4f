#!/bin/sh
# Tunnels between two hosts, kipsec's and others', measured in turns within one run; medians of $ROUNDS rounds.
#
#   left 10.1.0.1 ══ right 10.1.0.2      outside: a veth pair
#   10.21.0.1        10.22.0.1           inside each tunnel; without one, for "plain", routed over the same wire
#
# A contestant is a row of $contestants: NAME SUITE. For each there are functions up_NAME and down_NAME. Results go to
# $work/results, a line "NAME SUITE KIND VALUE" each, of which tests/chart makes the table and the picture.
#
#   ROUNDS=5 SECONDS_EACH=3 tests/bench.sh [SVG]     CONTESTANTS="raw wireguard" to take only some, SUITES, KINDS likewise
#
# KINDS may have "answers" too, how long 99 % of the answers of PF_KEY and the mount take at most while small packets flood kipsec.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
# shellcheck source=strongswan.sh
. "$(dirname "$0")/strongswan.sh"
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-3}
KINDS=${KINDS:-tcp tcp4 udp ping pingload}
SUITES=${SUITES:-gcm chacha cbc}
CONTESTANTS=${CONTESTANTS:-plain raw fast udp loaded wireguard strongswan}
svg=${1:-}
case $svg in /* | '') ;; *) svg=$PWD/$svg ;; esac
here=$(cd "$(dirname "$0")" && pwd)
near=10.21.0.1 far=10.22.0.1

two_hosts
at left ip addr add $near/32 dev lo
at right ip addr add $far/32 dev lo
for program in traffic chart; do CGO_ENABLED=0 go build -C "$here/$program" -o "$work/$program" .; done
behind server right "$work/traffic" serve 0.0.0.0:7000
: >"$work/results"

# routes DEVICE-ON-LEFT DEVICE-ON-RIGHT
routes() {
	at left ip route replace $far dev "$1" ${3:+via "$3"} src $near
	at right ip route replace $near dev "$2" ${4:+via "$4"} src $far
}
over_the_wire() { routes to-right to-left 10.1.0.2 10.1.0.1; }

up_plain() { over_the_wire; }
down_plain() { :; }

# keys PROTO SUITE: both SAs in setkey's words.
keys() {
	k16=000102030405060708090a0b0c0d0e0f k32=${k16}101112131415161718191a1b1c1d1e1f
	case $2 in
	gcm) alg="-E aes-gcm-16 0x${k16}aabbccdd" ;;
	chacha) alg="-E chacha20-poly1305 0x${k32}aabbccdd" ;;
	cbc) alg="-E aes-cbc 0x$k16 -A hmac-sha2-256 0x$k32" ;;
	esac
	echo "add 10.1.0.1 10.1.0.2 $1 0x1001 -m tunnel -r 32 $alg;"
	echo "add 10.1.0.2 10.1.0.1 $1 0x1002 -m tunnel -r 32 $alg;"
}

# kipsec PROTO SUITE FLAG...
kipsec() {
	proto=$1 suite=$2
	shift 2
	over_the_wire
	for h in left right; do
		[ $h = left ] && mine=out theirs=in || mine=in theirs=out
		{
			keys "$proto" "$suite"
			echo "spdadd $near $far any -P $mine ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;"
			echo "spdadd $far $near any -P $theirs ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;"
		} >"$work/$h.conf"
		daemon $h -f "$work/$h.conf" "$@"
	done
}
down_kipsec() { stop left; stop right; }

up_raw() { kipsec esp "$1" -wire raw; }
down_raw() { down_kipsec; }
up_fast() { kipsec esp "$1" -wire fast; }
down_fast() { down_kipsec; }
up_udp() { kipsec esp-udp "$1" -wire fast; }
down_udp() { down_kipsec; }

# The same as fast beside 10,000 other SAs and policies.
up_loaded() {
	up_fast "$1"
	awk 'BEGIN { for (i = 0; i < 10000; i++) {
		a = "10.100." int(i / 250) "." i % 250 + 1
		printf "add 10.1.0.1 %s esp %d -m tunnel -E aes-gcm-16 0x%040x;\n", a, 70000 + i, i
		printf "spdadd %s/32 %s/32 any -P out ipsec esp/tunnel/10.1.0.1-%s/require;\n", "10.21.0.2", a, a
	} }' >"$work/many"
	for h in left right; do at $h "$BIN/setkey" -f "$work/many"; done
}
down_loaded() { down_kipsec; }

# wg HOST OTHER ENDPOINT ALLOWED: wireguard-go on a host, by the protocol of its control socket.
wg() {
	device=wg-$1-$$
	behind "wg-$1" "$1" "$work/wireguard-go" -f "$device" >"$work/wg-$1.log" 2>&1
	wait_for 5 [ -S "/var/run/wireguard/$device.sock" ] || fail "wireguard-go: $(cat "$work/wg-$1.log")"
	printf 'set=1\nprivate_key=%s\nlisten_port=51820\npublic_key=%s\nendpoint=%s:51820\nallowed_ip=%s/32\n\n' \
		"$(cut -d ' ' -f 1 "$work/key-$1")" "$(cut -d ' ' -f 2 "$work/key-$2")" "$3" "$4" |
		nc -N -U "/var/run/wireguard/$device.sock" >"$work/wg-$1.set"
	at "$1" ip link set "$device" mtu 1420 up
}
ready_wireguard() {
	go build -C "$here/bench" -o "$work/wireguard-go" golang.zx2c4.com/wireguard || return 1
	for h in left right; do "$work/traffic" keypair >"$work/key-$h"; done
}
up_wireguard() {
	wg left right 10.1.0.2 $far
	wg right left 10.1.0.1 $near
	routes "wg-left-$$" "wg-right-$$"
}
down_wireguard() { for h in left right; do end "wg-$h"; done; }

ready_strongswan() { (need_strongswan) >/dev/null; }
up_strongswan() {
	over_the_wire
	case $1 in
	gcm) proposal=aes128gcm16 ;;
	chacha) proposal=chacha20poly1305 ;;
	cbc) proposal=aes128-sha256 ;;
	esac
	rm -rf "$work/swan-left" "$work/swan-right" # with the sockets of the last round
	swan left 10.1.0.1 right 10.1.0.2 $near/32 $far/32 "$proposal"
	swan right 10.1.0.2 left 10.1.0.1 $far/32 $near/32 "$proposal"
	swanctl left --initiate --child "$proposal" >"$work/initiate"
}
down_strongswan() { for h in left right; do end "swan-$h"; done; }

# end NAME: a process that behind started.
end() {
	kill "$(pid "$1")" 2>/dev/null || :
	gone "$(pid "$1")" || kill -9 "$(pid "$1")"
}

# measure KIND: one number.
measure() {
	case $1 in
	tcp) at left "$work/traffic" tcp $far:7000 "$SECONDS_EACH" ;;
	tcp4) at left "$work/traffic" tcp $far:7000 "$SECONDS_EACH" 4 ;;
	udp) at left "$work/traffic" udp $far:7000 "$SECONDS_EACH" 64 ;;
	ping) rtt 200 0.01 ;;
	pingload)
		at left "$work/traffic" tcp $far:7000 "$SECONDS_EACH" >/dev/null &
		load=$!
		sleep 0.5
		rtt 100 0.01
		wait $load
		;;
	answers)
		[ -S "/run/kipsec/$tag-left/pfkey" ] || return 0
		at left "$work/traffic" udp $far:7000 "$SECONDS_EACH" 64 >/dev/null &
		load=$!
		"$work/traffic" answers "/run/kipsec/$tag-left/pfkey" "$(sys left)/net/inet/ipsec/dfbit" "$SECONDS_EACH" | cut -d ' ' -f 2
		wait $load
		;;
	esac
}

# rtt COUNT INTERVAL: the mean round trip in microseconds.
rtt() { at left ping -q -c "$1" -i "$2" $far | sed -n 's|^rtt [^=]*= [0-9.]*/\([0-9.]*\)/.*|\1|p' | awk '{ print $1 * 1000 }'; }

contestants=
for name in $CONTESTANTS; do
	if command -v "ready_$name" >/dev/null && ! "ready_$name"; then
		say "not run: $name (it could not be built or is not installed)"
		continue
	fi
	case $name in
	plain) contestants="$contestants plain:-" ;;
	wireguard) contestants="$contestants wireguard:chacha" ;; # it has no other
	loaded) contestants="$contestants loaded:gcm" ;;
	*) for suite in $SUITES; do contestants="$contestants $name:$suite"; done ;;
	esac
done

round=0
while [ $round -lt "$ROUNDS" ]; do
	round=$((round + 1))
	for contestant in $contestants; do
		name=${contestant%:*} suite=${contestant#*:}
		if ! "up_$name" "$suite" || ! wait_for 5 at left ping -c 1 -W 1 $far; then
			say "not run: $name $suite in round $round"
			"down_$name"
			continue
		fi
		for kind in $KINDS; do
			value=$(measure "$kind")
			[ -n "$value" ] || continue
			echo "$name $suite $kind $value" >>"$work/results"
			say "round $round: $name $suite $kind $value"
		done
		"down_$name"
	done
done
say ""
"$work/chart" ${svg:+-svg "$svg"} <"$work/results"
