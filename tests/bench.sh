#!/bin/sh
# One TCP stream and one flow of small UDP packets, through two daemons (tunnel mode, aes-gcm-16) and through a plain
# veth pair, in turns within one run; medians of $ROUNDS rounds. Then the Go benchmarks of the engine.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
ROUNDS=${ROUNDS:-5} SECONDS_EACH=${SECONDS_EACH:-3} SIZE=64
two_hosts
at left ip addr add 10.1.0.3/24 dev to-right
CGO_ENABLED=0 go build -C "$(dirname "$0")/traffic" -o "$work/traffic" .
daemon left
daemon right
keys="add 10.1.0.1 10.1.0.2 esp 0x1001 -m tunnel -r 32 -E aes-gcm-16 $key_gcm;
add 10.1.0.2 10.1.0.1 esp 0x1002 -m tunnel -r 32 -E aes-gcm-16 $key_gcm_back;"
setkey left <<END
$keys
spdadd 10.1.0.1 10.1.0.2 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
spdadd 10.1.0.2 10.1.0.1 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
END
setkey right <<END
$keys
spdadd 10.1.0.2 10.1.0.1 any -P out ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
spdadd 10.1.0.1 10.1.0.2 any -P in ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
END
at right ip addr add 10.1.0.4/24 dev to-left
for addr in 10.1.0.2 10.1.0.4; do
	behind server right "$work/traffic" serve $addr:7000
done
sleep 0.5

median() { sort -n "$1" | awk '{ v[NR] = $1 } END { print v[int((NR + 1) / 2)] }'; }

# 10.1.0.1 to 10.1.0.2 is protected, anything to 10.1.0.4 is not.
round=0
while [ $round -lt "$ROUNDS" ]; do
	for what in esp plain; do
		addr=10.1.0.2:7000
		[ $what = esp ] || addr=10.1.0.4:7000
		at left "$work/traffic" tcp $addr "$SECONDS_EACH" >>"$work/$what.tcp"
		at left "$work/traffic" udp $addr "$SECONDS_EACH" $SIZE >>"$work/$what.udp"
	done
	round=$((round + 1))
done
for kind in tcp udp; do
	esp=$(median "$work/esp.$kind") plain=$(median "$work/plain.$kind")
	case $kind in
	tcp) unit='Gbit/s' name='one TCP stream' ;;
	udp) unit='packets/s' name="$SIZE-byte UDP" ;;
	esac
	awk -v name="$name" -v unit="$unit" -v e="$esp" -v p="$plain" -v n="$ROUNDS" \
		'BEGIN { printf "%-16s kipsec %10s %-9s  plain veth %10s %-9s  ratio %.3f  (medians of %d)\n", name, e, unit, p, unit, e / p, n }'
done
stop left
stop right

say ""
cd "$(dirname "$0")/.."
go test -run '^$' -bench . -benchmem ./ipsec/... ./net/... ./kern/...
