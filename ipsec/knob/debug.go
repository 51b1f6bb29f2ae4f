package knob

// Trace is a combination of bits of net.key.debug (KAME netkey/key_debug.h): how much is told, and of what. It is on when
// all of its bits are set; 0x77 is everything.
type Trace int32

// The combinations. KAME's ALG rows and its counts of references have no counterpart in this engine; their bits tell what is
// nearest.
const (
	KeyStamp   Trace = 0x11 // each PF_KEY message, in a line
	KeyData    Trace = 0x12 // what the key engine does by itself: questions to daemons, ends of SAs and policies
	KeyDump    Trace = 0x14 // each PF_KEY message with all that it says, but for the bits of keys
	AlgStamp   Trace = 0x21 // the algorithms of each SA that is made
	AlgData    Trace = 0x22 // why an SA is refused
	IPsecStamp Trace = 0x41 // the policy that each packet meets, by its id
	IPsecData  Trace = 0x42 // the same with the packet's addresses and the policy's selector
	IPsecDump  Trace = 0x44 // what the inbound check found around a packet
)

// Tracing says whether a combination is on. It is one atomic load.
func (s *Set) Tracing(t Trace) bool { return Trace(s.Key.Debug.Load())&t == t }

// TracingPackets says whether anything may be on that is traced for each packet.
func (s *Set) TracingPackets() bool { return s.Key.Debug.Load()&0x40 != 0 }
