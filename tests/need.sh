#!/bin/sh
# Installs the Debian packages whose programs a make target runs, where they are missing.
# usage: need.sh demo|test|bench|lint
set -eu

demo='ip:iproute2 ping:iputils-ping tcpdump:tcpdump nc:netcat-openbsd'
test="$demo nft:nftables tshark:tshark busybox:busybox-static python3:python3-scapy unshare:util-linux sysctl:procps swanctl:strongswan-swanctl charon-systemd:charon-systemd iked:openiked"
bench="$demo swanctl:strongswan-swanctl charon-systemd:charon-systemd"
lint='shellcheck:shellcheck'

case ${1:-} in
demo) wanted=$demo ;;
test) wanted=$test ;;
bench) wanted=$bench ;;
lint) wanted=$lint ;;
*)
	echo "usage: need.sh demo|test|bench|lint" >&2
	exit 2
	;;
esac

# Who comes second finds installed what the first has installed.
if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
	exec 9>/run/kipsec-need.lock
	flock 9
fi

missing=
for pair in $wanted; do
	command -v "${pair%%:*}" >/dev/null 2>&1 || missing="$missing ${pair#*:}"
done
case " $wanted " in
*:python3-scapy*)
	/usr/bin/python3 -c 'import scapy' 2>/dev/null || missing="$missing python3-scapy"
	/usr/bin/python3 -c 'import cryptography' 2>/dev/null || missing="$missing python3-cryptography"
	;;
esac
case " $wanted " in
*:charon-systemd*)
	plugins=/usr/lib/ipsec/plugins/libstrongswan
	[ -e $plugins-kernel-libipsec.so ] || missing="$missing libcharon-extra-plugins"
	[ -e $plugins-gcm.so ] || missing="$missing libstrongswan-standard-plugins"
	[ -e $plugins-chapoly.so ] || missing="$missing libstrongswan-extra-plugins"
	;;
esac
[ -n "$missing" ] || exit 0

if [ "$(id -u)" != 0 ] || ! command -v apt-get >/dev/null 2>&1; then
	echo "need.sh: please install:$missing" >&2
	[ "$1" = test ] && exit 0 # the tests that want them skip and say so
	exit 1
fi
echo "installing$missing"
export DEBIAN_FRONTEND=noninteractive
log=$(mktemp)
trap 'rm -f "$log"' EXIT
# shellcheck disable=SC2086 # a list of packages
if ! { apt-get update -q && apt-get install -q -y --no-install-recommends $missing; } >"$log" 2>&1; then
	cat "$log" >&2
	exit 1
fi
case $missing in
*charon-systemd*) systemctl disable --now strongswan >/dev/null 2>&1 || : ;; # the tests start their own
esac
case $missing in
*openiked*) systemctl disable --now openiked >/dev/null 2>&1 || : ;;
esac
