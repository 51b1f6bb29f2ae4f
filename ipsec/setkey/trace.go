package setkey

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"syscall"
	"time"

	"kipsec/ipsec/pfkey"
)

// TraceOptions say what Trace writes of each message.
type TraceOptions struct {
	Fields bool // the fields, extension by extension (setkey -v); keys are among them
	Hex    bool // the bytes (setkey -H)
}

// Trace returns an Exchange that writes each message sent and received to w and is otherwise like exchange.
// With a nil exchange nothing is sent.
func Trace(w io.Writer, exchange Exchange, o TraceOptions) Exchange {
	return func(m *pfkey.Message, reply func(*pfkey.Message) error) error {
		if err := PrintMessage(w, m, time.Now(), o); err != nil {
			return err
		}
		if exchange == nil {
			return nil
		}
		return exchange(m, func(r *pfkey.Message) error {
			if err := PrintMessage(w, r, time.Now(), o); err != nil {
				return err
			}
			return reply(r)
		})
	}
}

// PrintMessage writes a message with the time, in the form of libipsec's kdebug_sadb: lengths in 64-bit words,
// except of a policy's requests (bytes).
func PrintMessage(w io.Writer, m *pfkey.Message, now time.Time, o TraceOptions) error {
	msg := m.AppendTo(nil)
	var b bytes.Buffer
	fmt.Fprintf(&b, "%s \n", now.Format("15:04:05.000000"))
	if o.Hex {
		hexDump(&b, msg)
	}
	if o.Fields {
		fmt.Fprintf(&b, "sadb_msg{ version=%d type=%d errno=%d satype=%d\n  len=%d reserved=%d seq=%d pid=%d\n",
			msg[0], msg[1], msg[2], msg[3], ne.Uint16(msg[4:]), ne.Uint16(msg[6:]), ne.Uint32(msg[8:]), ne.Uint32(msg[12:]))
		if m.Payload == nil {
			traceExtensions(&b, msg[pfkey.HeaderLen:])
		}
	}
	b.WriteByte('\n')
	_, err := w.Write(b.Bytes())
	return err
}

var ne = binary.NativeEndian

func hexDump(b *bytes.Buffer, msg []byte) {
	for i, c := range msg {
		if i%16 == 0 {
			fmt.Fprintf(b, "%08x: ", i)
		}
		fmt.Fprintf(b, "%02x ", c)
		if i%16 == 15 || i == len(msg)-1 {
			b.WriteByte('\n')
		}
	}
}

// traceExtensions writes the extensions in b, which AppendTo made: their lengths are right.
func traceExtensions(b *bytes.Buffer, ext []byte) {
	for len(ext) >= 8 {
		n := 8 * int(ne.Uint16(ext))
		if n == 0 || n > len(ext) {
			return
		}
		t := pfkey.ExtType(ne.Uint16(ext[2:]))
		fmt.Fprintf(b, "sadb_ext{ len=%d type=%d }\n", n/8, t)
		traceExtension(b, t, ext[:n])
		ext = ext[n:]
	}
}

func traceExtension(b *bytes.Buffer, t pfkey.ExtType, e []byte) {
	switch t {
	case pfkey.ExtSA:
		fmt.Fprintf(b, "sadb_sa{ spi=%d replay=%d state=%d\n  auth=%d encrypt=%d flags=0x%08x }\n",
			binary.BigEndian.Uint32(e[4:]), e[8], e[9], e[10], e[11], ne.Uint32(e[12:]))
	case pfkey.ExtCurrent, pfkey.ExtHard, pfkey.ExtSoft:
		fmt.Fprintf(b, "sadb_lifetime{ alloc=%d, bytes=%d\n  addtime=%d, usetime=%d }\n",
			ne.Uint32(e[4:]), ne.Uint64(e[8:]), ne.Uint64(e[16:]), ne.Uint64(e[24:]))
	case pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtProxy, pfkey.ExtNATOrig:
		fmt.Fprintf(b, "sadb_address{ proto=%d prefixlen=%d reserved=0x%02x%02x }\n", e[4], e[5], e[6], e[7])
		traceSockaddr(b, e[8:])
	case pfkey.ExtKeyAuth, pfkey.ExtKeyEnc:
		bits := ne.Uint16(e[4:])
		key := e[8:min(8+(int(bits)+7)/8, len(e))]
		fmt.Fprintf(b, "sadb_key{ bits=%d reserved=%d\n  key=%s }\n", bits, ne.Uint16(e[6:]), hexWords(key))
	case pfkey.ExtIdentSrc, pfkey.ExtIdentDst:
		fmt.Fprintf(b, "sadb_ident_%d{ type=%d id=%d\n %s }\n", t-pfkey.ExtIdentSrc, ne.Uint16(e[4:]), ne.Uint64(e[8:]), hexWords(e[16:]))
	case pfkey.ExtProposal:
		traceProposal(b, e)
	case pfkey.ExtSupportedAuth, pfkey.ExtSupportedEnc:
		b.WriteString("sadb_sup{\n")
		for a := e[8:]; len(a) >= 8; a = a[8:] {
			fmt.Fprintf(b, "  { id=%d ivlen=%d\n    min=%d max=%d }\n", a[0], a[1], ne.Uint16(a[2:]), ne.Uint16(a[4:]))
		}
		b.WriteString("}\n")
	case pfkey.ExtSPIRange:
		fmt.Fprintf(b, "sadb_spirange{ min=0x%08x max=0x%08x reserved=%d }\n", ne.Uint32(e[4:]), ne.Uint32(e[8:]), ne.Uint32(e[12:]))
	case pfkey.ExtPolicy:
		tracePolicy(b, e)
	case pfkey.ExtSA2:
		fmt.Fprintf(b, "sadb_x_sa2{ mode=%d reqid=%d\n  reserved1=%d reserved2=%d sequence=%d }\n",
			e[4], ne.Uint32(e[12:]), e[5], ne.Uint16(e[6:]), ne.Uint32(e[8:]))
	case pfkey.ExtNATType:
		fmt.Fprintf(b, "sadb_x_nat_t_type{ type=%d }\n", e[4])
	case pfkey.ExtNATSrcPort, pfkey.ExtNATDstPort:
		fmt.Fprintf(b, "sadb_x_nat_t_port{ port=%d }\n", binary.BigEndian.Uint16(e[4:]))
	case pfkey.ExtReplay:
		if len(e) == 8 {
			fmt.Fprintf(b, "sadb_x_sa_replay{ replay=%d }\n", ne.Uint32(e[4:]))
		}
	}
}

