#!/bin/sh
# Two hosts, ESP in transport mode, both families, every algorithm: what the wire shows and what tshark decrypts.
#
#   left 10.1.0.1 fd00:1::1 ───── right 10.1.0.2 fd00:1::2
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right

# bytes N FIRST: a hex key
bytes() {
	printf 0x
	i=0
	while [ $i -lt "$1" ]; do
		printf %02x $((($2 + i) % 256))
		i=$((i + 1))
	done
}

# load A B ENCRYPTION INTEGRITY
load() {
	{
		echo "flush; spdflush;"
		echo "add $1 $2 esp 0x1001 -m transport -r 4 $3 $4;"
		echo "add $2 $1 esp 0x1002 -m transport -r 4 $3 $4;"
	} >"$work/keys"
	{ cat "$work/keys"; require "$1" "$2"; } | setkey left || fail "left refuses $3 $4"
	{ cat "$work/keys"; require "$2" "$1"; } | setkey right || fail "right refuses $3 $4"
}

# esp_only A B: the wire between two addresses carries ESP and no clear packet while a ping passes.
esp_only() {
	sniff left to-right wire "host $1 and not arp and not (icmp6 and ip6[40] >= 133)"
	at left ping -c 2 -i 0.2 -W 2 "$2" >/dev/null || fail "no ping $1 $2 with $3"
	sniffed wire
	contains "the wire with $3" "$work/wire" "$1 > $2: ESP(spi=0x00001001"
	contains "the wire with $3" "$work/wire" "$2 > $1: ESP(spi=0x00001002"
	equal "packets that are not ESP with $3" "$(grep -vc ESP "$work/wire")" 0
}

auth256="-A hmac-sha2-256 $(bytes 32 64)"
while read -r name key auth; do
	step "$name $auth"
	e="-E $name"
	[ "$key" = 0 ] || e="$e $(bytes "$key" 0)"
	case $auth in
	-) a= ;;
	hmac-md5) a="-A $auth $(bytes 16 64)" ;;
	hmac-sha1) a="-A $auth $(bytes 20 64)" ;;
	hmac-sha2-256) a=$auth256 ;;
	hmac-sha2-384) a="-A $auth $(bytes 48 64)" ;;
	hmac-sha2-512) a="-A $auth $(bytes 64 64)" ;;
	esac
	load 10.1.0.1 10.1.0.2 "$e" "$a"
	esp_only 10.1.0.1 10.1.0.2 "$name $auth"
	load fd00:1::1 fd00:1::2 "$e" "$a"
	esp_only fd00:1::1 fd00:1::2 "$name $auth"
done <<'END'
des-cbc 8 hmac-md5
3des-cbc 24 hmac-sha1
rijndael-cbc 16 hmac-sha2-256
aes-cbc 24 hmac-sha2-384
aes-cbc 32 hmac-sha2-512
aes-cbc 16 -
null 0 hmac-sha1
aes-ctr 20 hmac-sha1
aes-gcm-16 20 -
aes-gcm-16 36 -
chacha20-poly1305 36 -
END

step "tshark decrypts what the wire carried"
cbc=$(bytes 16 0) sha=$(bytes 32 64) gcm=$(bytes 20 0)
for suite in cbc gcm; do
	if [ $suite = cbc ]; then
		load 10.1.0.1 10.1.0.2 "-E aes-cbc $cbc" "-A hmac-sha2-256 $sha"
		sa="\"AES-CBC [RFC3602]\",\"$cbc\",\"HMAC-SHA-256-128 [RFC4868]\",\"$sha\""
	else
		load 10.1.0.1 10.1.0.2 "-E aes-gcm-16 $gcm" ""
		sa="\"AES-GCM with 16 octet ICV [RFC4106]\",\"$gcm\",\"NULL\",\"\""
	fi
	sniff left to-right dumper -w "$work/$suite.pcap" esp
	must at left ping -c 1 -p 6b697073 10.1.0.2 >/dev/null
	sniffed dumper
	tshark -r "$work/$suite.pcap" -o esp.enable_encryption_decode:TRUE -o esp.enable_authentication_check:TRUE \
		-o "uat:esp_sa:\"IPv4\",\"10.1.0.1\",\"10.1.0.2\",\"0x00001001\",$sa" \
		-T fields -e icmp.type -e data.data -e esp.icv_good -e esp.sequence >"$work/tshark" 2>"$work/tshark.err" || fail "tshark: $(cat "$work/tshark.err")"
	contains "tshark on $suite" "$work/tshark" "^8.*6b6970736b697073"
done

step "the counters of the SAs live"
at left "$BIN/setkey" -D >"$work/sad"
contains "-D" "$work/sad" "allocated: 1"
contains "-D" "$work/sad" "seq=0x00000001"

step "TCP passes at full size, and clear TCP is refused"
load 10.1.0.1 10.1.0.2 "-E aes-gcm-16 $gcm" ""
head -c 5000000 /dev/urandom >"$work/data"
listen right got 10.1.0.2 4000
at left nc -N 10.1.0.2 4000 <"$work/data" || fail "TCP does not pass"
wait_for 5 cmp "$work/data" "$work/got" || fail "TCP data differs"
at right "$BIN/setkey" -F
at right "$BIN/setkey" -FP
listen left stolen 10.1.0.1 4001
sniff left to-right wire "tcp and dst host 10.1.0.1"
echo secret | at right nc -N -w 2 10.1.0.1 4001 || :
sniffed wire
contains "the clear SYN" "$work/wire" "Flags \[S\]"
equal "what a clear peer got through" "$(cat "$work/stolen")" ""
