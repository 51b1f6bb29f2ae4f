// Package pfkey reads and writes PF_KEYv2 messages (RFC 2367 with KAME's extensions) in Linux layout:
// the one vocabulary of setkey, of IKE daemons and of the key engine.
//
// It knows how bytes become a Message and back, and which bytes are no message at all. It never decides
// what a message means, holds no state and does no I/O. ipsec/key calls it for the kernel's side,
// ipsec/setkey and ipsec/keysock for the user's.
//
// Numbers stand in host byte order, except SPIs, ports and addresses (network order), as on every system
// with PF_KEY. Lengths count 64-bit words, except in the requests of a policy (bytes).
package pfkey

import (
	"encoding/binary"
	"fmt"
	"syscall"
)

// HeaderLen is the size of the base header, sadb_msg, in bytes.
const HeaderLen = 16

// MaxMessage bounds a message in bytes. Parse refuses what is longer, so that no client makes the
// kernel hold half a megabyte (the most that sadb_msg_len could say) for one request.
const MaxMessage = 64 << 10

// Message is one PF_KEY message. A nil extension is absent. A parsed message shares no memory with the
// bytes it came from.
type Message struct {
	Type     Type
	Errno    syscall.Errno // sadb_msg_errno: 0 in requests and good replies; one byte on the wire
	SAType   SAType
	Reserved uint16 // sadb_msg_reserved; in dumps the reference count
	Seq, PID uint32

	SA                         *SA
	Current, Hard, Soft        *Lifetime
	Src, Dst, Proxy            *Address
	KeyAuth, KeyEnc            *Key
	IdentSrc, IdentDst         *Identity
	Sensitivity                *Opaque // not interpreted
	Proposal                   *Proposal
	SupportedAuth              []Alg // nil when absent; empty when present without rows
	SupportedEnc               []Alg
	SPIRange                   *SPIRange
	Policy                     *Policy
	SA2                        *SA2
	NATType                    *uint8  // UDP_ENCAP value: 2 is ESP in UDP (RFC 3948)
	NATSrcPort, NATDstPort     *uint16 // host order here, network order on the wire
	NATOrig                    *Address
	SecurityContext, KMAddress *Opaque // not interpreted
	Replay                     *uint32 // anti-replay window in packets, where SA.Replay is too narrow
	Filter                     *Filter // of a dump

	// Unknown counts the extensions that Parse skipped because their numbers are above MaxExt
	// (clients made for other systems send them, and Linux skips them too).
	Unknown int

	// Payload is what follows the header of an X_PROMISC message that is longer than its header:
	// another message, whole. No other type has one.
	Payload []byte

	// Order says in which order the extensions stand. Parse fills it. AppendTo writes the extensions
	// that it names first and then the others in order of KAME's dumps.
	Order []ExtType
}

// Err returns the error that a reply carries, a syscall.Errno, or nil.
func (m *Message) Err() error {
	if m.Errno == 0 {
		return nil
	}
	return m.Errno
}

// Parse reads the message that b holds exactly. The error is a ParseError; the message is never nil and
// has the fields of the base header whenever b is at least HeaderLen long, so that a refusal can echo
// them. Checks come in the order of KAME key_output, key_parse and key_align.
func Parse(b []byte) (*Message, error) {
	m := new(Message)
	if len(b) < HeaderLen {
		return m, ErrShort
	}
	m.Type = Type(b[1])
	m.Errno = syscall.Errno(b[2])
	m.SAType = SAType(b[3])
	m.Reserved = binary.NativeEndian.Uint16(b[6:])
	m.Seq = binary.NativeEndian.Uint32(b[8:])
	m.PID = binary.NativeEndian.Uint32(b[12:])
	switch {
	case len(b) != 8*int(binary.NativeEndian.Uint16(b[4:])):
		return m, ErrLength
	case b[0] != Version:
		return m, ErrVersion
	case m.Type == Reserved || m.Type > MaxType:
		return m, ErrType
	case len(b) > MaxMessage:
		return m, ErrTooBig
	}
	if m.Type == Promisc {
		if len(b) > HeaderLen {
			m.Payload = append([]byte(nil), b[HeaderLen:]...)
		}
		return m, nil
	}
	return m, m.parseExtensions(b[HeaderLen:])
}

