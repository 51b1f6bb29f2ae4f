package pfkey

import "encoding/binary"

// Sizes of the rows of PROPOSAL and SUPPORTED extensions in bytes.
const (
	combLen = 72
	algLen  = 8
)

func parseProposal(m *Message, b []byte) error {
	if (len(b)-8)%combLen != 0 {
		return ErrExtLength
	}
	p := &Proposal{Replay: b[4]}
	for b = b[8:]; len(b) > 0; b = b[combLen:] {
		u16 := func(off int) uint16 { return binary.NativeEndian.Uint16(b[off:]) }
		u32 := func(off int) uint32 { return binary.NativeEndian.Uint32(b[off:]) }
		u64 := func(off int) uint64 { return binary.NativeEndian.Uint64(b[off:]) }
		p.Combs = append(p.Combs, Comb{
			Auth: AuthAlg(b[0]), Enc: EncAlg(b[1]), Flags: u16(2),
			AuthMin: u16(4), AuthMax: u16(6), EncMin: u16(8), EncMax: u16(10),
			Soft: Lifetime{Allocations: u32(16), Bytes: u64(24), AddTime: u64(40), UseTime: u64(56)},
			Hard: Lifetime{Allocations: u32(20), Bytes: u64(32), AddTime: u64(48), UseTime: u64(64)},
		})
	}
	m.Proposal = p
	return nil
}

func appendProposal(m *Message, b []byte) []byte {
	p := m.Proposal
	if p == nil {
		return b
	}
	b, start := header(b, ExtProposal)
	b = append(b, p.Replay, 0, 0, 0)
	for i := range p.Combs {
		c := &p.Combs[i]
		b = append(b, byte(c.Auth), byte(c.Enc))
		for _, v := range [...]uint16{c.Flags, c.AuthMin, c.AuthMax, c.EncMin, c.EncMax, 0, 0} {
			b = binary.NativeEndian.AppendUint16(b, v)
		}
		b = binary.NativeEndian.AppendUint32(b, c.Soft.Allocations)
		b = binary.NativeEndian.AppendUint32(b, c.Hard.Allocations)
		for _, v := range [...]uint64{c.Soft.Bytes, c.Hard.Bytes, c.Soft.AddTime, c.Hard.AddTime, c.Soft.UseTime, c.Hard.UseTime} {
			b = binary.NativeEndian.AppendUint64(b, v)
		}
	}
	return finish(b, start)
}

func supportedRow(t ExtType, field func(*Message) *[]Alg) extension {
	return extension{8, 0, func(m *Message, b []byte) error {
		algs := make([]Alg, 0, (len(b)-8)/algLen)
		for b = b[8:]; len(b) > 0; b = b[algLen:] {
			algs = append(algs, Alg{
				ID: b[0], IVLen: b[1],
				MinBits: binary.NativeEndian.Uint16(b[2:]),
				MaxBits: binary.NativeEndian.Uint16(b[4:]),
			})
		}
		*field(m) = algs
		return nil
	}, func(m *Message, b []byte) []byte {
		algs := *field(m)
		if algs == nil {
			return b
		}
		b, start := header(b, t)
		b = append(b, 0, 0, 0, 0)
		for _, a := range algs {
			b = append(b, a.ID, a.IVLen)
			b = binary.NativeEndian.AppendUint16(b, a.MinBits)
			b = binary.NativeEndian.AppendUint16(b, a.MaxBits)
			b = append(b, 0, 0)
		}
		return finish(b, start)
	}}
}

func parseSPIRange(m *Message, b []byte) error {
	m.SPIRange = &SPIRange{Min: binary.NativeEndian.Uint32(b[4:]), Max: binary.NativeEndian.Uint32(b[8:])}
	return nil
}

func appendSPIRange(m *Message, b []byte) []byte {
	if m.SPIRange == nil {
		return b
	}
	b, start := header(b, ExtSPIRange)
	b = binary.NativeEndian.AppendUint32(b, m.SPIRange.Min)
	b = binary.NativeEndian.AppendUint32(b, m.SPIRange.Max)
	return finish(append(b, 0, 0, 0, 0), start)
}

func parseSA2(m *Message, b []byte) error {
	m.SA2 = &SA2{Mode: Mode(b[4]), Seq: binary.NativeEndian.Uint32(b[8:]), ReqID: binary.NativeEndian.Uint32(b[12:])}
	return nil
}

func appendSA2(m *Message, b []byte) []byte {
	if m.SA2 == nil {
		return b
	}
	b, start := header(b, ExtSA2)
	b = append(b, byte(m.SA2.Mode), 0, 0, 0)
	b = binary.NativeEndian.AppendUint32(b, m.SA2.Seq)
	return finish(binary.NativeEndian.AppendUint32(b, m.SA2.ReqID), start)
}

func parseNATType(m *Message, b []byte) error {
	m.NATType = new(b[4])
	return nil
}

func appendNATType(m *Message, b []byte) []byte {
	if m.NATType == nil {
		return b
	}
	b, start := header(b, ExtNATType)
	return finish(append(b, *m.NATType, 0, 0, 0), start)
}

func portRow(t ExtType, field func(*Message) **uint16) extension {
	return extension{8, 8, func(m *Message, b []byte) error {
		*field(m) = new(binary.BigEndian.Uint16(b[4:]))
		return nil
	}, func(m *Message, b []byte) []byte {
		p := *field(m)
		if p == nil {
			return b
		}
		b, start := header(b, t)
		return finish(binary.BigEndian.AppendUint16(b, *p), start)
	}}
}

func parseReplay(m *Message, b []byte) error {
	switch len(b) {
	case 8:
		m.Replay = new(binary.NativeEndian.Uint32(b[4:]))
	case 40:
		m.Filter = &Filter{
			Src: [16]byte(b[4:]), Dst: [16]byte(b[20:]), Family: binary.NativeEndian.Uint16(b[36:]), SrcBits: b[38], DstBits: b[39],
		}
	default:
		return ErrExtLength
	}
	return nil
}

func appendReplay(m *Message, b []byte) []byte {
	if m.Replay == nil && m.Filter == nil {
		return b
	}
	b, start := header(b, ExtReplay)
	if f := m.Filter; m.Replay == nil {
		b = append(append(b, f.Src[:]...), f.Dst[:]...)
		b = binary.NativeEndian.AppendUint16(b, f.Family)
		return finish(append(b, f.SrcBits, f.DstBits), start)
	}
	return finish(binary.NativeEndian.AppendUint32(b, *m.Replay), start)
}
