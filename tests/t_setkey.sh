#!/bin/sh
# setkey(8) against a live kernel: commands, dumps in the reference's form, errors and exit status.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
host left
daemon left
k="$BIN/setkey"

step "empty databases"
equal "SAD" "$(at left "$k" -D)" "No SAD entries."
equal "SPD" "$(at left "$k" -DP)" "No SPD entries."

step "an SA in every spelling"
must at left "$k" -c <<'END'
add 10.0.0.1 10.0.0.2 esp 10000 -m transport -u 7 -r 4 -lh 60 -ls 30 -E aes-cbc "0123456789abcdef" -A hmac-sha1 "01234567890123456789";
add 10.0.0.1 10.0.0.2 esp 0x2711 -m tunnel -E rijndael-cbc 0x30313233343536373839616263646566 -A hmac-sha256 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f;
add -6 fd00::1 fd00::2 esp 10002 -f zero-pad -E null -A hmac-md5 "0123456789abcdef"; # a comment
add fd00::2 fd00::1 esp 10003 -E chacha20-poly1305
	0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223;
END
at left "$k" -D >"$work/sad"
t=$(printf '\t')
contains -D "$work/sad" '^10.0.0.1 10.0.0.2 $'
contains -D "$work/sad" "^${t}esp mode=transport spi=10000(0x00002710) reqid=7(0x00000007)\$"
contains -D "$work/sad" "^${t}E: aes-cbc  30313233 34353637 38396162 63646566\$"
contains -D "$work/sad" "^${t}A: hmac-sha1  30313233 34353637 38393031 32333435 36373839\$"
contains -D "$work/sad" "^${t}A: hmac-sha256  00010203"
contains -D "$work/sad" "replay=4 flags=0x00000040 state=mature \$"
contains -D "$work/sad" "^${t}diff: [0-9]*(s)${t}hard: 60(s)${t}soft: 30(s)\$"
contains -D "$work/sad" "^${t}esp mode=any spi=10002"
equal "SAs" "$(grep -c 'state=mature' "$work/sad")" 4
equal "last" "$(grep -c 'sadb_seq=0 ' "$work/sad")" 1

step "get, update, delete, deleteall, flush"
printf 'get 10.0.0.1 10.0.0.2 esp 10000;\n' | must at left "$k" -c >"$work/get"
contains get "$work/get" "spi=10000"
printf 'update 10.0.0.1 10.0.0.2 esp 10000 -m transport -u 7 -E aes-cbc "fedcba9876543210" -A hmac-sha1 "01234567890123456789";\n' |
	must at left "$k" -c
at left "$k" -D >"$work/sad"
contains update "$work/sad" "E: aes-cbc  66656463"
printf 'delete 10.0.0.1 10.0.0.2 esp 10000;\n' | must at left "$k" -c
printf 'delete 10.0.0.1 10.0.0.2 esp 10000;\n' | refuse at left "$k" -c >"$work/out" 2>&1
contains "a second delete" "$work/out" "No entry"
printf 'deleteall 10.0.0.1 10.0.0.2 esp;\n' | must at left "$k" -c
equal "SAs" "$(at left "$k" -D | grep -c state=mature)" 2
printf 'flush ah;\n' | must at left "$k" -c
equal "SAs" "$(at left "$k" -D | grep -c state=mature)" 2
must at left "$k" -F
equal "SAD" "$(at left "$k" -D)" "No SAD entries."

step "policies"
must at left "$k" -c <<'END'
spdadd 10.0.0.0/24[any] 10.0.1.0/24[80] tcp -P out ipsec esp/tunnel/1.1.1.1-2.2.2.2/unique:12 esp/transport//use;
spdadd fd00::/64 fd01::1 any -P in ipsec esp/transport//require;
spdadd 10.0.0.1 10.0.0.2 udp -P out none;
spdadd 10.0.0.5/24 0.0.0.0/0 icmp 8,0 -P in discard;
END
at left "$k" -DP >"$work/spd"
contains -DP "$work/spd" '^10.0.0.0/24\[any\] 10.0.1.0/24\[80\] 6(tcp)$'
contains -DP "$work/spd" "^${t}esp/tunnel/1.1.1.1-2.2.2.2/unique:12\$"
contains -DP "$work/spd" "^${t}esp/transport//use\$"
contains -DP "$work/spd" '^fd00::/64\[any\] fd01::1\[any\] 255(reserved)$'
contains -DP "$work/spd" "^${t}in discard"
contains -DP "$work/spd" "^${t}out none"
contains -DP "$work/spd" "^${t}spid=[0-9]* seq=0 pid="
printf 'spdadd 10.0.0.1 10.0.0.2 udp -P out none;\n' | refuse at left "$k" -c >"$work/out" 2>&1
contains "a second spdadd" "$work/out" "File exists"
printf 'spdupdate 10.0.0.1 10.0.0.2 udp -P out discard;\n' | must at left "$k" -c
printf 'spddelete 10.0.0.1 10.0.0.2 udp -P out;\n' | must at left "$k" -c
printf 'spddelete 10.0.0.1 10.0.0.2 udp -P out;\n' | refuse at left "$k" -c >/dev/null 2>&1
equal "policies" "$(at left "$k" -DP | grep -c spid=)" 3
printf 'spddump;\n' | must at left "$k" -c >"$work/out"
equal "spddump" "$(grep -c spid= "$work/out")" 3
must at left "$k" -FP
equal "SPD" "$(at left "$k" -DP)" "No SPD entries."

step "errors say file and line and make the exit status non-zero"
while IFS='|' read -r line text; do
	printf '# line one\n%s\n' "$line" >"$work/bad"
	refuse at left "$k" -f "$work/bad" >"$work/out" 2>&1
	contains "$line" "$work/out" "$text"
	contains "$line" "$work/out" "bad,2"
done <<'END'
add 10.0.0.1 10.0.0.2 esp 1000 -E aes-cbc "short" -A null;|Invalid key length
add 10.0.0.1 10.0.0.2 esp 255 -E null -A hmac-md5 "0123456789abcdef";|Invalid argument
add 10.0.0.1 10.0.0.2 esp 1000 -E des-cbc 0x0101010101010101;|weak key
add 10.0.0.1 10.0.0.2 esp 1000 -E nonsense 0x01;|unsupported algorithm
add 10.0.0.1 fd00::1 esp 1000 -E null;|amily
add 10.0.0.1 10.0.0.2 esp 1000 -A hmac-md5 "0123456789abcdef" -E null;|syntax error
add 10.0.0.1/24 10.0.0.2 esp 1000 -E null;|syntax error
spdadd 10.0.0.1 10.0.0.2 any -P out ipsec;|nvalid
spdadd 10.0.0.1 10.0.0.2 any -P ipsec esp/transport//require;|nvalid
spdadd 10.0.0.1 10.0.0.2 any -P out ipsec esp/tunnel//require;|Invalid address specification
spdadd 10.0.0.1 10.0.0.2 nonsense -P out none;|upper layer protocol
nonsense;|yntax error
END
refuse at left "$k" -f /no/such/file 2>/dev/null
refuse at left "$k" >/dev/null 2>&1
equal "SAD after the errors" "$(at left "$k" -D)" "No SAD entries."

step "others than root are not served"
refuse at left setpriv --reuid 65534 --regid 65534 --clear-groups "$k" -D 2>"$work/err" >"$work/out"
lacks "as nobody" "$work/out" entries
