#!/bin/sh
# The tree of variables behaves as /proc/sys does, whatever touches it.
# shellcheck source=lib.sh
. "$(dirname "$0")/lib.sh"
host left
daemon left
cd "$(sys left)" || exit 1
v=net/inet/ipsec/dfbit

step "every variable of the manual is there with its default"
while read -r name want; do
	equal "$name" "$(cat "$name")" "$want"
done <<'END'
net/inet/ipsec/esp_trans_deflev 1
net/inet/ipsec/esp_net_deflev 1
net/inet/ipsec/ah_trans_deflev 1
net/inet/ipsec/ah_net_deflev 1
net/inet/ipsec/def_policy 1
net/inet/ipsec/ah_cleartos 1
net/inet/ipsec/ah_offsetmask 0
net/inet/ipsec/dfbit 0
net/inet/ipsec/ecn 0
net/inet/ipsec/debug 0
net/inet/ipsec/enabled 1
net/inet/ipsec/used 0
net/inet6/ipsec6/esp_trans_deflev 1
net/inet6/ipsec6/esp_net_deflev 1
net/inet6/ipsec6/ah_trans_deflev 1
net/inet6/ipsec6/ah_net_deflev 1
net/inet6/ipsec6/def_policy 1
net/inet6/ipsec6/ecn 0
net/inet6/ipsec6/debug 0
net/inet6/ipsec6/enabled 1
net/inet6/ipsec6/used 0
net/key/spi_trycnt 1000
net/key/spi_minval 256
net/key/spi_maxval 268435455
net/key/larval_lifetime 30
net/key/blockacq_count 10
net/key/blockacq_lifetime 20
net/key/esp_keymin 256
net/key/esp_auth 0
net/key/ah_keymin 128
net/key/preferred_oldsa 1
net/key/debug 0
net/inet/ipsec/stats/in_success 0
net/inet6/ipsec6/stats/out_nosa 0
END

step "accepted and refused values"
while read -r name value want; do
	old=$(cat "$name")
	if sh -c "/bin/echo $value >$name" 2>"$work/err"; then got=ok; else got=EINVAL; fi
	equal "echo $value >$name" "$got" "$want"
	if [ "$want" = ok ]; then
		equal "$name" "$(cat "$name")" "$((value))"
	else
		equal "$name after a refusal" "$(cat "$name")" "$old"
		contains "the error" "$work/err" "Invalid argument"
	fi
done <<'END'
net/inet/ipsec/dfbit 2 ok
net/inet/ipsec/dfbit 3 EINVAL
net/inet/ipsec/enabled 2 EINVAL
net/inet/ipsec/dfbit -1 EINVAL
net/inet/ipsec/ecn -1 ok
net/inet/ipsec/ecn 2 EINVAL
net/inet/ipsec/def_policy 2 EINVAL
net/inet/ipsec/esp_trans_deflev 2 ok
net/inet/ipsec/esp_trans_deflev 0 EINVAL
net/inet/ipsec/esp_net_deflev 3 EINVAL
net/inet/ipsec/ah_cleartos -77 ok
net/inet/ipsec/ah_offsetmask 0x4000 ok
net/inet/ipsec/dfbit bad EINVAL
net/inet/ipsec/dfbit 1x EINVAL
net/inet/ipsec/ah_cleartos 99999999999 EINVAL
net/inet6/ipsec6/def_policy 9 EINVAL
net/inet6/ipsec6/ecn 1 ok
END
echo 0 >$v

step "debug is one variable in two trees"
echo 5 >net/inet6/ipsec6/debug
equal debug "$(cat net/inet/ipsec/debug)" 5
echo 0 >net/inet/ipsec/debug
equal debug "$(cat net/inet6/ipsec6/debug)" 0

step "every way to write"
printf 1 >$v && equal printf "$(cat $v)" 1
echo 2 | tee $v >/dev/null && equal tee "$(cat $v)" 2
echo 1 >>$v && equal append "$(cat $v)" 1
echo 2 | dd of=$v 2>/dev/null && equal dd "$(cat $v)" 2
printf ' 1 \n' >$v && equal blanks "$(cat $v)" 1
cp /dev/null $v && equal "empty write" "$(cat $v)" 1
refuse dd if=/dev/zero of=$v bs=4 count=1 2>/dev/null
refuse dd if=/dev/zero of=$v bs=8192 count=1 2>/dev/null
equal "after garbage" "$(cat $v)" 1
truncate -s 0 $v && equal truncate "$(cat $v)" 1

step "every way to read"
equal grep "$(grep -r . net/inet/ipsec/dfbit)" 1
equal "grep -r" "$(grep -rc . net/inet/ipsec | grep -c dfbit:1)" 1
equal "ls -l" "$(stat -c '%A %s %U' $v)" "-rw-r--r-- 2 root"
equal "a counter's mode" "$(stat -c %A net/inet/ipsec/stats/in_success)" "-r--r--r--"
equal find "$(find . -name dfbit -size 2c)" "./$v"
equal "dd" "$(dd if=$v 2>/dev/null)" 1
equal busybox "$(busybox cat $v)" 1
tar cf "$work/tree.tar" net && equal tar "$(tar xOf "$work/tree.tar" $v)" 1
[ -s $v ] || fail "the file looks empty"
equal "find all" "$(find . -type f ! -readable | wc -l)" 0

step "the dumps are PF_KEY messages, for root alone"
equal "an empty SADB" "$(wc -c <net/key/dumpsa)" 0
{ transport_keys 10.1.0.1 10.1.0.2; require 10.1.0.1 10.1.0.2; } | setkey left
equal "SAs in dumpsa" "$(od -An -v -tx1 net/key/dumpsa | tr -d ' \n' | grep -o '020a000[23]' | wc -l)" 2
equal "mode of dumpsa" "$(stat -c %A net/key/dumpsa)" "-r--------"
equal "mode of dumpsp" "$(stat -c %A net/key/dumpsp)" "-r--------"
[ "$(wc -c <net/key/dumpsp)" -gt 100 ] || fail "dumpsp is too short"
equal "sysctl -b" "$(at left "$BIN/sysctl" -b net.key.dumpsp | cksum)" "$(cksum <net/key/dumpsp)"
at left "$BIN/sysctl" net.key.dumpsp >"$work/dump"
contains sysctl "$work/dump" "net.key.dumpsp = Format: Length:$(wc -c <net/key/dumpsp) Dump:0x0212"
at left "$BIN/sysctl" -a >"$work/dump"
lacks "sysctl -a" "$work/dump" "dumpsa"

step "nothing else can be done"
for try in "rm -f $v" "mv $v x" "mkdir d" "touch new" "ln -s a b" "ln $v hard" "mknod n p" "chmod 600 $v" "chown 1 $v" "rmdir net" \
	"mv net other"; do
	refuse sh -c "$try" 2>"$work/err"
	lacks "$try" "$work/err" "Input/output error"
done
refuse sh -c 'echo 1 >net/inet/ipsec/stats/in_success' 2>/dev/null
refuse sh -c 'echo 1 >net/nonsense' 2>/dev/null

step "others than root read only"
as="setpriv --reuid 65534 --regid 65534 --clear-groups"
equal "read as nobody" "$($as cat $v)" 1
# shellcheck disable=SC2086 # words of a command
refuse $as cat net/key/dumpsa 2>/dev/null
# shellcheck disable=SC2086 # words of a command
refuse $as sh -c "echo 0 >$v" 2>/dev/null
equal "after nobody wrote" "$(cat $v)" 1
cd /
