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
contains -D "$work/sad" "^${t}E: null \$"
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

step "exit status: 0 when all is well and for empty dumps, 1 after any error, with what follows done all the same"
status() {
	want=$1
	shift
	got=0
	"$@" >"$work/out" 2>"$work/err" || got=$?
	equal "exit status of $*" "$got" "$want"
}
for o in -D -DP -DPg -DPt -F -FP -h; do status 0 at left "$k" $o; done
for o in "" -q -f -K "-f /no/such/file" /no/such/file; do
	# shellcheck disable=SC2086 # an option and its argument
	status 1 at left "$k" $o
done
status 1 at left "$k" -K no-such-daemon -D
printf 'delete 10.0.0.1 10.0.0.2 esp 1000;\nadd 10.0.0.1 10.0.0.2 esp 1000 -E null;\n' >"$work/script"
status 1 at left "$k" -f "$work/script"
equal "stdout of -f" "$(cat "$work/out")" ""
equal "stderr of -f" "$(cat "$work/err")" "setkey: $work/script,1: No entry"
at left "$k" -D >"$work/sad"
contains "after the error" "$work/sad" "spi=1000"
printf '\nadd 10.0.0.1 10.0.0.2 esp 1001 -E aes-cbc "";\nflush;\n' >"$work/script"
status 1 at left "$k" -f "$work/script"
equal "a parse error" "$(cat "$work/err")" "0 128 256
setkey: $work/script,2: Invalid key length at \`aes-cbc'
setkey: $work/script,2: parse failed"
at left "$k" -D >"$work/sad"
contains "nothing after a parse error is done with -f" "$work/sad" "spi=1000"
status 1 at left "$k" -c <"$work/script"
equal "with -c, stdout" "$(cat "$work/out")" "Invalid key length at \`aes-cbc'"
equal "with -c, stderr" "$(cat "$work/err")" "0 128 256"
equal "and what follows is done" "$(at left "$k" -D)" "No SAD entries."
status 1 at left "$k" -c <<'END'
spdadd tagged "x" -P in ipsec esp/transport//require;
END
contains "tagged" "$work/out" "^Invalid argument\.\$"

step "what scripts rely on when they parse dumps"
must at left "$k" -c <<'END'
add 10.0.0.1 10.0.0.2 esp 10000 -m transport -u 7 -r 4 -E aes-cbc "aaaaaaaaaaaaaaaa" -A hmac-sha1 "aaaaaaaaaaaaaaaaaaaa";
add 10.0.0.1 10.0.0.2 ah 10001 -lh 60 -A hmac-sha512 0x000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f;
add fd00::1 fd00::2 ipcomp 0x1000 -C deflate -R;
add 10.0.0.3[500] 10.0.0.4[4501] esp-udp 192.168.1.1 10002 -E des-cbc 0x0123456789abcdef;
END
at left "$k" -D >"$work/sad"
# The terms of scriptdump.pl: an entry begins in the first column, a key has its name and words of hex.
awk '
	/^[0-9a-f.:]+(\[[0-9]+\])? / { src = $1; dst = $2 }
	/^\t(esp|ah|ipcomp|esp-udp) mode=/ {
		proto = $1; mode = substr($2, 6)
		spi = substr($3, 5); sub(/\(.*/, "", spi)
		reqid = substr($4, 7); sub(/\(.*/, "", reqid)
		enc = auth = comp = ""; inauth = 0
	}
	/^\tE: / { enc = $2; for (i = 3; i <= NF; i++) enc = enc (i == 3 ? "=" : "") $i }
	/^\tA: / { auth = $2; for (i = 3; i <= NF; i++) auth = auth (i == 3 ? "=" : "") $i; inauth = 1; next }
	/^ / && inauth { for (i = 1; i <= NF; i++) auth = auth $i }
	/^\tC: / { comp = $2 }
	/\tseq=0x/ { inauth = 0; state = $0; sub(/.*state=/, "", state); sub(/ *$/, "", state)
		print src, dst, proto, mode, spi, reqid, enc auth comp, state }
' "$work/sad" | sort >"$work/parsed"
sort >"$work/want" <<'END'
10.0.0.1 10.0.0.2 esp transport 10000 7 aes-cbc=61616161616161616161616161616161hmac-sha1=6161616161616161616161616161616161616161 mature
10.0.0.1 10.0.0.2 ah any 10001 0 hmac-sha512=000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f303132333435363738393a3b3c3d3e3f mature
fd00::1 fd00::2 ipcomp any 4096 0 deflate mature
10.0.0.3[500] 10.0.0.4[4501] esp-udp any 10002 0 des-cbc=0123456789abcdef mature
END
diff "$work/want" "$work/parsed" >&3 || fail "the dump parses to something else"

step "the variables net.key.dumpsa and dumpsp are messages that setkey prints"
printf 'spdadd 10.0.0.1 10.0.0.2 icmp 8,0 -P out none;\n' | must at left "$k" -c
steady='s/pid=.*//; s/current: [A-Z].*//; s/diff: .*//'
for pair in dumpsa:-D dumpsp:-DP; do
	at left "$k" "$(sys left)/net/key/${pair%:*}" | sed "$steady" >"$work/stored"
	at left "$k" "${pair#*:}" | sed "$steady" | diff "$work/stored" - >&3 || fail "${pair%:*} prints as something else"
done
must at left "$k" -FP

step "-l: a line for each SA, again every second"
behind short left "$k" -lD >"$work/short"
wait_for 5 sh -c "[ \$(grep -c ' 00002710 ' $work/short) -ge 2 ]" || fail "-l does not repeat"
kill "$(pid short)"
equal "the header" "$(head -1 "$work/short")" "time p   s spi      ltime   src -> dst"
equal "headers" "$(grep -c ^time "$work/short")" 1
contains -l "$work/short" '^[0-5][0-9][0-5][0-9] esp M 00002710 ???/??? 10.0.0.1 -> 10.0.0.2$'
contains -l "$work/short" '^[0-5][0-9][0-5][0-9] ah  M 00002711 [ 0-9][ 0-9][0-9]/60  10.0.0.1 -> 10.0.0.2$'

step "-x sees what others send"
behind watch left "$k" -xx >"$work/watch"
wait_for 5 grep -q '^[0-9]*\.[0-9]\{6\} $' "$work/watch" || fail "-xx prints no time"
printf 'delete 10.0.0.1 10.0.0.2 esp 10000;\nspdadd 10.0.0.1 10.0.0.2 udp -P out none;\n' | must at left "$k" -c
wait_for 5 awk '/type=14/ { seen = 1 } seen && /^ 0a000001  }$/ { both = 1 } END { exit !both }' "$work/watch" || fail "-x does not see the spdadd"
kill "$(pid watch)"
contains -x "$work/watch" '^sadb_msg{ version=2 type=4 errno=0 satype=3$'
contains -x "$work/watch" '^sadb_sa{ spi=10000 '
contains -x "$work/watch" '^sadb_address{ proto=17 prefixlen=32 reserved=0x0000 }$'
contains -x "$work/watch" '^sockaddr{ len=16 family=2 port=0$'
contains -x "$work/watch" '^ 0a000001  }$'
must at left "$k" -F
must at left "$k" -FP

step "messages from a file"
echo 'spdadd 10.0.0.1 10.0.0.2 udp -P out none; delete ::1 ::2 ah 1000;' |
	"$k" -nHc | sed -n 's/^[0-9a-f]\{8\}: //p' |
	python3 -c 'import sys; sys.stdout.buffer.write(bytes.fromhex(sys.stdin.read()))' >"$work/messages"
must "$k" "$work/messages" >"$work/out"
equal messages "$(grep -c '^sadb_msg{' "$work/out")" 2
contains FILE "$work/out" '^sadb_x_policy{ type=1 dir=2 id=0 priority=2147483648 }$'
printf x >>"$work/messages"
refuse "$k" "$work/messages" >/dev/null 2>"$work/err"
contains "a cut file" "$work/err" "too short"

step "a terminal: history, completion, Ctrl-C, errors that do not end it"
status 1 at left "$(dirname "$0")/terminal.py" "$k" -c <<'END'
> setkey> 
du\tesp\r
> dump esp
>       > 
;\r
> No SAD entries.
> setkey> 
add ::1 ::2 esp 10\x03dump;\r
> No SAD entries.
> setkey> 
spdadd ::1 ::2 any -P out ipsec es\ttr\t
> esp/transport//
require;\r
> setkey> 
spdadd ::1 ::2\r
>       > 
any -P in none\x03
> setkey> 
spddump;\r
> out ipsec
> spid=
> setkey> 
nonsense; flush @; dump;\r
> syntax error at `nonsense'
> Syntax error at `@'
> setkey> 
spdd\t
> spddelete  spddump
\x03
> setkey> 
\x1b[A\r
> syntax error at `nonsense'
> setkey> 
help\r
> spdflush;
> setkey> 
add ::1 ::2 esp 1000 -E null;\r
> setkey> 
\x04
END
cat "$work/err" >&3
must at left "$k" -D >"$work/out"
contains "what was typed" "$work/out" "spi=1000"
equal "policies typed" "$(at left "$k" -DP | grep -c spid=)" 1
status 0 at left "$(dirname "$0")/terminal.py" "$k" -c <<'END'
> setkey> 
flush; spdflush; quit; nonsense;\r
END
equal "SAD" "$(at left "$k" -D)" "No SAD entries."

step "a script that is pasted into a terminal"
{
	echo '> setkey> '
	i=1000
	while [ $i -lt 1100 ]; do
		printf '%s' "add 10.0.0.1 10.0.0.2 esp $i\\r-m transport -E null;\\r"
		i=$((i + 1))
	done
	printf '%s\n' 'flush ah; quit;\r'
} >"$work/paste"
status 0 at left "$(dirname "$0")/terminal.py" "$k" -c <"$work/paste"
equal "SAs" "$(at left "$k" -D | grep -c state=mature)" 100
equal "lines shown" "$(grep -c 'transport -E null;' "$work/out")" 100
must at left "$k" -F

step "others than root are not served"
refuse at left setpriv --reuid 65534 --regid 65534 --clear-groups "$k" -D 2>"$work/err" >"$work/out"
lacks "as nobody" "$work/out" entries
