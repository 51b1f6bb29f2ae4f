#!/bin/sh
# ESP packets exchanged with another implementation: scapy's IPsec layer, every algorithm that it has, both modes, both
# families inside and outside, both directions. interop_scapy.py does it.
#
#   peer 10.1.0.1 fd00:1::1 (scapy, no daemon) ───── right 10.1.0.2 fd00:1::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
/usr/bin/python3 -c 'import scapy.layers.ipsec, cryptography' 2>/dev/null || skip "no python3-scapy with python3-cryptography"
host peer
host right
wire peer right 1
# The inner addresses of the tunnels; those of the far end are nobody's.
at right ip addr add 10.3.0.2/24 dev to-peer
at right ip addr add 10.5.0.2/24 dev to-peer
at right ip addr add fd00:4::2/64 dev to-peer nodad
at right ip addr add fd00:6::2/64 dev to-peer nodad
# Linux on the peer answers no ESP; scapy sees it before it is dropped.
at peer nft -f - <<-'END' || skip "no nft"
	table inet peer {
		chain in {
			type filter hook prerouting priority raw;
			meta l4proto esp drop
		}
	}
END
daemon right
at peer ping -c 1 -W 2 10.1.0.2 >/dev/null || fail "no ping in clear"
mac=$(at right cat /sys/class/net/to-peer/address)
at peer /usr/bin/python3 "$(dirname "$0")/interop_scapy.py" "$tag-right" "$BIN/setkey" to-right "$mac" >"$work/scapy" 2>"$work/scapy.err" ||
	fail "scapy: $(tail -5 "$work/scapy.err")"
sed 's/^/    /' "$work/scapy" >&3
lacks "scapy" "$work/scapy" FAILED

step "what was sent twice or with a wrong ICV was counted"
for tree in inet/ipsec inet6/ipsec6; do
	for counter in in_espreplay in_espauthfail; do
		count=$(cat "$(sys right)/net/$tree/stats/$counter")
		[ "$count" -gt 100 ] || fail "$tree $counter is $count"
	done
done
