#!/bin/sh
# kipsecd without the initial root: everything inside unshare -Urnm, with a second namespace as the peer.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
unshare -Urnm true 2>/dev/null || skip "this kernel makes no user namespaces"
here=$(cd "$(dirname "$0")" && pwd)
cat >"$work/inside.sh" <<END
set -eu
export PATH="$BIN:\$PATH"
mount -t tmpfs tmpfs /run
mkdir /run/netns
ip link set lo up
ip addr add 10.1.0.3/32 dev lo
kipsecd >"$work/log" 2>&1 &
daemon=\$!
i=0
while ! grep -q ready "$work/log"; do
	i=\$((i + 1))
	[ \$i -lt 200 ] || { cat "$work/log"; exit 1; }
	sleep 0.05
done
test "\$(cat /run/kipsec/default/sys/net/inet/ipsec/dfbit)" = 0
test "\$(sysctl -n net.inet.ipsec.wire.hook)" = packet # programs are for the first user namespace
test "\$(grep -c 'receives by a packet socket: no program at tcx: ' "$work/log")" = 1
test "\$(wc -l <"$work/log")" = 2
echo 2 >/run/kipsec/default/sys/net/inet/ipsec/dfbit
test "\$(sysctl -n net.inet.ipsec.dfbit)" = 2
setkey -c <<EOF
$(transport_keys 127.0.0.1 10.1.0.3)
$(require 127.0.0.1 10.1.0.3)
spdadd 10.1.0.3 127.0.0.1 any -P out ipsec esp/transport//require;
spdadd 127.0.0.1 10.1.0.3 any -P in ipsec esp/transport//require;
EOF
ping -c 1 -W 2 -I 127.0.0.1 10.1.0.3
setkey -D | grep 'allocated: 2'
kipsec-run /usr/bin/python3 "$here/kernel_client.py" peek 3 | grep 'peek ok'
kipsec-run /usr/bin/python3 "$here/kernel_client.py" options | grep 'v4 out bypass ok'
kill \$daemon
wait \$daemon
test ! -e /run/kipsec
echo all is well
END
unshare -Urnm sh "$work/inside.sh" >"$work/out" 2>&1 || fail "inside: $(cat "$work/out")"
contains "the inside" "$work/out" "all is well"
