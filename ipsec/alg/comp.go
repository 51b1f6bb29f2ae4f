package alg

import "kipsec/ipsec/pfkey"

// Comp is one compression algorithm of IPComp. PF_KEY carries its number where an ESP SA has that of its cipher.
type Comp struct {
	Number  pfkey.EncAlg // also the well-known CPI (RFC 3173 §4)
	Name    string
	Aliases []string

	// MinPayload is the least number of bytes that are worth compressing; shorter payloads are sent as they are.
	MinPayload int
}

// Comps are the compression algorithms. Nobody changes the table.
var Comps = []*Comp{
	{ // RFC 2394; KAME's threshold
		Number: 2, Name: "deflate", MinPayload: 90,
	},
}
