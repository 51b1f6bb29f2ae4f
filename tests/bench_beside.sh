#!/bin/sh
# What kipsecd costs traffic that no policy touches: two pairs of hosts, one with a kipsecd on both ends that has policies for
# something else, one without. A thread sends small UDP packets and TCP between the hosts of each, in turns, and counts its
# processor time: 64 KiB of TCP are a packet or two and an acknowledgement, all of them past the rules of both ends.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
ROUNDS=${ROUNDS:-40}
for pair in plain beside; do
	for h in left right; do host $pair-$h; done
	wire $pair-left $pair-right 1
done
CGO_ENABLED=0 go build -C "$(dirname "$0")/traffic" -o "$work/traffic" .
cat >"$work/policies" <<'END'
spdadd 10.66.0.1 10.67.0.1 any -P out ipsec esp/tunnel/10.1.0.1-10.1.0.2/require;
spdadd 10.67.0.0/24 10.66.0.0/24 any -P in ipsec esp/tunnel/10.1.0.2-10.1.0.1/require;
END
for h in left right; do daemon beside-$h -f "$work/policies"; done
sleep 0.5
GOMAXPROCS=1 "$work/traffic" cost "$ROUNDS" "$tag-plain-left" "$tag-plain-right" "$tag-beside-left" "$tag-beside-right" >"$work/costs"
awk -v n="$ROUNDS" '
	NR == 1 { udp = $2; tcp = $3 }
	NR == 2 {
		form = "%-14s without %6d ns  beside kipsecd %6d ns  ratio %.3f  (lower quartiles of %d)\n"
		printf form, "64-byte UDP", udp, $2, $2 / udp, n
		printf form, "64 KiB of TCP", tcp, $3, $3 / tcp, n
	}' "$work/costs"
