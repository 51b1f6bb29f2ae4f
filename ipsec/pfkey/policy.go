package pfkey

import (
	"encoding/binary"
	"net/netip"
)

// requestLen is the size of Linux's sadb_x_ipsecrequest without addresses, in bytes.
const requestLen = 16

// Policy is a policy extension, sadb_x_policy, with the requests that follow it.
type Policy struct {
	Type     PolicyType
	Dir      Dir
	ID       uint32
	Priority uint32 // Linux: lower is looked at first
	Requests []Request
}

// Request is one transform that a policy asks for, sadb_x_ipsecrequest. Values are as sent: mode, level
// and protocol may be impossible.
type Request struct {
	Proto    uint8
	Mode     Mode
	Level    Level
	ReqID    uint32
	Src, Dst netip.AddrPort // both valid, of one family, or both zero: the packet's own
}

// ParsePolicy reads a policy extension that stands alone, as ipsec_set_policy(3) makes it for setsockopt: of the length that
// it says. Its number is that of the extension, or 12, which OpenIKED writes there.
func ParsePolicy(b []byte) (*Policy, error) {
	if len(b) < 16 || int(binary.NativeEndian.Uint16(b))*8 != len(b) {
		return nil, ErrExtLength
	}
	if t := ExtType(binary.NativeEndian.Uint16(b[2:])); t != ExtPolicy && t != ExtSensitivity {
		return nil, ErrPolicy
	}
	var m Message
	if err := parsePolicy(&m, b); err != nil {
		return nil, err
	}
	return m.Policy, nil
}

// AppendTo appends the policy as an extension that stands alone.
func (p *Policy) AppendTo(b []byte) []byte { return appendPolicy(&Message{Policy: p}, b) }

// parsePolicy reads the policy and its requests as KAME key_msg2sp does, in Linux's layout. Each request
// says its length in bytes; less than a word at the end is padding.
func parsePolicy(m *Message, b []byte) error {
	t := binary.NativeEndian.Uint16(b[4:])
	if t > 0xff {
		return ErrPolicy
	}
	p := &Policy{
		Type:     PolicyType(t),
		Dir:      Dir(b[6]),
		ID:       binary.NativeEndian.Uint32(b[8:]),
		Priority: binary.NativeEndian.Uint32(b[12:]),
	}
	for b = b[16:]; len(b) >= 8; {
		if len(b) < requestLen {
			return ErrPolicy
		}
		n := int(binary.NativeEndian.Uint16(b))
		if n < requestLen || n > len(b) {
			return ErrPolicy
		}
		r, err := parseRequest(b[:n])
		if err != nil {
			return err
		}
		p.Requests = append(p.Requests, r)
		b = b[n:]
	}
	m.Policy = p
	return nil
}

func parseRequest(b []byte) (r Request, err error) {
	proto := binary.NativeEndian.Uint16(b[2:])
	if proto > 0xff {
		return r, ErrRequestProtocol
	}
	r = Request{
		Proto: uint8(proto),
		Mode:  Mode(b[4]),
		Level: Level(b[5]),
		ReqID: binary.NativeEndian.Uint32(b[8:]),
	}
	if b = b[requestLen:]; len(b) == 0 {
		return r, nil
	}
	src, n, ok := parseSockaddr(b)
	if !ok {
		return r, ErrPolicy
	}
	dst, n2, ok := parseSockaddr(b[n:])
	if !ok || n != n2 || len(b)-n-n2 >= 8 {
		return r, ErrPolicy
	}
	r.Src, r.Dst = src, dst
	return r, nil
}

func appendPolicy(m *Message, b []byte) []byte {
	p := m.Policy
	if p == nil {
		return b
	}
	b, start := header(b, ExtPolicy)
	b = binary.NativeEndian.AppendUint16(b, uint16(p.Type))
	b = append(b, byte(p.Dir), 0)
	b = binary.NativeEndian.AppendUint32(b, p.ID)
	b = binary.NativeEndian.AppendUint32(b, p.Priority)
	for i := range p.Requests {
		b = appendRequest(b, &p.Requests[i])
	}
	return finish(b, start)
}

func appendRequest(b []byte, r *Request) []byte {
	start := len(b)
	b = append(b, 0, 0)
	b = binary.NativeEndian.AppendUint16(b, uint16(r.Proto))
	b = append(b, byte(r.Mode), byte(r.Level), 0, 0)
	b = binary.NativeEndian.AppendUint32(b, r.ReqID)
	b = append(b, 0, 0, 0, 0)
	if r.Src.Addr().IsValid() && r.Dst.Addr().IsValid() {
		b = appendSockaddr(b, r.Src)
		b = appendSockaddr(b, r.Dst)
	}
	for (len(b)-start)%8 != 0 {
		b = append(b, 0)
	}
	binary.NativeEndian.PutUint16(b[start:], uint16(len(b)-start))
	return b
}
