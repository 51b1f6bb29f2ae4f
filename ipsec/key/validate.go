package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// protocols maps SA types to IP protocols. A zero is an SA type that no SA can have here.
var protocols = [...]uint8{
	pfkey.SATypeAH:     wire.ProtoAH,
	pfkey.SATypeESP:    wire.ProtoESP,
	pfkey.SATypeIPComp: wire.ProtoIPComp,
}

// protocol returns the IP protocol of a message's SA type, 0 for SATypeUnspec.
func protocol(t pfkey.SAType) uint8 {
	if int(t) < len(protocols) {
		return protocols[t]
	}
	return 0
}

// saType is the inverse of protocol.
func saType(proto uint8) pfkey.SAType {
	for t, p := range protocols {
		if p == proto && p != 0 {
			return pfkey.SAType(t)
		}
	}
	return pfkey.SATypeUnspec
}

// parseFailures says which counter moves and which errno answers for bytes that are no message: KAME key_output,
// key_parse and key_align. Where KAME makes send fail, the client gets the errno in a message, for a socket that
// is no kernel's cannot make send fail.
var parseFailures = map[pfkey.ParseError]struct {
	field Field
	errno syscall.Errno
}{
	pfkey.ErrShort:           {OutTooShort, syscall.EINVAL},
	pfkey.ErrLength:          {OutInvLen, syscall.EINVAL},
	pfkey.ErrVersion:         {OutInvVer, syscall.EINVAL},
	pfkey.ErrType:            {OutInvMsgType, syscall.EINVAL},
	pfkey.ErrTooBig:          {OutNoMem, syscall.ENOBUFS},
	pfkey.ErrExtLength:       {OutInvLen, syscall.EINVAL},
	pfkey.ErrExtType:         {OutInvExtType, syscall.EINVAL},
	pfkey.ErrDuplicate:       {OutDupExt, syscall.EINVAL},
	pfkey.ErrAddress:         {OutInvLen, syscall.EINVAL},
	pfkey.ErrKey:             {OutInvLen, syscall.EINVAL},
	pfkey.ErrPolicy:          {OutInvLen, syscall.EINVAL},
	pfkey.ErrRequestProtocol: {OutInvLen, syscall.EPROTONOSUPPORT},
}

// validate checks what KAME key_parse checks of every message, after its form: SA type, then addresses.
func (e *Engine) validate(m *pfkey.Message) error {
	if err := checkSAType(m); err != nil {
		e.Stats.count(OutInvSAType)
		return err
	}
	if err := checkAddresses(m); err != nil {
		e.Stats.count(OutInvAddr)
		return err
	}
	return nil
}

func checkSAType(m *pfkey.Message) error {
	switch m.SAType {
	case pfkey.SATypeUnspec:
		switch m.Type {
		case pfkey.GetSPI, pfkey.Update, pfkey.Add, pfkey.Delete, pfkey.Get, pfkey.Acquire, pfkey.Expire:
			return syscall.EINVAL
		}
		return nil
	case pfkey.SATypeAH, pfkey.SATypeESP, pfkey.SATypeIPComp:
		switch m.Type {
		case pfkey.SPDUpdate, pfkey.SPDAdd, pfkey.SPDDelete, pfkey.SPDGet, pfkey.SPDAcquire, pfkey.SPDDump,
			pfkey.SPDFlush, pfkey.SPDSetIdx, pfkey.SPDExpire, pfkey.SPDDelete2:
			return syscall.EINVAL
		}
		return nil
	case pfkey.SATypeRSVP, pfkey.SATypeOSPFv2, pfkey.SATypeRIPv2, pfkey.SATypeMIP:
		return syscall.EOPNOTSUPP
	case 1: // only as the switch of X_PROMISC
		if m.Type == pfkey.Promisc {
			return nil
		}
	}
	return syscall.EINVAL
}

func checkAddresses(m *pfkey.Message) error {
	if m.Src == nil || m.Dst == nil {
		return nil
	}
	src, dst := m.Src.Addr.Addr(), m.Dst.Addr.Addr()
	switch {
	case m.Src.Proto != m.Dst.Proto:
		return syscall.EINVAL
	case src.BitLen() != dst.BitLen() || m.Src.Family != m.Dst.Family:
		return syscall.EINVAL
	case !src.IsValid():
		return syscall.EAFNOSUPPORT
	case int(m.Src.PrefixLen) > src.BitLen() || int(m.Dst.PrefixLen) > dst.BitLen():
		return syscall.EINVAL
	}
	return nil
}
