#!/bin/sh
# What kipsecd costs traffic that no policy touches: one TCP stream and a flow of small UDP packets over a plain veth pair,
# without kipsecd and with one on both ends that has policies for something else, in turns; medians of $ROUNDS rounds.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-2}
two_hosts
CGO_ENABLED=0 go build -C "$(dirname "$0")/traffic" -o "$work/traffic" .
behind server right "$work/traffic" serve 0.0.0.0:7000
sleep 0.5
cat >"$work/policies" <<'END'
spdadd 10.66.0.1 10.67.0.1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
spdadd 10.67.0.0/24 10.66.0.0/24 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
END

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

round=0
while [ $round -lt "$ROUNDS" ]; do
	for what in without with; do
		if [ $what = with ]; then
			for h in left right; do daemon $h -f "$work/policies"; done
			sleep 0.2
		fi
		at left "$work/traffic" tcp 10.1.0.2:7000 "$SECONDS_EACH" >>"$work/$what.tcp"
		at left "$work/traffic" udp 10.1.0.2:7000 "$SECONDS_EACH" 64 >>"$work/$what.udp"
		[ $what = without ] || for h in left right; do stop $h; done
	done
	round=$((round + 1))
done
for kind in tcp udp; do
	case $kind in
	tcp) unit='Gbit/s' name='one TCP stream' ;;
	udp) unit='packets/s' name='64-byte UDP' ;;
	esac
	awk -v name="$name" -v unit="$unit" -v w="$(median "$work/with.$kind")" -v o="$(median "$work/without.$kind")" -v n="$ROUNDS" \
		'BEGIN { printf "%-16s beside kipsecd %10s %-9s  without %10s %-9s  ratio %.3f  (medians of %d)\n", name, w, unit, o, unit, w / o, n }'
done