func traceProposal(b *bytes.Buffer, e []byte) {
	fmt.Fprintf(b, "sadb_prop{ replay=%d\n", e[4])
	for c := e[8:]; len(c) >= 72; c = c[72:] {
		fmt.Fprintf(b, "sadb_comb{ auth=%d encrypt=%d flags=0x%04x reserved=0x%08x\n", c[0], c[1], ne.Uint16(c[2:]), ne.Uint32(c[12:]))
		fmt.Fprintf(b, "  auth_minbits=%d auth_maxbits=%d encrypt_minbits=%d encrypt_maxbits=%d\n",
			ne.Uint16(c[4:]), ne.Uint16(c[6:]), ne.Uint16(c[8:]), ne.Uint16(c[10:]))
		fmt.Fprintf(b, "  soft_alloc=%d hard_alloc=%d soft_bytes=%d hard_bytes=%d\n",
			ne.Uint32(c[16:]), ne.Uint32(c[20:]), ne.Uint64(c[24:]), ne.Uint64(c[32:]))
		fmt.Fprintf(b, "  soft_addtime=%d hard_addtime=%d soft_usetime=%d hard_usetime=%d }\n",
			ne.Uint64(c[40:]), ne.Uint64(c[48:]), ne.Uint64(c[56:]), ne.Uint64(c[64:]))
	}
	b.WriteString("}\n")
}

func tracePolicy(b *bytes.Buffer, e []byte) {
	fmt.Fprintf(b, "sadb_x_policy{ type=%d dir=%d id=%x priority=%d }\n", ne.Uint16(e[4:]), e[6], ne.Uint32(e[8:]), ne.Uint32(e[12:]))
	for r := e[16:]; len(r) >= 16; {
		n := int(ne.Uint16(r))
		if n < 16 || n > len(r) {
			return
		}
		fmt.Fprintf(b, " { len=%d proto=%d mode=%d level=%d reqid=%d\n", n, ne.Uint16(r[2:]), r[4], r[5], ne.Uint32(r[8:]))
		src := r[16:n]
		if size := sockaddrLen(src); size != 0 && len(src) >= 2*size {
			traceSockaddr(b, src[:size])
			traceSockaddr(b, src[size:2*size])
		}
		b.WriteString(" }\n")
		r = r[n:]
	}
}

// sockaddrLen is the size of the sockaddr at the start of s in bytes, 0 when it is of no known family or cut off.
func sockaddrLen(s []byte) int {
	switch {
	case len(s) >= 16 && ne.Uint16(s) == syscall.AF_INET:
		return 16
	case len(s) >= 28 && ne.Uint16(s) == syscall.AF_INET6:
		return 28
	}
	return 0
}

func traceSockaddr(b *bytes.Buffer, s []byte) {
	if len(s) < 4 {
		return
	}
	n, family := sockaddrLen(s), ne.Uint16(s)
	fmt.Fprintf(b, "sockaddr{ len=%d family=%d port=%d\n", n, family, binary.BigEndian.Uint16(s[2:]))
	switch n {
	case 16:
		fmt.Fprintf(b, "%s  }\n", hexWords(s[4:8]))
	case 28:
		fmt.Fprintf(b, "  flowinfo=0x%08x, scope_id=0x%08x\n%s  }\n", binary.BigEndian.Uint32(s[4:]), ne.Uint32(s[24:]), hexWords(s[8:24]))
	default:
		b.WriteString("  }\n")
	}
}
