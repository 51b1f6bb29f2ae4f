package sadb

import (
	"errors"
	"fmt"
	"strings"

	"kipsec/ipsec/alg"
	"kipsec/net/wire"
)

// Refusal is why the values of an SA were refused, for the log. Its text is KAME's where KAME had one, holds no
// key, and names the function that KAME logged it from; the error that it wraps is that of package alg.
type Refusal struct {
	text string
	err  error
}

// Error is the line for the log.
func (r *Refusal) Error() string { return r.text }

// Unwrap returns the cause.
func (r *Refusal) Unwrap() error { return r.err }

// explain makes a Refusal of what package alg said. Other errors stay what they are.
func (p *Params) explain(err error) error {
	text := ""
	switch cipher := p.cipherFunction(); {
	case errors.Is(err, alg.ErrUnsupported):
		text = fmt.Sprintf("key_mature: unsupported algorithm (auth %d, enc %d)", p.Auth, p.Enc)
	case errors.Is(err, alg.ErrFlags):
		text = "key_mature: invalid flag (derived) given to old-esp."
	case errors.Is(err, alg.ErrWeakKey):
		text = cipher + ": weak key was passed."
	case errors.Is(err, alg.ErrKeyLength):
		text = p.keyLength(cipher)
	case errors.Is(err, alg.ErrOld), errors.Is(err, alg.ErrDerived), errors.Is(err, alg.ErrShortIV),
		errors.Is(err, alg.ErrESN), errors.Is(err, alg.ErrCombined):
		text = cipher + ": " + strings.TrimPrefix(err.Error(), "alg: ")
	default:
		return err
	}
	return &Refusal{text, err}
}

// cipherFunction is KAME's name for what judges the keys of ciphers in CBC mode, and a like name for the modes that KAME
// did not have.
func (p *Params) cipherFunction() string {
	if e := alg.EncByNumber(p.Enc); e == nil || e.Block > 1 {
		return "esp_cbc_mature"
	}
	return "esp_mature"
}

// keyLength says which of the two keys is wrong.
func (p *Params) keyLength(cipher string) string {
	enc, auth := alg.EncByNumber(p.Enc), alg.AuthByNumber(p.Auth)
	if p.Proto == wire.ProtoESP && enc != nil && (enc.CheckBits(p.EncBits) != nil || 8*len(p.EncKey) != p.EncBits) {
		return fmt.Sprintf("%s %s: invalid key length %d.", cipher, enc.Name, p.EncBits)
	}
	if auth == nil {
		return fmt.Sprintf("key_mature: invalid key length %d.", p.AuthBits)
	}
	name := auth.Name
	if len(auth.Aliases) > 0 { // setkey's word, after which KAME named its functions
		name = auth.Aliases[0]
	}
	return fmt.Sprintf("ah_%s_mature: invalid key length %d.", strings.ReplaceAll(name, "-", "_"), p.AuthBits)
}
