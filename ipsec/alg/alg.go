// Package alg holds the cryptographic algorithms of IPsec as rows of tables, and makes keyed crypto of them.
//
// A row (Enc, Auth, Comp) is the only place that knows an algorithm: its PF_KEY number, its names, key lengths, block,
// IV and ICV sizes, and how to build it. SADB_REGISTER answers, setkey's words, key checks and tests read the same rows.
// A Suite is what an SA computes with: rows and keys put together, safe for concurrent use, without allocation per packet.
//
// The package knows bytes of one ESP packet, but no IP header, no SA and no sequence of packets. It never logs.
// Package sadb builds a Suite per SA, package esp calls it, package key lists the rows.
package alg

import (
	"errors"

	"kipsec/ipsec/pfkey"
)

// Errors of CheckKey and of the functions that make a Suite. They never hold key bytes.
var (
	ErrKeyLength   = errors.New("alg: invalid key length")
	ErrWeakKey     = errors.New("alg: weak key")
	ErrCombined    = errors.New("alg: a combined-mode cipher takes no integrity algorithm beside it")
	ErrUnsupported = errors.New("alg: unsupported algorithm")
)

// EncByNumber returns the encryption algorithm with a PF_KEY number, nil when there is none.
func EncByNumber(n pfkey.EncAlg) *Enc {
	for _, e := range Encs {
		if e.Number == n {
			return e
		}
	}
	return nil
}

// EncByName returns the encryption algorithm with a name or an alias, nil when there is none.
func EncByName(name string) *Enc {
	for _, e := range Encs {
		if named(name, e.Name, e.Aliases) {
			return e
		}
	}
	return nil
}

// AuthByNumber returns the integrity algorithm with a PF_KEY number, nil when there is none.
func AuthByNumber(n pfkey.AuthAlg) *Auth {
	for _, a := range Auths {
		if a.Number == n {
			return a
		}
	}
	return nil
}

// AuthByName returns the integrity algorithm with a name or an alias, nil when there is none.
func AuthByName(name string) *Auth {
	for _, a := range Auths {
		if named(name, a.Name, a.Aliases) {
			return a
		}
	}
	return nil
}

// CompByNumber returns the compression algorithm with a PF_KEY number, nil when there is none.
func CompByNumber(n pfkey.EncAlg) *Comp {
	for _, c := range Comps {
		if c.Number == n {
			return c
		}
	}
	return nil
}

// CompByName returns the compression algorithm with a name, nil when there is none.
func CompByName(name string) *Comp {
	for _, c := range Comps {
		if named(name, c.Name, c.Aliases) {
			return c
		}
	}
	return nil
}

func named(name, own string, aliases []string) bool {
	if name == own {
		return true
	}
	for _, a := range aliases {
		if name == a {
			return true
		}
	}
	return false
}
