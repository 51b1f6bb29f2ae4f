package main

import (
	"golang.org/x/sys/unix"

	"kipsec/kern/seccomp"
)

// What programs of a kernel with IPsec ask for (linux/in.h, linux/in6.h, linux/pfkeyv2.h, linux/udp.h).
const (
	ipPolicy   = 16 // IP_IPSEC_POLICY
	ipv6Policy = 34 // IPV6_IPSEC_POLICY

	pfKeyV2 = 2 // PF_KEY_V2

	noEncap  = 0 // UDP_ENCAP: none
	espInUDP = 2 // UDP_ENCAP_ESPINUDP, RFC 3948
)

// picked are the calls that are asked about.
var picked = append([]seccomp.Rule{
	{Call: seccomp.Socket, Tests: []seccomp.Test{{Arg: 0, Value: unix.AF_KEY}}},

	{Call: seccomp.Setsockopt, Tests: option(unix.IPPROTO_IP, ipPolicy)},
	{Call: seccomp.Setsockopt, Tests: option(unix.IPPROTO_IPV6, ipv6Policy)},
	{Call: seccomp.Setsockopt, Tests: option(unix.IPPROTO_UDP, unix.UDP_ENCAP)},
	{Call: seccomp.Getsockopt, Tests: option(unix.IPPROTO_IP, ipPolicy)},
	{Call: seccomp.Getsockopt, Tests: option(unix.IPPROTO_IPV6, ipv6Policy)},
	{Call: seccomp.Getsockopt, Tests: option(unix.IPPROTO_UDP, unix.UDP_ENCAP)},
}, hasty...)

func option(level, name uint32) []seccomp.Test {
	return []seccomp.Test{{Arg: 1, Value: level}, {Arg: 2, Value: name}}
}

// hasty are the calls that do not wait for the answer to a request. To write to a kernel's PF_KEY socket is to have the answer;
// kipsecd needs a moment, or more on a busy machine. So programs exist that look for it at once (racoon peeks, without
// waiting) or give up after a millisecond (iked polls). Where such a call concerns PF_KEY it is held until the answer is
// there. Few others pass these tests; they go on at once.
var hasty = []seccomp.Rule{
	{Call: seccomp.Recvfrom, Tests: []seccomp.Test{{Arg: 3, Op: seccomp.Has, Value: unix.MSG_PEEK}}},
	{Call: seccomp.Poll, Tests: []seccomp.Test{
		{Arg: 1, Value: 1},
		{Arg: 2, Op: seccomp.Has, Value: 0xffffffff},
		{Arg: 2, Op: seccomp.Below, Value: impatient},
	}},
	{Call: seccomp.Ppoll, Tests: []seccomp.Test{{Arg: 1, Value: 1}, {Arg: 2, Op: seccomp.Has, Value: 0xffffffff}}}, // not for ever
}

// impatient is the time in milliseconds that may be too short to wait for kipsecd.
const impatient = 20
