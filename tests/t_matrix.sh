#!/bin/sh
# The matrix: protocol × mode × family × outer family × algorithm, with a ping and a UDP datagram of 65,000 bytes in each
# cell. The algorithms and their keys come from package alg, through tests/rows.
#
# All cells are loaded at once. Cell I of kind K has its own pair of addresses, 10.K.I.1|.2 or fd00:K:I::1|::2, its own
# SPIs and the reqid K*256+I; in the kinds that tunnel the outer addresses are those of the wire.
#
#   left 10.1.0.1 fd00:1::1 ───── right 10.1.0.2 fd00:1::2
#
# PROTOCOLS="esp …" chooses the rows.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
protocols=${PROTOCOLS:-esp esp-old ah ah-old ipcomp}
rows=$(helper rows) || skip "no go to list the algorithms with"
# shellcheck disable=SC2086 # a list of words
"$rows" $protocols >"$work/rows.list"
two_hosts
daemon left
daemon right

# kinds: number, mode, family of the addresses, outer ends on the left and on the right (- for transport mode)
kinds='31 transport 4 - -
32 transport 6 - -
33 tunnel 4 10.1.0.1 10.1.0.2
34 tunnel 4 fd00:1::1 fd00:1::2
35 tunnel 6 10.1.0.1 10.1.0.2
36 tunnel 6 fd00:1::1 fd00:1::2'

# Writes the addresses, the cells and, for each host, the script of setkey.
echo "$kinds" | awk -v work="$work" '
	NR == FNR { kinds[FNR] = $0; n = FNR; next }
	FNR > 255 { print "more rows than addresses" > "/dev/stderr"; exit 1 }
	{
		proto = $1; label = $2; words = $0
		sub(/^[^ ]+ [^ ]+ /, "", words)
		# policies name the header, whatever its format
		header = proto; sub(/-old$/, "", header)
		for (k = 1; k <= n; k++) {
			split(kinds[k], kind)
			mode = kind[2]
			if (kind[3] == 4) { a = "10." kind[1] "." FNR ".1"; b = "10." kind[1] "." FNR ".2"; bits = 24 }
			else { a = "fd00:" kind[1] ":" FNR "::1"; b = "fd00:" kind[1] ":" FNR "::2"; bits = 64 }
			left = a; right = b; there = ""; back = ""
			if (mode == "tunnel") { left = kind[4]; right = kind[5]; there = left "-" right; back = right "-" left }
			id = kind[1] * 256 + FNR
			nodad = bits == 64 ? " nodad" : ""
			print "addr add " a "/" bits " dev to-right" nodad > work "/left.addresses"
			print "addr add " b "/" bits " dev to-left" nodad > work "/right.addresses"
			sa = "add %s %s " proto " %d -m " mode " -u " id " " words ";\n"
			spi = proto == "ipcomp" ? 2 * id : 65536 + 2 * id # a CPI has 16 bits
			printf sa sa, left, right, spi, right, left, spi + 1 > work "/keys"
			policy = "spdadd %s %s any -P %s ipsec " header "/" mode "/%s/unique:" id ";\n"
			printf policy policy, a, b, "out", there, b, a, "in", back > work "/left.policies"
			printf policy policy, b, a, "out", back, a, b, "in", there > work "/right.policies"
			outer = mode == "tunnel" ? (left ~ /:/ ? "/IPv6" : "/IPv4") : ""
			print proto "/" mode "/IPv" kind[3] outer "/" label, a, b > work "/cells"
		}
	}' - "$work/rows.list" || fail "the matrix cannot be written"

cells=$(wc -l <"$work/cells")
step "$cells cells of $(wc -l <"$work/rows.list") rows"
for h in left right; do
	at $h ip -batch "$work/$h.addresses"
	cat "$work/keys" "$work/$h.policies" | setkey $h >"$work/setkey.out" 2>"$work/setkey.err" || fail "setkey on $h: $(head -5 "$work/setkey.out" "$work/setkey.err")"
done

cat >"$work/cells.py" <<'PY'
"""cells.py serve: answer datagrams with their digest. cells.py FILE: a ping and 65,000 bytes for each "LABEL SRC DST"."""
import hashlib, os, select, socket, subprocess, sys

def udp(addr, port):
    s = socket.socket(socket.AF_INET6 if ":" in addr else socket.AF_INET, socket.SOCK_DGRAM)
    if s.family == socket.AF_INET6:
        s.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
    s.bind((addr, port))
    return s

if sys.argv[1] == "serve":
    sockets = [udp("0.0.0.0", 5000), udp("::", 5000)]
    print("ready", flush=True)
    while True:
        for s in select.select(sockets, [], [])[0]:
            data, peer = s.recvfrom(70000)
            s.sendto(hashlib.sha256(data).digest(), peer)

data = os.urandom(65000)
bad = 0
for line in open(sys.argv[1]):
    label, src, dst = line.split()
    ping = subprocess.run(["ping", "-n", "-c", "1", "-W", "2", "-I", src, dst], stdout=subprocess.DEVNULL)
    s = udp(src, 0)
    s.settimeout(2)
    s.sendto(data, (dst, 5000))
    try:
        answer = s.recv(100) == hashlib.sha256(data).digest()
    except OSError:
        answer = False
    s.close()
    if ping.returncode or not answer:
        print(label, "ping fails" if ping.returncode else "", "" if answer else "65,000 bytes fail", flush=True)
        bad += 1
        if bad == 20:
            sys.exit("and perhaps more")
sys.exit(bad > 0)
PY
behind serve right /usr/bin/python3 "$work/cells.py" serve >"$work/serve"
wait_for 5 grep -q ready "$work/serve" || fail "no server"

# IPComp leaves alone what is small or random, which is all that passes here: t_ipcomp.sh looks at what it compresses.
exempt=$(awk '/^ipcomp\/transport/ { printf " and not host %s", $2 }' "$work/cells")
if grep -q ^ipcomp "$work/cells"; then exempt="$exempt and not ip proto 4 and not ip proto 41 and not ip6 proto 4 and not ip6 proto 41"; fi
sniff left to-right wire "(net 10.0.0.0/8 or net fd00::/16) and not arp and not esp and not ah and not ip proto 108 and not ip6 proto 108 and not (icmp6 and ip6[40] >= 133) and not (ip6 proto 44) and not (ip[6:2] & 0x1fff != 0)$exempt"
at left /usr/bin/python3 "$work/cells.py" "$work/cells" >"$work/bad" 2>&1 || fail "cells: $(cat "$work/bad")"
sniffed wire
equal "clear packets on the wire" "$(head -3 "$work/wire")" ""

# A cell's packets went through the cell's SAs: a ping and a datagram each way. A tunnel gets a large IPv6 datagram in pieces.
proven=$(grep -vc ^ipcomp "$work/cells")
for h in left right; do
	at $h "$BIN/setkey" -D >"$work/sad"
	equal "SAs of $h" "$(grep -c 'allocated:' "$work/sad")" $((2 * cells))
	equal "SAs of $h that took two packets" "$(awk '/allocated:/ && $2 >= 2 { n++ } END { print n }' "$work/sad")" $((2 * proven))
done
contains "-D" "$work/sad" "replay=512 flags=0x00000440 state=mature"
