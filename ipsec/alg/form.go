package alg

import (
	"errors"

	"kipsec/ipsec/pfkey"
)

// Errors of CheckFlags and of NewESP about the flags of an SA.
var (
	ErrOld     = errors.New("alg: algorithm incompatible with esp-old")
	ErrDerived = errors.New("alg: algorithm incompatible with derived")
	ErrShortIV = errors.New("alg: algorithm incompatible with 4 octets IV length")
	ErrFlags   = errors.New("alg: esp-old has no derived IV")
	ErrESN     = errors.New("alg: extended sequence numbers need the format of RFC 4303, and integrity")
)

// CheckFlags says whether the algorithm can be used in the format that an SA's flags ask for: nil, ErrOld, ErrDerived,
// ErrShortIV, ErrFlags or ErrESN (KAME key_mature and esp_cbc_mature). Other flags do not matter.
func (e *Enc) CheckFlags(flags pfkey.Flags) error {
	old, derived := flags&pfkey.FlagOld != 0, flags&pfkey.FlagDeriv != 0
	switch {
	case old && derived:
		return ErrFlags
	case old && !e.old:
		return ErrOld
	case derived && !e.derived:
		return ErrDerived
	case flags&pfkey.FlagIV4B != 0 && (!old || e.IVLen != shortIV*2):
		return ErrShortIV
	case flags&pfkey.FlagESN != 0 && (old || derived):
		return ErrESN
	}
	return nil
}

// shortIV is the length in bytes of an IV that its complement follows to make it whole.
const shortIV = 4

// form is where the parts of an ESP packet stand:
//
//	RFC 4303:      SPI  sequence number  IV  payload …  ICV
//	derived IV:    SPI  sequence number = IV, 4 bytes  payload …  ICV
//	RFC 1827:      SPI  IV, 8 bytes or 4  payload …
//
// A cipher's IV of which 4 bytes are in the packet consists of them and of their complement (RFC 1829 §2; KAME esp_cbc).
type form struct {
	head  int  // bytes in front of the payload
	iv    int  // where the IV begins; it ends at head
	ivLen int  // how much of the IV Seal makes: all or, when it is derived, nothing
	split bool // the complement is not in the packet
}

func (e *Enc) form(flags pfkey.Flags) form {
	switch {
	case flags&pfkey.FlagOld != 0 && flags&pfkey.FlagIV4B != 0:
		return form{head: espSeq + shortIV, iv: espSeq, ivLen: shortIV, split: true}
	case flags&pfkey.FlagOld != 0:
		return form{head: espSeq + e.IVLen, iv: espSeq, ivLen: e.IVLen}
	case flags&pfkey.FlagDeriv != 0 && e.IVLen > 0:
		return form{head: espHeader, iv: espSeq, split: true}
	}
	return form{head: espHeader + e.IVLen, iv: espHeader, ivLen: e.IVLen}
}

// Variant is a word of setkey for a cipher in an uncommon format.
type Variant struct {
	Name  string
	Enc   pfkey.EncAlg
	Flags pfkey.Flags // that the word sets
	Old   bool        // only for esp-old; else only for esp
}

// Variants are setkey's words for formats. Nobody changes the table.
var Variants = []*Variant{
	{Name: "des-32iv", Enc: 2, Flags: pfkey.FlagIV4B, Old: true}, // RFC 1829
	{Name: "des-deriv", Enc: 2, Flags: pfkey.FlagDeriv},          // draft-ietf-ipsec-ciph-des-derived-01
	{Name: "3des-deriv", Enc: 3, Flags: pfkey.FlagDeriv},         // the same with 3DES; in KAME's manual, refused by its code
}

// VariantByName returns the variant with that name, nil when there is none.
func VariantByName(name string) *Variant {
	for _, v := range Variants {
		if v.Name == name {
			return v
		}
	}
	return nil
}
