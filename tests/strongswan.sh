# shellcheck shell=sh disable=SC2154 # what lib.sh sets
# strongSwan with kernel-libipsec, ESP in UDP in user space, as a peer. Sourced after lib.sh.
charon=/usr/sbin/charon-systemd
plugins=/usr/lib/ipsec/plugins

# need_strongswan: skip where it is not installed.
need_strongswan() {
	for need in $charon $plugins/libstrongswan-kernel-libipsec.so $plugins/libstrongswan-gcm.so; do
		[ -e "$need" ] || skip "no $need (Debian: charon-systemd, libcharon-extra-plugins, libstrongswan-standard-plugins)"
	done
	command -v swanctl >/dev/null || skip "no swanctl (Debian: strongswan-swanctl)"
}

# children SUITE[,SUITE]... NETS PEERNETS: a CHILD_SA of swanctl.conf, with the name of the first suite.
children() { echo "${1%%,*} { local_ts = $2; remote_ts = $3; esp_proposals = $1; rekey_time = 0 }" | tr ';' '\n'; }

# swan HOST ADDRESS PEER PEERADDRESS NETS PEERNETS CHILDREN: strongSwan on the host, configured but idle.
swan() {
	dir=$work/swan-$1
	mkdir -p "$dir"
	cat >"$dir/strongswan.conf" <<-END
		charon-systemd {
			load = random nonce drbg aesni openssl chapoly aes sha1 sha2 hmac gcm gmp kdf pem pkcs1 kernel-libipsec kernel-netlink socket-default vici
			piddir = $dir
			filelog {
				log {
					path = $dir/log
					default = 1
					chd = 4
					esp = 1
					flush_line = yes
				}
			}
			plugins {
				vici {
					socket = unix://$dir/vici
				}
				kernel-libipsec {
					load = yes
				}
			}
		}
		swanctl {
			load = random
		}
	END
	cat >"$dir/swanctl.conf" <<-END
		connections {
			test {
				version = 2
				local_addrs = $2
				remote_addrs = $4
				proposals = aes128-sha256-modp2048
				local {
					auth = psk
					id = $1
				}
				remote {
					auth = psk
					id = $3
				}
				children {
					$(for suite in $7; do children "$suite" "$5" "$6"; done)
				}
			}
		}
		secrets {
			ike-test {
				secret = "not much of a secret"
			}
		}
	END
	behind "swan-$1" "$1" env STRONGSWAN_CONF="$dir/strongswan.conf" $charon >"$dir/out" 2>&1
	wait_for 10 [ -S "$dir/vici" ] || fail "charon on $1 does not start: $(cat "$dir/out" "$dir/log")"
	swanctl "$1" --load-all --file "$dir/swanctl.conf" >"$dir/load" 2>&1 || fail "swanctl: $(cat "$dir/load")"
}

# swanctl HOST ARGUMENT...
swanctl() {
	of=$1
	shift
	at "$of" env STRONGSWAN_CONF="$work/swan-$of/strongswan.conf" swanctl "$@" --uri "unix://$work/swan-$of/vici"
}
