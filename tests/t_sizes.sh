#!/bin/sh
# Packets of every size: ping and UDP up to 65,507 bytes, fragmented after encapsulation and reassembled before
# decapsulation, and TCP at full segment size; tunnel and transport mode, both families.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
two_hosts
daemon left
daemon right

# load MODE A B: with windows as in t_path_mtu.sh, for whole packets among fragments
load() {
	{
		echo "flush; spdflush;"
		echo "add $2 $3 esp 0x1001 -m $1 -r 32 -E aes-gcm-16 $key_gcm;"
		echo "add $3 $2 esp 0x1002 -m $1 -r 32 -E aes-gcm-16 $key_gcm_back;"
	} >"$work/keys"
	there='' back=''
	[ "$1" = transport ] || there=$2-$3 back=$3-$2
	{ cat "$work/keys"; printf 'spdadd %s %s any -P out ipsec esp/%s/%s/require;\nspdadd %s %s any -P in ipsec esp/%s/%s/require;\n' \
		"$2" "$3" "$1" "$there" "$3" "$2" "$1" "$back"; } | setkey left
	{ cat "$work/keys"; printf 'spdadd %s %s any -P out ipsec esp/%s/%s/require;\nspdadd %s %s any -P in ipsec esp/%s/%s/require;\n' \
		"$3" "$2" "$1" "$back" "$2" "$3" "$1" "$there"; } | setkey right
}

for a in 10.1.0.2 fd00:1::2; do
	behind serve right /usr/bin/python3 "$(dirname "$0")/udp.py" serve $a >"$work/serve"
	wait_for 10 grep -q serving "$work/serve" || fail "nobody serves $a"
done
head -c 3000000 /dev/urandom >"$work/data"

for mode in transport tunnel; do
	for pair in "10.1.0.1 10.1.0.2" "fd00:1::1 fd00:1::2"; do
		step "$mode $pair"
		a=${pair% *} b=${pair#* }
		load $mode "$a" "$b"
		for size in 1 8 56 1200 1400 1424 1432 1440 1448 1456 1464 1472 1473 1480 2000 2960 9000 32768 65000; do
			at left ping -c 1 -W 3 -s $size "$b" >"$work/out" 2>&1 || { fail "ping -s $size $b"; cat "$work/out"; }
			at left /usr/bin/python3 "$(dirname "$0")/udp.py" "$b" 1 $size || fail "UDP of $size bytes to $b"
		done
		if [ $mode = tunnel ]; then
			at left ping -c 1 -W 3 -s 65507 "$b" >/dev/null || fail "ping -s 65507 $b"
			at left /usr/bin/python3 "$(dirname "$0")/udp.py" "$b" 1 65507 || fail "UDP of 65507 bytes to $b"
		fi
		sniff right to-left wire "host $a and not arp and not esp and not (icmp6 and ip6[40] >= 133) and not (ip6 proto 44) and not (ip[6:2] & 0x1fff != 0)"
		listen right got "$b" 4000
		at left nc -N "$b" 4000 <"$work/data" || fail "TCP to $b"
		wait_for 5 cmp "$work/data" "$work/got" || fail "TCP to $b: data differs"
		sniffed wire
		equal "clear packets" "$(wc -l <"$work/wire")" 0
	done
done

step "TCP is not fragmented"
load tunnel 10.1.0.1 10.1.0.2
sniff right to-left wire "ip[6:2] & 0x3fff != 0"
listen right got 10.1.0.2 4000
at left nc -N 10.1.0.2 4000 <"$work/data"
wait_for 5 cmp "$work/data" "$work/got" || fail "data differs"
sniffed wire
equal "fragments" "$(wc -l <"$work/wire")" 0
