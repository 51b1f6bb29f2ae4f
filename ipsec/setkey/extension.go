package setkey

import (
	"math"

	"kipsec/ipsec/pfkey"
)

// extension is an option of a command about an SA. parse reads what follows the word o.
type extension struct {
	word, args string
	parse      func(p *parser, a *association, o token) error
}

// extensions has the options, with KAME's names of the tokens.
var extensions = [...]extension{
	{"-m", "MODE", (*parser).mode},      // F_MODE
	{"-u", "REQID", (*parser).reqID},    // F_REQID
	{"-r", "BYTES", (*parser).window},   // F_REPLAY
	{"-f", "FLAG", (*parser).flag},      // F_EXT
	{"-lh", "SECONDS", (*parser).hard},  // F_LIFETIME_HARD
	{"-ls", "SECONDS", (*parser).soft},  // F_LIFETIME_SOFT
	{"-bh", "BYTES", (*parser).hardLen}, // F_LIFEBYTE_HARD
	{"-bs", "BYTES", (*parser).softLen}, // F_LIFEBYTE_SOFT
	{"-esp_frag", "BYTES", (*parser).fragment},
	{"-ctx", "DOI ALG STRING", func(p *parser, _ *association, o token) error { return p.context(o) }}, // SECURITY_CTX
}

// option reads one extension, whose word o was read already.
func (p *parser) option(a *association, o token) error {
	for i := range extensions {
		if e := &extensions[i]; o.kind == word && e.word == o.text {
			return e.parse(p, a, o)
		}
	}
	return fail(o, errSyntax)
}

type modeWord struct {
	word string
	mode pfkey.Mode
}

var modes = [...]modeWord{{"any", pfkey.ModeAny}, {"transport", pfkey.ModeTransport}, {"tunnel", pfkey.ModeTunnel}}

func (p *parser) mode(a *association, _ token) error {
	t, err := p.expect(word)
	if err != nil {
		return err
	}
	for _, m := range modes {
		if m.word == t.text {
			a.mode = m.mode
			return nil
		}
	}
	return fail(t, errSyntax)
}

func (p *parser) reqID(a *association, _ token) error {
	n, err := p.decimal(math.MaxUint32)
	a.reqID = uint32(n)
	return err
}

// maxReplay is the widest window that PF_KEY can say, in bytes of bitmap with eight packets each (FreeBSD).
const maxReplay = (math.MaxUint32 - 32) / 8

func (p *parser) window(a *association, o token) (err error) {
	if a.proto.flags&pfkey.FlagOld != 0 {
		return fail(o, errOldReplay)
	}
	if a.replay, err = p.decimal(math.MaxUint64); err == nil && a.replay > maxReplay {
		return fail(o, errReplay)
	}
	return err
}

// flagWord is a word after -f, with the bits that it sets and clears.
type flagWord struct {
	word    string
	on, off pfkey.Flags
}

// flags has them; esn is our own word for FreeBSD's flag.
var flags = [...]flagWord{
	{word: "random-pad", on: pfkey.FlagPRand},
	{word: "seq-pad"},
	{word: "zero-pad", on: pfkey.FlagPZero},
	{word: "nocyclic-seq", off: pfkey.FlagCycSeq},
	{word: "esn", on: pfkey.FlagESN},
}

func (p *parser) flag(a *association, _ token) error {
	t, err := p.expect(word)
	if err != nil {
		return err
	}
	for _, f := range flags {
		if f.word == t.text {
			a.flags = a.flags&^f.off | f.on
			return nil
		}
	}
	return fail(t, errFlag)
}

func (p *parser) hard(a *association, _ token) (err error) {
	a.hard.AddTime, err = p.decimal(math.MaxUint64)
	return err
}

func (p *parser) soft(a *association, _ token) (err error) {
	a.soft.AddTime, err = p.decimal(math.MaxUint64)
	return err
}

func (p *parser) hardLen(a *association, _ token) (err error) {
	a.hard.Bytes, err = p.decimal(math.MaxUint64)
	return err
}

func (p *parser) softLen(a *association, _ token) (err error) {
	a.soft.Bytes, err = p.decimal(math.MaxUint64)
	return err
}

// fragment reads the size of the fragments that NetBSD makes before ESP in UDP. We make none.
func (p *parser) fragment(a *association, o token) error {
	if _, err := p.decimal(math.MaxUint32); err != nil {
		return err
	}
	if !a.proto.udp {
		return fail(o, errFragment)
	}
	return fail(o, errUnsupported)
}

// context reads the label of a security module, after its word o, and refuses it: a label that nobody looks at would
// let through what it was written to stop.
func (p *parser) context(o token) error {
	for range 2 {
		if _, err := p.decimal(math.MaxUint8); err != nil {
			return err
		}
	}
	if _, err := p.expect(quoted); err != nil {
		return err
	}
	return fail(o, errUnsupported)
}
