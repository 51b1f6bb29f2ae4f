package pfkey

import (
	"encoding/binary"
	"fmt"
)

// AppendText appends what a message says, in the form of KAME's kdebug_sadb as libipsec has it: lengths in 64-bit words, except of
// a policy's requests (bytes). Without keys, the bits of keys are left out. msg may be any bytes: what is cut off or too short for
// its type is not shown.
func AppendText(b, msg []byte, keys bool) []byte {
	if len(msg) < HeaderLen {
		return fmt.Appendf(b, "%d bytes\n", len(msg))
	}
	b = fmt.Appendf(b, "sadb_msg{ version=%d type=%d errno=%d satype=%d\n  len=%d reserved=%d seq=%d pid=%d\n",
		msg[0], msg[1], msg[2], msg[3], ne.Uint16(msg[4:]), ne.Uint16(msg[6:]), ne.Uint32(msg[8:]), ne.Uint32(msg[12:]))
	if Type(msg[1]) == Promisc {
		return b // what follows is another message
	}
	for ext := msg[HeaderLen:]; len(ext) >= 8; {
		n := 8 * int(ne.Uint16(ext))
		if n == 0 || n > len(ext) {
			break
		}
		b = appendExtText(b, ext[:n], keys)
		ext = ext[n:]
	}
	return b
}

var ne = binary.NativeEndian

func appendExtText(b, e []byte, keys bool) []byte {
	t := ExtType(ne.Uint16(e[2:]))
	b = fmt.Appendf(b, "sadb_ext{ len=%d type=%d }\n", len(e)/8, t)
	if t > MaxExt || extensions[t].parse == nil || len(e) < extensions[t].min {
		return b
	}
	switch t {
	case ExtSA:
		return fmt.Appendf(b, "sadb_sa{ spi=%d replay=%d state=%d\n  auth=%d encrypt=%d flags=0x%08x }\n",
			binary.BigEndian.Uint32(e[4:]), e[8], e[9], e[10], e[11], ne.Uint32(e[12:]))
	case ExtCurrent, ExtHard, ExtSoft:
		return fmt.Appendf(b, "sadb_lifetime{ alloc=%d, bytes=%d\n  addtime=%d, usetime=%d }\n",
			ne.Uint32(e[4:]), ne.Uint64(e[8:]), ne.Uint64(e[16:]), ne.Uint64(e[24:]))
	case ExtSrc, ExtDst, ExtProxy, ExtNATOrig:
		b = fmt.Appendf(b, "sadb_address{ proto=%d prefixlen=%d reserved=0x%02x%02x }\n", e[4], e[5], e[6], e[7])
		return appendSockaddrText(b, e[8:])
	case ExtKeyAuth, ExtKeyEnc:
		return appendKeyText(b, e, keys)
	case ExtIdentSrc, ExtIdentDst:
		b = fmt.Appendf(b, "sadb_ident_%d{ type=%d id=%d\n ", t-ExtIdentSrc, ne.Uint16(e[4:]), ne.Uint64(e[8:]))
		return append(AppendHexWords(b, e[16:]), " }\n"...)
	case ExtProposal:
		return appendProposalText(b, e)
	case ExtSupportedAuth, ExtSupportedEnc:
		b = append(b, "sadb_sup{\n"...)
		for a := e[8:]; len(a) >= algLen; a = a[algLen:] {
			b = fmt.Appendf(b, "  { id=%d ivlen=%d\n    min=%d max=%d }\n", a[0], a[1], ne.Uint16(a[2:]), ne.Uint16(a[4:]))
		}
		return append(b, "}\n"...)
	case ExtSPIRange:
		return fmt.Appendf(b, "sadb_spirange{ min=0x%08x max=0x%08x reserved=%d }\n", ne.Uint32(e[4:]), ne.Uint32(e[8:]), ne.Uint32(e[12:]))
	case ExtPolicy:
		return appendPolicyText(b, e)
	case ExtSA2:
		return fmt.Appendf(b, "sadb_x_sa2{ mode=%d reqid=%d\n  reserved1=%d reserved2=%d sequence=%d }\n",
			e[4], ne.Uint32(e[12:]), e[5], ne.Uint16(e[6:]), ne.Uint32(e[8:]))
	case ExtNATType:
		return fmt.Appendf(b, "sadb_x_nat_t_type{ type=%d }\n", e[4])
	case ExtNATSrcPort, ExtNATDstPort:
		return fmt.Appendf(b, "sadb_x_nat_t_port{ port=%d }\n", binary.BigEndian.Uint16(e[4:]))
	case ExtReplay:
		if len(e) == 8 {
			return fmt.Appendf(b, "sadb_x_sa_replay{ replay=%d }\n", ne.Uint32(e[4:]))
		}
	}
	return b
}

