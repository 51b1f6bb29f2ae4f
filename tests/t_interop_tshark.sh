#!/bin/sh
# What tshark, with its own dissector and libgcrypt, makes of ESP packets of ours: it finds the ICV right and decrypts the
# payload. Algorithms that tshark does not know are not here; scapy and the RFCs' vectors have some of those.
#
#   left 10.1.0.1 ───── right 10.1.0.2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
command -v tshark >/dev/null || skip "no tshark"
two_hosts
daemon left
daemon right

# bytes N: a hex key
bytes() {
	[ "$1" = 0 ] || printf 0x
	i=0
	while [ $i -lt "$1" ]; do
		printf %02x $(((i * 37 + 11) % 256))
		i=$((i + 1))
	done
}

# Our cipher, key bytes, integrity, key bytes, then tshark's two names, separated by commas.
list='des-cbc,8,hmac-md5,16,DES-CBC [RFC2405],HMAC-MD5-96 [RFC2403]
3des-cbc,24,hmac-sha1,20,TripleDES-CBC [RFC2451],HMAC-SHA-1-96 [RFC2404]
cast128-cbc,16,hmac-sha1,20,CAST5-CBC [RFC2144],HMAC-SHA-1-96 [RFC2404]
blowfish-cbc,16,hmac-ripemd160,20,BLOWFISH-CBC [RFC2451],MAC-RIPEMD-160-96 [RFC2857]
twofish-cbc,16,hmac-sha2-256,32,TWOFISH-CBC,HMAC-SHA-256-128 [RFC4868]
twofish-cbc,32,hmac-sha2-256,32,TWOFISH-CBC,HMAC-SHA-256-128 [RFC4868]
null,0,hmac-sha2-384,48,NULL,HMAC-SHA-384-192 [RFC4868]
aes-cbc,16,hmac-sha2-256,32,AES-CBC [RFC3602],HMAC-SHA-256-128 [RFC4868]
aes-cbc,24,hmac-sha2-512,64,AES-CBC [RFC3602],HMAC-SHA-512-256 [RFC4868]
aes-cbc,32,aes-cmac,16,AES-CBC [RFC3602],ANY 96 bit authentication [no checking]
aes-ctr,20,hmac-sha1,20,AES-CTR [RFC3686],HMAC-SHA-1-96 [RFC2404]
aes-ctr,36,aes-xcbc-mac,16,AES-CTR [RFC3686],ANY 96 bit authentication [no checking]
aes-gcm-8,20,,0,AES-GCM with 8 octet ICV [RFC4106],NULL
aes-gcm-12,28,,0,AES-GCM with 12 octet ICV [RFC4106],NULL
aes-gcm-16,36,,0,AES-GCM with 16 octet ICV [RFC4106],NULL'

sniff left to-right dumper -w "$work/esp.pcap" esp

# one SPI and one ping for each row; tshark gets all SAs at once
set --
n=0
while IFS=, read -r enc bits auth authbits their_enc their_auth; do
	spi=$((4096 + n))
	words="-E $enc $(bytes "$bits")"
	[ -z "$auth" ] || words="$words -A $auth $(bytes "$authbits")"
	printf 'flush; spdflush;\nadd 10.1.0.1 10.1.0.2 esp %d -m transport %s;\nadd 10.1.0.2 10.1.0.1 esp 8192 -m transport -E null -A hmac-sha1 "01234567890123456789";\n' \
		$spi "$words" >"$work/keys"
	{ cat "$work/keys"; require 10.1.0.1 10.1.0.2; } | setkey left || fail "left refuses $enc $auth"
	{ cat "$work/keys"; require 10.1.0.2 10.1.0.1; } | setkey right || fail "right refuses $enc $auth"
	at left ping -c 1 -W 2 -p "$(printf '6b6970%02x' $n)" 10.1.0.2 >/dev/null || fail "no ping with $enc $auth"
	set -- "$@" -o "uat:esp_sa:\"IPv4\",\"10.1.0.1\",\"10.1.0.2\",\"$(printf '0x%08x' $spi)\",\"$their_enc\",\"$(bytes "$bits")\",\"$their_auth\",\"$(bytes "$authbits")\""
	n=$((n + 1))
done <<END
$list
END
sniffed dumper
tshark -r "$work/esp.pcap" -o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE "$@" \
	-Y 'ip.src == 10.1.0.1' -T fields -e esp.spi -e icmp.type -e esp.icv_good -e data.data >"$work/tshark" 2>"$work/tshark.err" ||
	fail "tshark: $(cat "$work/tshark.err")"

n=0
while IFS=, read -r enc bits auth _ _ their_auth; do
	step "$enc $((bits * 8)) $auth"
	good='1\|True'
	case $their_auth in ANY*) good='.*' ;; esac # not checked
	pattern=$(printf '^0x%08x\t8\t\(%s\)\t.*6b6970%02x6b6970%02x' $((4096 + n)) "$good" $n $n)
	contains "tshark" "$work/tshark" "$pattern"
	n=$((n + 1))
done <<END
$list
END
