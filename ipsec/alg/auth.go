package alg

import (
	"crypto/hmac"
	"crypto/md5"
	"crypto/sha1"
	"crypto/sha256"
	"crypto/sha512"
	"hash"

	"kipsec/ipsec/pfkey"
)

// Auth is one integrity algorithm of ESP and AH. Sizes are in bytes unless the name says Bits.
type Auth struct {
	Number  pfkey.AuthAlg
	Name    string   // as setkey -D prints it
	Aliases []string // other words for it

	MinBits, MaxBits int // key lengths
	ICVLen           int // in the packet: the leftmost bytes of the result
	OldICVLen        int // the same for SAs of the formats of RFC 1826 (pfkey.FlagOld)

	// mac makes the keyed function; nil computes nothing. Each use begins with Reset.
	mac func(key []byte) hash.Hash
}

// CheckBits says whether a key of that many bits has an allowed length: nil or ErrKeyLength.
func (a *Auth) CheckBits(bits int) error { return checkBits(bits, a.MinBits, a.MaxBits, nil) }

// CheckKey says whether key can be used: nil or ErrKeyLength.
func (a *Auth) CheckKey(key []byte) error { return a.CheckBits(len(key) * 8) }

// Auths are the integrity algorithms in the order of their numbers. Nobody changes the table.
// The ICVs of SHA-2 have the lengths of RFC 4868, not the 96 bits of KAME.
var Auths = []*Auth{
	{ // RFC 2403
		Number: 2, Name: "hmac-md5", MinBits: 128, MaxBits: 128, ICVLen: 12, OldICVLen: 16, mac: hmacOf(md5.New),
	},
	{ // RFC 2404
		Number: 3, Name: "hmac-sha1", MinBits: 160, MaxBits: 160, ICVLen: 12, OldICVLen: 16, mac: hmacOf(sha1.New),
	},
	{ // RFC 4868
		Number: 5, Name: "hmac-sha256", Aliases: []string{"hmac-sha2-256"}, MinBits: 256, MaxBits: 256,
		ICVLen: 16, OldICVLen: 16, mac: hmacOf(sha256.New),
	},
	{
		Number: 6, Name: "hmac-sha384", Aliases: []string{"hmac-sha2-384"}, MinBits: 384, MaxBits: 384,
		ICVLen: 24, OldICVLen: 16, mac: hmacOf(sha512.New384),
	},
	{
		Number: 7, Name: "hmac-sha512", Aliases: []string{"hmac-sha2-512"}, MinBits: 512, MaxBits: 512,
		ICVLen: 32, OldICVLen: 16, mac: hmacOf(sha512.New),
	},
	{ // RFC 2857
		Number: 8, Name: "hmac-ripemd160", MinBits: 160, MaxBits: 160, ICVLen: 12, OldICVLen: 16, mac: newHMACRipemd,
	},
	{ // RFC 3566
		Number: 9, Name: "aes-xcbc-mac", MinBits: 128, MaxBits: 128, ICVLen: 12, OldICVLen: 12, mac: newXCBC,
	},
	{ // RFC 1828
		Number: 249, Name: "md5", Aliases: []string{"keyed-md5"}, MinBits: 128, MaxBits: 128,
		ICVLen: 12, OldICVLen: 16, mac: newKeyedMD5,
	},
	{ // RFC 1852
		Number: 250, Name: "sha", Aliases: []string{"keyed-sha1"}, MinBits: 160, MaxBits: 160,
		ICVLen: 12, OldICVLen: 16, mac: newKeyedSHA1,
	},
	{ // no integrity
		Number: 251, Name: "null", MinBits: 0, MaxBits: 2048,
	},
	{ // RFC 4494. No system's PF_KEY has a number for it: this one is of IANA's private range, which begins at 249, and
		// neither KAME (249 to 252, with TCP-MD5) nor Linux (2 to 10 and 251) nor FreeBSD (11 to 13 besides) uses it.
		Number: 253, Name: "aes-cmac", MinBits: 128, MaxBits: 128, ICVLen: 12, OldICVLen: 12, mac: newCMAC,
	},
}

func hmacOf(h func() hash.Hash) func(key []byte) hash.Hash {
	return func(key []byte) hash.Hash { return hmac.New(h, key) }
}
