package alg

import "encoding/binary"

// desWeak are the weak and the semi-weak keys of DES in the order of FIPS 74, without parity bits.
var desWeak = [...]uint64{
	0x0000000000000000, 0xfefefefefefefefe, 0x1e1e1e1e0e0e0e0e, 0xe0e0e0e0f0f0f0f0,

	0x00fe00fe00fe00fe, 0xfe00fe00fe00fe00,
	0x1ee01ee00ef00ef0, 0xe01ee01ef00ef00e,
	0x00e000e000f000f0, 0xe000e000f000f000,
	0x1efe1efe0efe0efe, 0xfe1efe1efe0efe0e,
	0x001e001e000e000e, 0x1e001e000e000e00,
	0xe0fee0fef0fef0fe, 0xfee0fee0fef0fef0,
}

// weakDES says whether one of the DES keys that key consists of is weak or semi-weak (RFC 2405 §4). Parity is ignored.
func weakDES(key []byte) bool {
	const withoutParity = 0xfefefefefefefefe
	for ; len(key) >= 8; key = key[8:] {
		k := binary.BigEndian.Uint64(key) & withoutParity
		for _, w := range desWeak {
			if k == w {
				return true
			}
		}
	}
	return false
}
