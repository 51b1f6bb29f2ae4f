#!/bin/sh
# What policies let through: require and use, the deflevs, none before ipsec, def_policy, and who never meets the daemon.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
at left ip addr add 10.1.0.3/24 dev to-right
at left ip -6 addr add fd00:1::3/64 dev to-right nodad
daemon left
daemon right
knob() { at "$1" sh -c "echo $3 >$(sys "$1")/net/$2"; }
pings() { at left ping -c 1 -W 1 "$@" >/dev/null 2>&1; }

for pair in "10.1.0.1 10.1.0.2 10.1.0.3 inet/ipsec" "fd00:1::1 fd00:1::2 fd00:1::3 inet6/ipsec6"; do
	# shellcheck disable=SC2086 # four words
	set -- $pair
	a=$1 b=$2 other=$3 tree=$4

	step "$a: require without keys sends nothing; with keys on one side only nothing comes back"
	{ echo "flush; spdflush;"; require "$a" "$b"; } | setkey left
	{ echo "flush; spdflush;"; } | setkey right
	sniff right to-left wire "host $a and (icmp or icmp6 and ip6[40] < 133 or esp)"
	refuse pings -I "$a" "$b"
	sniffed wire
	equal "packets on the wire" "$(wc -l <"$work/wire")" 0

	step "$a: a clear packet that require covers reaches no socket"
	before=$(cat "$(sys left)/net/$tree/stats/in_polvio")
	refuse at right ping -c 1 -W 1 "$a" >/dev/null
	[ "$(cat "$(sys left)/net/$tree/stats/in_polvio")" -gt "$before" ] || fail "in_polvio did not move"

	step "$a: use goes clear without keys; default follows the deflev at once"
	for level in use default; do
		printf 'spdflush; spdadd %s %s any -P out ipsec esp/transport//%s; spdadd %s %s any -P in ipsec esp/transport//%s;\n' \
			"$a" "$b" $level "$b" "$a" $level | setkey left
		must pings -I "$a" "$b"
	done
	knob left "$tree"/esp_trans_deflev 2
	refuse pings -I "$a" "$b"
	knob left "$tree"/esp_trans_deflev 1
	must pings -I "$a" "$b"

	step "$a: the first match counts, so none before ipsec is an exception"
	{
		echo "spdflush;"
		echo "spdadd $a $b tcp -P out none; spdadd $b $a tcp -P in none;"
		require "$a" "$b"
	} | setkey left
	listen right got "$b" 4000
	echo clear | at left nc -N -w 2 -s "$a" "$b" 4000 || fail "TCP under none"
	wait_for 2 grep -q clear "$work/got" || fail "TCP under none did not arrive"
	refuse pings -I "$a" "$b"

	step "$a: discard"
	printf 'spdflush; spdadd %s %s any -P out discard;\n' "$a" "$b" | setkey left
	refuse pings -I "$a" "$b"
	must pings -I "$other" "$b"

	step "$a: what no policy covers never enters the daemon"
	{ echo "spdflush;"; require "$a" 10.77.0.1 2>/dev/null; } >/dev/null
	printf 'spdflush; spdadd %s %s any -P out discard;\n' "$a" "$b" | setkey left
	sniff left enc0 inner "host $other"
	must pings -I "$other" "$b"
	sniffed inner
	equal "packets of $other on enc0" "$(wc -l <"$work/inner")" 0

	step "$a: def_policy 0 closes the namespace, policies stay open"
	{ echo "flush; spdflush;"; transport_keys "$a" "$b"; require "$a" "$b"; } | setkey left
	{ echo "flush; spdflush;"; transport_keys "$a" "$b"; require "$b" "$a"; } | setkey right
	must pings -I "$other" "$b"
	knob left "$tree"/def_policy 0
	refuse pings -I "$other" "$b"
	refuse at right ping -c 1 -W 1 "$other" >/dev/null
	must pings -I "$a" "$b"
	knob left "$tree"/def_policy 1
	must pings -I "$other" "$b"
	printf 'flush; spdflush;\n' | setkey left
	printf 'flush; spdflush;\n' | setkey right
done

step "policies hold on loopback and between own addresses"
{
	transport_keys 127.0.0.1 127.0.0.2
	require 127.0.0.1 127.0.0.2
	echo "spdadd 127.0.0.2 127.0.0.1 any -P out ipsec esp/transport//require;"
	echo "spdadd 127.0.0.1 127.0.0.2 any -P in ipsec esp/transport//require;"
} | setkey left
sniff left lo wire "net 127.0.0.0/8"
must at left ping -c 1 -W 2 -I 127.0.0.1 127.0.0.2 >/dev/null
sniffed wire
contains "loopback" "$work/wire" "127.0.0.1 > 127.0.0.2: ESP"
lacks "loopback" "$work/wire" "ICMP echo"
printf 'flush; spdflush;\n' | setkey left
cat <<END | setkey left
add ::1 ::1 esp 0x1001 -m transport -r 4 -E aes-gcm-16 $key_gcm;
spdadd ::1 ::1 any -P out ipsec esp/transport//require;
spdadd ::1 ::1 any -P in ipsec esp/transport//require;
END
sniff left lo wire "ip6"
must at left ping -c 1 -W 2 ::1 >/dev/null
listen left got ::1 4000
echo "over ::1" | at left nc -N -w 2 ::1 4000 || fail "TCP over ::1"
wait_for 2 grep -q "over ::1" "$work/got" || fail "TCP over ::1 did not arrive"
sniffed wire
contains "::1" "$work/wire" "::1 > ::1: ESP"
printf 'spdflush; spdadd ::1 ::1 any -P in ipsec esp/transport//require;\n' | setkey left
refuse at left ping -c 1 -W 1 ::1 >/dev/null
printf 'flush; spdflush;\n' | setkey left
must at left ping -c 1 -W 1 ::1 >/dev/null
{
	transport_keys 10.1.0.1 10.1.0.3
	require 10.1.0.1 10.1.0.3
	echo "spdadd 10.1.0.3 10.1.0.1 any -P out ipsec esp/transport//require;"
	echo "spdadd 10.1.0.1 10.1.0.3 any -P in ipsec esp/transport//require;"
} | setkey left
must at left ping -c 1 -W 2 -I 10.1.0.1 10.1.0.3 >/dev/null