func appendKeyText(b, e []byte, keys bool) []byte {
	bits := ne.Uint16(e[4:])
	b = fmt.Appendf(b, "sadb_key{ bits=%d reserved=%d\n", bits, ne.Uint16(e[6:]))
	if !keys {
		return append(b, "  key= not shown }\n"...)
	}
	b = append(b, "  key="...)
	return append(AppendHexWords(b, e[8:min(8+(int(bits)+7)/8, len(e))]), " }\n"...)
}

func appendProposalText(b, e []byte) []byte {
	b = fmt.Appendf(b, "sadb_prop{ replay=%d\n", e[4])
	for c := e[8:]; len(c) >= combLen; c = c[combLen:] {
		b = fmt.Appendf(b, "sadb_comb{ auth=%d encrypt=%d flags=0x%04x reserved=0x%08x\n", c[0], c[1], ne.Uint16(c[2:]), ne.Uint32(c[12:]))
		b = fmt.Appendf(b, "  auth_minbits=%d auth_maxbits=%d encrypt_minbits=%d encrypt_maxbits=%d\n",
			ne.Uint16(c[4:]), ne.Uint16(c[6:]), ne.Uint16(c[8:]), ne.Uint16(c[10:]))
		b = fmt.Appendf(b, "  soft_alloc=%d hard_alloc=%d soft_bytes=%d hard_bytes=%d\n",
			ne.Uint32(c[16:]), ne.Uint32(c[20:]), ne.Uint64(c[24:]), ne.Uint64(c[32:]))
		b = fmt.Appendf(b, "  soft_addtime=%d hard_addtime=%d soft_usetime=%d hard_usetime=%d }\n",
			ne.Uint64(c[40:]), ne.Uint64(c[48:]), ne.Uint64(c[56:]), ne.Uint64(c[64:]))
	}
	return append(b, "}\n"...)
}

func appendPolicyText(b, e []byte) []byte {
	b = fmt.Appendf(b, "sadb_x_policy{ type=%d dir=%d id=%x priority=%d }\n", ne.Uint16(e[4:]), e[6], ne.Uint32(e[8:]), ne.Uint32(e[12:]))
	for r := e[16:]; len(r) >= requestLen; {
		n := int(ne.Uint16(r))
		if n < requestLen || n > len(r) {
			break
		}
		b = fmt.Appendf(b, " { len=%d proto=%d mode=%d level=%d reqid=%d\n", n, ne.Uint16(r[2:]), r[4], r[5], ne.Uint32(r[8:]))
		ends := r[requestLen:n]
		if _, size, ok := parseSockaddr(ends); ok && len(ends) >= 2*size {
			b = appendSockaddrText(b, ends[:size])
			b = appendSockaddrText(b, ends[size:2*size])
		}
		b = append(b, " }\n"...)
		r = r[n:]
	}
	return b
}

func appendSockaddrText(b, s []byte) []byte {
	if len(s) < 4 {
		return b
	}
	_, n, _ := parseSockaddr(s)
	b = fmt.Appendf(b, "sockaddr{ len=%d family=%d port=%d\n", n, ne.Uint16(s), binary.BigEndian.Uint16(s[2:]))
	switch n {
	case sockaddrIn4:
		b = AppendHexWords(b, s[4:8])
	case sockaddrIn6:
		b = fmt.Appendf(b, "  flowinfo=0x%08x, scope_id=0x%08x\n", binary.BigEndian.Uint32(s[4:]), ne.Uint32(s[24:]))
		b = AppendHexWords(b, s[8:24])
	}
	return append(b, "  }\n"...)
}

// AppendHexWords appends bytes as setkey shows a key: a blank before every 4 bytes, a new line after every 32.
func AppendHexWords(b, data []byte) []byte {
	for i, c := range data {
		if i != 0 && i%32 == 0 {
			b = append(b, '\n')
		}
		if i%4 == 0 {
			b = append(b, ' ')
		}
		b = fmt.Appendf(b, "%02x", c)
	}
	return b
}