func (m *Message) parseExtensions(b []byte) error {
	var seen uint32
	for len(b) > 0 {
		if len(b) < 8 {
			return ErrExtLength
		}
		n := 8 * int(binary.NativeEndian.Uint16(b))
		if n == 0 || n > len(b) {
			return ErrExtLength
		}
		ext := b[:n]
		b = b[n:]
		t := ExtType(binary.NativeEndian.Uint16(ext[2:]))
		if t > MaxExt {
			m.Unknown++
			continue
		}
		row := &extensions[t]
		switch {
		case row.parse == nil:
			return ErrExtType
		case seen&(1<<t) != 0:
			return ErrDuplicate
		case n < row.min || row.max != 0 && n > row.max:
			return ErrExtLength
		}
		seen |= 1 << t
		if err := row.parse(m, ext); err != nil {
			return err
		}
		if m.Order == nil {
			m.Order = make([]ExtType, 0, 12)
		}
		m.Order = append(m.Order, t)
	}
	return nil
}

// AppendTo appends the message's bytes to b and returns the longer slice. The caller keeps what it
// builds below MaxMessage; a longer message is written, and refused by whoever parses it.
func (m *Message) AppendTo(b []byte) []byte {
	start := len(b)
	b = append(b, Version, byte(m.Type), byte(m.Errno), byte(m.SAType), 0, 0)
	b = binary.NativeEndian.AppendUint16(b, m.Reserved)
	b = binary.NativeEndian.AppendUint32(b, m.Seq)
	b = binary.NativeEndian.AppendUint32(b, m.PID)
	var done uint32
	for _, t := range m.Order {
		if t <= MaxExt && done&(1<<t) == 0 && extensions[t].append != nil {
			done |= 1 << t
			b = extensions[t].append(m, b)
		}
	}
	for _, t := range dumpOrder {
		if done&(1<<t) == 0 {
			b = extensions[t].append(m, b)
		}
	}
	b = append(b, m.Payload...)
	binary.NativeEndian.PutUint16(b[start+4:], uint16((len(b)-start)/8))
	return b
}

// ParseError says why bytes are no message.
type ParseError uint8

// What can be wrong with a message, in the order in which Parse looks.
const (
	ErrShort           ParseError = iota + 1 // shorter than the base header
	ErrLength                                // not as long as sadb_msg_len says
	ErrVersion                               // not PF_KEY_V2
	ErrType                                  // message type that does not exist
	ErrTooBig                                // longer than MaxMessage
	ErrExtLength                             // an extension's length is impossible, or bytes are left over
	ErrExtType                               // extension type 0 or X_KMPRIVATE
	ErrDuplicate                             // an extension stands twice
	ErrAddress                               // a sockaddr does not fill its extension
	ErrKey                                   // a key's bits do not fill its extension
	ErrPolicy                                // policy requests do not fill their extension, or an impossible type
	ErrRequestProtocol                       // a policy request for a protocol over 255
)

var parseErrors = [...]string{
	ErrShort:           "message shorter than its header",
	ErrLength:          "message length differs from sadb_msg_len",
	ErrVersion:         "not PF_KEY version 2",
	ErrType:            "no such message type",
	ErrTooBig:          "message too long",
	ErrExtLength:       "bad extension length",
	ErrExtType:         "bad extension type",
	ErrDuplicate:       "duplicate extension",
	ErrAddress:         "bad address extension",
	ErrKey:             "bad key extension",
	ErrPolicy:          "bad policy extension",
	ErrRequestProtocol: "policy request for an impossible protocol",
}

// Error describes e in a few words.
func (e ParseError) Error() string {
	if int(e) < len(parseErrors) && e != 0 {
		return "pfkey: " + parseErrors[e]
	}
	return fmt.Sprintf("pfkey: error %d", uint8(e))
}
