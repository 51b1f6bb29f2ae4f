package setkey

import (
	"encoding/hex"
	"errors"
	"fmt"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
)

func isAlgorithm(w string) bool { return w == "-E" || w == "-A" || w == "-C" }

// algorithms = "-E" EALG [KEY] ["-A" AALG [KEY]] | "-A" AALG [KEY] | "-C" CALG ["-R"]
func (p *parser) algorithms(a *association) error {
	t, err := p.next()
	if err != nil {
		return err
	}
	switch t.text {
	case "-C": // F_COMP
		return p.compression(a)
	case "-E": // F_ENC
		if err := p.encryption(a); err != nil {
			return err
		}
		t, err := p.peek()
		if err != nil || t.kind != word || t.text != "-A" {
			return err
		}
		p.peeked = false
	}
	return p.authentication(a) // F_AUTH
}

// encryption reads ALG_ENC and its key.
func (p *parser) encryption(a *association) error {
	t, err := p.expect(word)
	if err != nil {
		return err
	}
	if t.text == "simple" { // ALG_ENC_OLD
		p.warn(t.line, warnObsolete)
	}
	row := alg.EncByName(t.text)
	if v := alg.VariantByName(t.text); v != nil { // ALG_ENC_DESDERIV, ALG_ENC_DES32IV
		if v.Old != (a.proto.flags&pfkey.FlagOld != 0) {
			return fail(t, errMismatch)
		}
		row = alg.EncByNumber(v.Enc)
		a.flags |= v.Flags
	}
	if row == nil {
		return fail(t, errAlgorithm)
	}
	key, err := p.key(t, row.MinBits == 0)
	if err != nil {
		return err
	}
	if err := row.CheckKey(key); err != nil {
		return badKey(t, len(key)*8, row.MinBits, row.MaxBits, err)
	}
	// A cipher without a key has an empty extension all the same: kernels insist on one.
	a.enc, a.keyEnc = row.Number, &pfkey.Key{Bits: uint16(len(key) * 8), Key: key}
	return nil
}

// authentication reads ALG_AUTH and its key.
func (p *parser) authentication(a *association) error {
	t, err := p.expect(word)
	if err != nil {
		return err
	}
	row := alg.AuthByName(t.text)
	if row == nil {
		return fail(t, errAlgorithm)
	}
	key, err := p.key(t, row.MinBits == 0)
	if err != nil {
		return err
	}
	if err := row.CheckKey(key); err != nil {
		return badKey(t, len(key)*8, row.MinBits, row.MaxBits, err)
	}
	a.auth = row.Number
	if len(key) > 0 {
		a.keyAuth = &pfkey.Key{Bits: uint16(len(key) * 8), Key: key}
	}
	return nil
}

// compression reads ALG_COMP and -R.
func (p *parser) compression(a *association) error {
	t, err := p.expect(word)
	if err != nil {
		return err
	}
	var ok bool
	if a.enc, ok = compNumber(t.text); !ok {
		return fail(t, errAlgorithm)
	}
	t, err = p.peek()
	if err == nil && t.kind == word && t.text == "-R" { // F_RAWCPI
		p.peeked = false
		a.flags |= pfkey.FlagRawCPI
	}
	return err
}

// compNumber is the number of ALG_COMP. The language has two words more than kernels have algorithms; they are refused there.
func compNumber(name string) (pfkey.EncAlg, bool) {
	if row := alg.CompByName(name); row != nil {
		return row.Number, true
	}
	switch name {
	case "oui":
		return 1, true
	case "lzs":
		return 3, true
	}
	return 0, false
}

// key reads QUOTEDSTRING or HEXSTRING. of is the algorithm's word, which errors show instead of what may be
// a key. The key may be left out if optional is set.
func (p *parser) key(of token, optional bool) ([]byte, error) {
	p.secret = true
	t, err := p.peek()
	if err != nil {
		return nil, err
	}
	var key []byte
	switch {
	case t.kind == quoted:
		key = []byte(t.text)
	case t.kind == word && isHex(t.text):
		digits := t.text[2:]
		if len(digits)%2 != 0 { // the first digit alone is the first byte
			digits = "0" + digits
		}
		if key, err = hex.DecodeString(digits); err != nil {
			return nil, fail(of, errSyntax)
		}
	case optional:
		return nil, nil
	default:
		return nil, explain(of, errSyntax, keyMissing)
	}
	p.peeked = false
	return key, nil
}

// badKey names what is wrong with a key, without showing it.
func badKey(of token, bits, minBits, maxBits int, err error) error {
	switch {
	case errors.Is(err, alg.ErrWeakKey):
		return fail(of, errWeakKey)
	case !errors.Is(err, alg.ErrKeyLength):
		return fail(of, err)
	}
	return explain(of, errKeyLength, fmt.Sprint(bits, minBits, maxBits))
}
