#!/bin/sh
# Policies of direction fwd, which Linux's programs write: they are about packets to others, and about nothing else.
#
#   siteA 10.11.0.1 ── gwA 10.1.0.1 ── gwB 10.1.0.2 ── siteB 10.12.0.2      IPv6: fd00:11::1 … fd00:12::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_sites
wait_for 5 at siteA ping -c 1 -W 1 10.12.0.2 || fail "the sites do not reach each other in clear"
wait_for 5 at siteA ping -c 1 -W 1 fd00:12::2 || fail "the sites do not reach each other in clear over IPv6"
daemon gwA
daemon gwB

# forward NETA NETB GWA GWB: gwB wants protection of what comes from site A for site B.
forward() {
	printf 'spdadd %s %s any -P fwd ipsec esp/tunnel/%s-%s/require;\n' "$@" | setkey gwB
}

for family in 4 6; do
	step "IPv$family in clear"
	nets="10.11.0.0/24 10.12.0.0/24" gws="10.1.0.1 10.1.0.2" far=10.12.0.2 near=10.12.0.1 tree=inet/ipsec
	[ $family = 4 ] || nets="fd00:11::/64 fd00:12::/64" gws="fd00:1::1 fd00:1::2" far=fd00:12::2 near=fd00:12::1 tree=inet6/ipsec6
	# shellcheck disable=SC2086 # two words each
	forward $nets $gws
	before=$(cat "$(sys gwB)/net/$tree/stats/in_polvio")
	sniff siteB to-gwB inside "icmp or icmp6"
	refuse at siteA ping -c 2 -i 0.2 -W 1 $far >/dev/null
	sniffed inside
	lacks "behind gwB" "$work/inside" "echo request"
	equal "in_polvio" "$(cat "$(sys gwB)/net/$tree/stats/in_polvio")" $((before + 2))
	must at siteA ping -c 1 -W 2 $near >/dev/null # gwB itself, of the same net

	step "IPv$family protected"
	setkey gwA <<-END
		add $gws esp 0x2001 -m tunnel -r 4 -E aes-gcm-16 $key_gcm;
		spdadd $nets any -P out ipsec esp/tunnel/${gws% *}-${gws#* }/require;
	END
	setkey gwB <<-END
		add $gws esp 0x2001 -m tunnel -r 4 -E aes-gcm-16 $key_gcm;
	END
	must at siteA ping -c 2 -i 0.2 -W 2 $far >/dev/null
	at gwA "$BIN/setkey" -FP
	refuse at siteA ping -c 1 -W 1 $far >/dev/null

	step "IPv$family without the policy"
	at gwB "$BIN/setkey" -FP
	must at siteA ping -c 1 -W 2 $far >/dev/null
	at gwA "$BIN/setkey" -F
	at gwB "$BIN/setkey" -F
done
