package key

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
)

// SocketRule reads what a program gives to setsockopt(IP_IPSEC_POLICY): a policy extension, for a socket of a family. A nil
// rule is entrust. Errors are those of KAME ipsec_set_policy and key_msg2sp, in their order: EINVAL, EACCES for a bypass
// without privilege, EPROTONOSUPPORT; ENOBUFS for too many requests.
func (e *Engine) SocketRule(b []byte, v6, privileged bool) (pfkey.Dir, *spd.Rule, error) {
	dir, t, err := socketHeader(b, privileged)
	if err != nil {
		return 0, nil, err
	}
	p, err := pfkey.ParsePolicy(b)
	if err != nil {
		if failure, ok := parseFailures[asParseError(err)]; ok {
			return 0, nil, failure.errno
		}
		return 0, nil, syscall.EINVAL
	}
	if t == pfkey.PolicyEntrust {
		return dir, nil, nil
	}
	rule := &spd.Rule{Type: t}
	if t == pfkey.PolicyBypass {
		return dir, rule, nil
	}
	if len(p.Requests) > spd.MaxRequests {
		return 0, nil, syscall.ENOBUFS
	}
	any := netip.IPv4Unspecified()
	if v6 {
		any = netip.IPv6Unspecified()
	}
	for i := range p.Requests {
		r, err := request(&p.Requests[i], any)
		if err != nil {
			return 0, nil, err
		}
		rule.Requests = append(rule.Requests, r)
	}
	e.op.Lock()
	defer e.op.Unlock()
	e.assignReqIDs(rule.Requests)
	return dir, rule, nil
}

func asParseError(err error) pfkey.ParseError {
	pe, _ := err.(pfkey.ParseError)
	return pe
}

// socketHeader checks what KAME checks before it looks at the requests.
func socketHeader(b []byte, privileged bool) (pfkey.Dir, pfkey.PolicyType, error) {
	dir, err := SocketDir(b)
	if err != nil {
		return 0, 0, err
	}
	switch t := binary.NativeEndian.Uint16(b[4:]); {
	case t == uint16(pfkey.PolicyBypass) && !privileged:
		return 0, 0, syscall.EACCES
	case t < uint16(pfkey.PolicyIPsec) || t > uint16(pfkey.PolicyBypass):
		return 0, 0, syscall.EINVAL
	default:
		return dir, pfkey.PolicyType(t), nil
	}
}

// SocketDir reads the direction that a program asks about with getsockopt: it gives the first 16 bytes of a policy
// extension. Only In and Out are directions.
func SocketDir(b []byte) (pfkey.Dir, error) {
	if len(b) < 16 {
		return 0, fmt.Errorf("a policy of %d bytes: %w", len(b), syscall.EINVAL)
	}
	dir := pfkey.Dir(b[6])
	if dir != pfkey.DirIn && dir != pfkey.DirOut {
		return 0, fmt.Errorf("invalid direction=%d: %w", dir, syscall.EINVAL)
	}
	return dir, nil
}

// SocketPolicy is the answer of getsockopt(IP_IPSEC_POLICY): a policy extension, as it was set. Its id is 0, as in KAME.
func SocketPolicy(s *spd.SocketPolicy, dir pfkey.Dir) *pfkey.Policy {
	answer := &pfkey.Policy{Type: pfkey.PolicyEntrust, Dir: dir}
	if s != nil {
		if p := s.For(dir, false); p != nil {
			answer = policyExt(p)
			answer.ID = 0
		}
	}
	return answer
}
