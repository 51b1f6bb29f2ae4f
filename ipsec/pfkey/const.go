package pfkey

import "strconv"

// Version is PF_KEY_V2, the only protocol version (RFC 2367 §2.1).
const Version = 2

// Type is a message type, the sadb_msg_type byte (RFC 2367 §3.1 and the KAME extensions).
type Type uint8

// Message types. The numbers are the same on every system up to SPDDelete2.
const (
	Reserved       Type = 0
	GetSPI         Type = 1
	Update         Type = 2
	Add            Type = 3
	Delete         Type = 4
	Get            Type = 5
	Acquire        Type = 6
	Register       Type = 7
	Expire         Type = 8
	Flush          Type = 9
	Dump           Type = 10
	Promisc        Type = 11
	PChange        Type = 12
	SPDUpdate      Type = 13
	SPDAdd         Type = 14
	SPDDelete      Type = 15
	SPDGet         Type = 16
	SPDAcquire     Type = 17
	SPDDump        Type = 18
	SPDFlush       Type = 19
	SPDSetIdx      Type = 20
	SPDExpire      Type = 21
	SPDDelete2     Type = 22
	NATTNewMapping Type = 23
	Migrate        Type = 24
	MaxType             = Migrate
)

// typeNames are netstat's.
var typeNames = [...]string{
	"reserved", "getspi", "update", "add", "delete", "get", "acquire", "register", "expire", "flush", "dump",
	"x_promisc", "x_pchange", "x_spdupdate", "x_spdadd", "x_spddelete", "x_spdget", "x_spdacquire", "x_spddump",
	"x_spdflush", "x_spdsetidx", "x_spdexpire", "x_spddelete2", "x_nat_t_new_mapping", "x_migrate",
}

// String is the name of the type in lower case, without SADB_; of an unknown one its number.
func (t Type) String() string {
	if int(t) < len(typeNames) {
		return typeNames[t]
	}
	return "#" + strconv.Itoa(int(t))
}

// SAType is the sadb_msg_satype byte: which protocol an SA belongs to.
type SAType uint8

// SA types (RFC 2367 §3.3).
const (
	SATypeUnspec SAType = 0
	SATypeAH     SAType = 2
	SATypeESP    SAType = 3
	SATypeRSVP   SAType = 5
	SATypeOSPFv2 SAType = 6
	SATypeRIPv2  SAType = 7
	SATypeMIP    SAType = 8
	SATypeIPComp SAType = 9
)

// State is the sadb_sa_state byte (RFC 2367 §2.3.1).
type State uint8

// SA states.
const (
	Larval State = 0 // an SPI is reserved, keys are not there yet
	Mature State = 1 // in use
	Dying  State = 2 // a soft lifetime has passed; in use until it is replaced
	Dead   State = 3 // a hard lifetime has passed or it was deleted; never used again
)

// Mode is the encapsulation mode of an SA or of a policy's request.
type Mode uint8

// Modes. ModeAny is for SAs only.
const (
	ModeAny       Mode = 0
	ModeTransport Mode = 1
	ModeTunnel    Mode = 2
)

// Dir is the direction of a policy.
type Dir uint8

// Directions. DirFwd is Linux's; BSD has In and Out.
const (
	DirAny Dir = 0
	DirIn  Dir = 1
	DirOut Dir = 2
	DirFwd Dir = 3
)

// PolicyType says what a policy asks for.
type PolicyType uint8

// Policy types (KAME netinet6/ipsec.h). Entrust and Bypass are for sockets only.
const (
	PolicyDiscard PolicyType = 0
	PolicyNone    PolicyType = 1
	PolicyIPsec   PolicyType = 2
	PolicyEntrust PolicyType = 3
	PolicyBypass  PolicyType = 4
)

// Level says how much a policy's request insists.
type Level uint8

// Levels (KAME netinet6/ipsec.h).
const (
	LevelDefault Level = 0 // the deflev variables decide
	LevelUse     Level = 1 // protect if there is an SA
	LevelRequire Level = 2 // protect or drop
	LevelUnique  Level = 3 // require, and only with the SA of this reqid
)

// Flags are the sadb_sa_flags bits of KAME.
type Flags uint32

// SA flags (KAME net/pfkeyv2.h, FreeBSD for the last).
const (
	FlagOld    Flags = 0x0001 // formats of RFC 1825 to 1827
	FlagIV4B   Flags = 0x0010 // 32-bit IV
	FlagDeriv  Flags = 0x0020 // IV derived from the sequence number
	FlagCycSeq Flags = 0x0040 // the sequence number may wrap
	FlagRawCPI Flags = 0x0080 // the SPI is the CPI on the wire
	FlagPRand  Flags = 0x0100 // random padding
	FlagPZero  Flags = 0x0200 // zero padding
	FlagESN    Flags = 0x0400 // 64-bit sequence numbers (FreeBSD)
)

// Wildcards of selectors and limits of ids (KAME netinet6/ipsec.h).
const (
	PortAny        = 0
	ProtoAny       = 255
	ManualReqIDMax = 0x3fff // ids above are assigned by the kernel
)

// AuthAlg is an integrity algorithm's number, the sadb_sa_auth byte.
type AuthAlg uint8

// EncAlg is an encryption or compression algorithm's number, the sadb_sa_encrypt byte.
type EncAlg uint8
