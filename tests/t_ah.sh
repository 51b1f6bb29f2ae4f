#!/bin/sh
# AH: every algorithm in both formats, bundles with ESP, tunnels that are required, the variables of RFC 1826, and a peer
# that is not ours.
#
#   left 10.1.0.1 fd00:1::1 ───── right 10.1.0.2 fd00:1::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right

# bytes N: a hex key
bytes() {
	printf 0x
	i=0
	while [ $i -lt "$1" ]; do
		printf %02x $(((i * 29 + 3) % 256))
		i=$((i + 1))
	done
}

# both KEYS REQUESTS A B: load the SAs on both hosts, and policies with the same requests in both directions. In the requests,
# A-B and B-A are the ends of a tunnel.
both() {
	printf '%s\n' "$1" >"$work/keys"
	reverse=$(printf %s "$2" | sed "s/$3-$4/$4-$3/g")
	{
		echo "flush; spdflush;"
		cat "$work/keys"
		echo "spdadd $3 $4 any -P out ipsec $2; spdadd $4 $3 any -P in ipsec $reverse;"
	} | setkey left || fail "left refuses $1 $2"
	{
		echo "flush; spdflush;"
		cat "$work/keys"
		echo "spdadd $3 $4 any -P in ipsec $2; spdadd $4 $3 any -P out ipsec $reverse;"
	} | setkey right || fail "right refuses $1 $2"
}

# pair PROTO SPI MODE ALGORITHMS A B: an SA each way
pair() {
	echo "add $5 $6 $1 0x$2 -m $3 $4; add $6 $5 $1 0x$(($2 + 1)) -m $3 $4;"
}

# shows A B WHAT PATTERN [SIZE]: while a ping passes, the wire shows the pattern and nothing in clear.
shows() {
	sniff left to-right wire -v "host $1 and not arp and not (icmp6 and ip6[40] >= 133)"
	at left ping -c 2 -i 0.2 -W 2 -s "${5:-56}" "$2" >/dev/null || fail "no ping $1 $2 with $3"
	sniffed wire
	contains "the wire with $3" "$work/wire" "$4"
	lacks "the wire with $3" "$work/wire" "^[0-9:.]* IP[^)]*ICMP" # the outermost headers
}

mac() {
	case $1 in
	*md5 | aes-*) echo "-A $1 $(bytes 16)" ;;
	*256) echo "-A $1 $(bytes 32)" ;;
	*384) echo "-A $1 $(bytes 48)" ;;
	*512) echo "-A $1 $(bytes 64)" ;;
	*) echo "-A $1 $(bytes 20)" ;;
	esac
}
esp="-r 8 -E aes-gcm-16 $key_gcm"

for name in hmac-md5 hmac-sha1 hmac-sha2-256 hmac-sha2-384 hmac-sha2-512 hmac-ripemd160 aes-xcbc-mac aes-cmac keyed-md5 keyed-sha1; do
	step "$name, in the formats of RFC 4302 and RFC 1826"
	a=$(mac $name)
	both "$(pair ah 1001 transport "-r 8 $a" 10.1.0.1 10.1.0.2)" ah/transport//require 10.1.0.1 10.1.0.2
	shows 10.1.0.1 10.1.0.2 "$name" "AH(length=[0-9]*(.*spi=0x00001001"
	both "$(pair ah 1001 transport "-r 8 $a" fd00:1::1 fd00:1::2)" ah/transport//require fd00:1::1 fd00:1::2
	shows fd00:1::1 fd00:1::2 "$name" "AH(length=[0-9]*(.*spi=0x00001001"
	both "$(pair ah-old 1001 transport "$a" 10.1.0.1 10.1.0.2)" ah/transport//require 10.1.0.1 10.1.0.2
	shows 10.1.0.1 10.1.0.2 "old $name" "AH (51)"
	both "$(pair ah-old 1001 transport "$a" fd00:1::1 fd00:1::2)" ah/transport//require fd00:1::1 fd00:1::2
	shows fd00:1::1 fd00:1::2 "old $name" "AH (51)"
done
at left "$BIN/setkey" -D >"$work/sad"
contains "-D" "$work/sad" "ah mode=transport spi=4097"

step "null is no integrity for AH"
printf 'add 10.1.0.1 10.1.0.2 ah 0x9001 -A null;\n' | refuse setkey left 2>"$work/errors"

a=$(mac hmac-sha2-256)
for hosts in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
	# shellcheck disable=SC2086 # two words
	set -- $hosts
	step "bundles between $1 and $2"
	two="$(pair esp 1001 transport "$esp" "$1" "$2") $(pair ah 2001 transport "-r 8 $a" "$1" "$2")"
	both "$two" "esp/transport//require ah/transport//require" "$1" "$2"
	shows "$1" "$2" "AH around ESP" "spi=0x00002001.*ESP(spi=0x00001001"
	shows "$1" "$2" "AH around ESP, in fragments" "spi=0x00002001" 4000
	both "$two" "ah/transport//require esp/transport//require" "$1" "$2"
	shows "$1" "$2" "ESP around AH" "ESP(spi=0x00001001"
	both "$(pair ah 1001 tunnel "-r 8 $a" "$1" "$2")" "ah/tunnel/$1-$2/require" "$1" "$2"
	shows "$1" "$2" "an AH tunnel that is required" "spi=0x00001001"
	both "$(pair esp 1001 tunnel "$esp" "$1" "$2") $(pair ah 2001 transport "-r 8 $a" "$1" "$2")" \
		"esp/tunnel/$1-$2/require ah/transport//require" "$1" "$2"
	shows "$1" "$2" "AH around an ESP tunnel" "spi=0x00002001.*ESP(spi=0x00001001"
	step "a receiver that requires more refuses"
	printf 'spdflush; spdadd %s %s any -P in ipsec esp/tunnel/%s-%s/require ah/transport//require ah/transport//require;\n' \
		"$1" "$2" "$1" "$2" | setkey right
	refuse at left ping -c 1 -W 1 "$2" >/dev/null
done

step "the variables of RFC 1826: both ends must agree on them"
both "$(pair ah 1001 transport "-r 8 $a" 10.1.0.1 10.1.0.2)" ah/transport//require 10.1.0.1 10.1.0.2
for v in ah_cleartos=0 ah_offsetmask=65535; do
	was=$(cat "$(sys right)/net/inet/ipsec/${v%=*}")
	must at left ping -c 1 -W 1 -Q 0x28 10.1.0.2 >/dev/null
	at left "$BIN/sysctl" -q -w "net.inet.ipsec.$v"
	refuse at left ping -c 1 -W 1 -Q 0x28 10.1.0.2 >/dev/null
	at right "$BIN/sysctl" -q -w "net.inet.ipsec.$v"
	must at left ping -c 1 -W 1 -Q 0x28 10.1.0.2 >/dev/null
	for h in left right; do at $h "$BIN/sysctl" -q -w "net.inet.ipsec.${v%=*}=$was"; done
done

if ! /usr/bin/python3 -c 'import scapy.layers.ipsec' 2>/dev/null; then
	[ "$failures" -eq 0 ] || exit 1
	skip "the foreign peer: no python3-scapy"
fi
step "a peer that is not ours: scapy"
stop right

# foreign A B ALGORITHM: only left is ours
foreign() {
	{
		echo "flush; spdflush;"
		pair ah 1001 transport "-r 8 $3" "$1" "$2"
		echo "spdadd $1 $2 any -P out ipsec ah/transport//require; spdadd $2 $1 any -P in ipsec ah/transport//require;"
	} | setkey left || fail "left refuses $3"
}
# peer A B ALGORITHM KEY [WHAT]
peer() {
	at right /usr/bin/python3 "$(dirname "$0")/ah_scapy.py" to-left "$@"
}
counter() { cat "$(sys left)/net/inet/ipsec/stats/$1"; }

{
	echo HMAC-MD5-96 hmac-md5
	echo HMAC-SHA1-96 hmac-sha1
	echo SHA2-256-128 hmac-sha2-256
	echo SHA2-384-192 hmac-sha2-384
	echo SHA2-512-256 hmac-sha2-512
	echo AES-CMAC-96 aes-cmac
} >"$work/algorithms"
while read -r theirs ours; do
	a=$(mac "$ours")
	key=${a##* }
	for hosts in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
		# shellcheck disable=SC2086 # two words
		set -- $hosts
		foreign "$1" "$2" "$a"
		must peer "$1" "$2" "$theirs" "$key" </dev/null
	done
done <"$work/algorithms"

step "replayed, forged, and changed on the way as routers may or may not"
theirs=SHA2-256-128 a=$(mac hmac-sha2-256)
key=${a##* }
at left "$BIN/sysctl" -q -w net.inet.ipsec.debug=1
foreign 10.1.0.1 10.1.0.2 "$a"
before=$(counter in_ahreplay)
must peer 10.1.0.1 10.1.0.2 "$theirs" "$key" replay
equal "in_ahreplay" "$(($(counter in_ahreplay) - before))" 1
foreign 10.1.0.1 10.1.0.2 "$a"
before=$(counter in_ahauthfail)
refuse peer 10.1.0.1 10.1.0.2 "$theirs" "$key" forge 2>/dev/null
equal "in_ahauthfail" "$(($(counter in_ahauthfail) - before))" 1
must peer 10.1.0.1 10.1.0.2 "$theirs" "$key" tos
foreign 10.1.0.1 10.1.0.2 "$a"
at left "$BIN/sysctl" -q -w net.inet.ipsec.ah_cleartos=0
refuse peer 10.1.0.1 10.1.0.2 "$theirs" "$key" tos 2>/dev/null
equal "in_ahauthfail" "$(($(counter in_ahauthfail) - before))" 2
if [ ! -S /dev/log ]; then # otherwise the lines are there
	about="packet(SPI=4098 src=10.1.0.2 dst=10.1.0.1) SA(SPI=4098 src=10.1.0.2 dst=10.1.0.1)"
	contains "the log" "$work/left.log" "replay packet in IPv4 AH input: $about"
	contains "the log" "$work/left.log" "checksum mismatch in IPv4 AH input: $about"
	lacks "the log" "$work/left.log" "${key#0x}"
fi
