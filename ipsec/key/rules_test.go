package key

import (
	"encoding/binary"
	"syscall"
	"testing"

	"kipsec/ipsec/pfkey"
)

// nobody is the Target of a request without an answer.
const nobody = numTargets

// rule is what the key engine answers to a request, and who hears of it.
type rule struct {
	name    string
	before  []*pfkey.Message // have to succeed
	request *pfkey.Message
	errno   syscall.Errno
	to      Target
}

// TestRules has a row for each line that KAME's handlers and Linux's clients agree on: errno and receivers of each message.
// What is wrong with the form of a message has its rows in TestValidation. Where KAME is not followed, the name says what KAME
// does.
func TestRules(t *testing.T) {
	for _, group := range []struct {
		name  string
		rules []rule
	}{{"GETSPI", getSPIRules()}, {"ADD", addRules()}, {"UPDATE", updateRules()}, {"other SADB messages", sadbRules()},
		{"SPDADD", spdAddRules()}, {"requests", requestRules()}, {"other SPD messages", spdRules()}, {"MIGRATE", migrateRules()}} {
		for _, r := range group.rules {
			t.Run(group.name+"/"+r.name, func(t *testing.T) { r.check(t) })
		}
	}
}

func (r *rule) check(t *testing.T) {
	e := newEngine()
	asking, daemon, other := e.client(t), e.client(t), e.client(t)
	daemon.must(plain(pfkey.Register, pfkey.SATypeAH)) // for any type is for all
	for _, m := range r.before {
		asking.must(m)
	}
	daemon.got, other.got = nil, nil
	asking.socket.Handle(r.request.AppendTo(nil))
	number := uint32(seq)
	if t := r.request.Type; r.errno == 0 && (t == pfkey.Dump || t == pfkey.SPDDump) {
		number = 0 // the last of one
	}
	want := map[*client]int{asking: 1}
	switch r.to {
	case nobody:
		want[asking] = 0
	case ToAll:
		want[daemon], want[other] = 1, 1
	case ToRegistered:
		want[daemon] = 1
	}
	for who, c := range map[string]*client{"the client": asking, "the registered client": daemon, "another client": other} {
		if len(c.got) != want[c] {
			t.Errorf("%s got %d messages, want %d", who, len(c.got), want[c])
		}
		for _, b := range c.got {
			if syscall.Errno(b[2]) != r.errno || pfkey.Type(b[1]) != r.request.Type || binary.NativeEndian.Uint32(b[8:]) != number || binary.NativeEndian.Uint32(b[12:]) != pid {
				t.Errorf("%s got %x, want errno %d (%v)", who, b[:16], r.errno, r.errno)
			}
			if r.errno != 0 && len(b) != pfkey.HeaderLen {
				t.Errorf("an error of %d bytes", len(b))
			}
		}
	}
}

// list makes the messages that go before a request.
func list(m ...*pfkey.Message) []*pfkey.Message { return m }

func comp(t pfkey.Type, cpi uint32) *pfkey.Message {
	m := saMsg(t, cpi)
	m.SAType, m.SA.Enc = pfkey.SATypeIPComp, 2
	return m
}

func ah(t pfkey.Type, spi uint32) *pfkey.Message {
	m := saMsg(t, spi)
	m.SAType, m.SA.Auth, m.KeyAuth = pfkey.SATypeAH, 3, &pfkey.Key{Bits: 160, Key: make([]byte, 20)}
	return m
}

func getSPIRules() []rule {
	const inval = syscall.EINVAL
	compRange := func(m *pfkey.Message) { m.SAType = pfkey.SATypeIPComp }
	return []rule{
		{"a range", nil, getSPIMsg(5000, 6000), 0, ToSender},
		{"no range", nil, with(getSPIMsg(0, 0), func(m *pfkey.Message) { m.SPIRange = nil }), 0, ToSender},
		{"with SA2", nil, with(getSPIMsg(5000, 6000), func(m *pfkey.Message) { m.SA2 = &pfkey.SA2{Mode: pfkey.ModeTunnel, ReqID: 3} }), 0, ToSender},
		{"no SRC", nil, with(getSPIMsg(5000, 6000), func(m *pfkey.Message) { m.Src = nil }), inval, ToSender},
		{"no DST", nil, with(getSPIMsg(5000, 6000), func(m *pfkey.Message) { m.Dst = nil }), inval, ToSender},
		{"one number", nil, getSPIMsg(5000, 5000), 0, ToSender},
		{"one number that is taken", list(getSPIMsg(5000, 5000)), getSPIMsg(5000, 5000), inval, ToSender},
		{"all numbers are taken", list(getSPIMsg(5000, 5001), getSPIMsg(5000, 5001)), getSPIMsg(5000, 5001), inval, ToSender},
		{"the last free number, KAME: taken for failure", list(getSPIMsg(5000, 5001)), getSPIMsg(5000, 5001), 0, ToSender},
		{"a range the wrong way round, KAME: accepted", nil, getSPIMsg(6000, 5000), inval, ToSender},
		{"reserved numbers, KAME: accepted", nil, getSPIMsg(1, 255), inval, ToSender},
		{"IPComp beyond 16 bits", nil, with(getSPIMsg(0xffff, 0x20000), compRange), 0, ToSender},
		{"IPComp the wrong way round", nil, with(getSPIMsg(0x300, 0x200), compRange), 0, ToSender},
	}
}

func addRules() []rule {
	const inval = syscall.EINVAL
	add := func(change change) *pfkey.Message { return with(addMsg(pfkey.Add, 1000), change) }
	bad := func(name string, m *pfkey.Message) rule { return rule{name, nil, m, inval, ToSender} }
	good := func(name string, m *pfkey.Message) rule { return rule{name, nil, m, 0, ToAll} }
	key := func(bits uint16) *pfkey.Key { return &pfkey.Key{Bits: bits, Key: make([]byte, (bits+7)/8)} }
	return []rule{
		good("ESP", addMsg(pfkey.Add, 1000)), good("AH", ah(pfkey.Add, 1000)), good("IPComp", comp(pfkey.Add, 1000)),
		bad("no SA", add(func(m *pfkey.Message) { m.SA = nil })),
		bad("no SRC", add(func(m *pfkey.Message) { m.Src = nil })),
		bad("no DST", add(func(m *pfkey.Message) { m.Dst = nil })),
		good("HARD alone, KAME: EINVAL", add(func(m *pfkey.Message) { m.Soft = nil })),
		good("SOFT alone, KAME: EINVAL", add(func(m *pfkey.Message) { m.Hard = nil })),
		good("a lifetime of 2^32 bytes", add(func(m *pfkey.Message) { m.Hard.Bytes, m.Soft.Bytes = 1<<33, 1<<32 })),
		good("both identities", add(func(m *pfkey.Message) { m.IdentSrc, m.IdentDst = &pfkey.Identity{Type: 2}, &pfkey.Identity{Type: 2} })),
		bad("one identity", add(func(m *pfkey.Message) { m.IdentSrc = &pfkey.Identity{Type: 2} })),
		bad("identities of two types", add(func(m *pfkey.Message) { m.IdentSrc, m.IdentDst = &pfkey.Identity{Type: 2}, &pfkey.Identity{Type: 3} })),
		bad("ESP without KEY_ENCRYPT", add(func(m *pfkey.Message) { m.KeyEnc = nil })),
		bad("ESP null without KEY_ENCRYPT", add(func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 11, nil })),
		good("ESP null with an empty KEY_ENCRYPT", add(func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 11, key(0) })),
		bad("an empty KEY_ENCRYPT for AES", add(func(m *pfkey.Message) { m.KeyEnc = key(0) })),
		bad("an empty KEY_AUTH for SHA-1", add(func(m *pfkey.Message) { m.KeyAuth = key(0) })),
		good("integrity null with an empty KEY_AUTH", add(func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 251, key(0) })),
		good("ESP with keyed MD5", add(func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 249, key(128) })),
		good("ESP with keyed SHA-1", add(func(m *pfkey.Message) { m.SA.Auth, m.KeyAuth = 250, key(160) })),
		bad("AH without KEY_AUTH", with(ah(pfkey.Add, 1000), func(m *pfkey.Message) { m.KeyAuth = nil })),
		bad("AH with KEY_ENCRYPT", with(ah(pfkey.Add, 1000), func(m *pfkey.Message) { m.KeyEnc = key(128) })),
		bad("AH with a cipher", with(ah(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA.Enc = 12 })),
		bad("AH with integrity null", with(ah(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA.Auth = 251 })),
		bad("AH with DERIV", with(ah(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagDeriv })),
		good("IPComp with an empty KEY_ENCRYPT", with(comp(pfkey.Add, 1000), func(m *pfkey.Message) { m.KeyEnc = key(0) })),
		bad("IPComp with KEY_ENCRYPT", with(comp(pfkey.Add, 1000), func(m *pfkey.Message) { m.KeyEnc = key(64) })),
		bad("IPComp with KEY_AUTH", with(comp(pfkey.Add, 1000), func(m *pfkey.Message) { m.KeyAuth = key(160) })),
		bad("IPComp with integrity", with(comp(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA.Auth = 3 })),
		bad("a CPI beyond 16 bits", comp(pfkey.Add, 0x10000)),
		good("a CPI beyond 16 bits with RAWCPI", with(comp(pfkey.Add, 0x10000), func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagRawCPI })),
		bad("SPI 0", add(func(m *pfkey.Message) { m.SA.SPI = 0 })),
		bad("SPI 255", add(func(m *pfkey.Message) { m.SA.SPI = 255 })),
		bad("OLD and DERIV", add(func(m *pfkey.Message) {
			m.SA.Enc, m.SA.Flags, m.KeyEnc = 2, pfkey.FlagOld|pfkey.FlagDeriv, &pfkey.Key{Bits: 64, Key: []byte("01234567")}
		})),
		bad("OLD and AES", add(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagOld })),
		bad("DERIV and AES", add(func(m *pfkey.Message) { m.SA.Flags = pfkey.FlagDeriv })),
		bad("IV4B and DES of RFC 2406", add(func(m *pfkey.Message) {
			m.SA.Enc, m.SA.Flags, m.KeyEnc = 2, pfkey.FlagIV4B, &pfkey.Key{Bits: 64, Key: []byte("01234567")}
		})),
		bad("an unknown cipher", add(func(m *pfkey.Message) { m.SA.Enc = 99 })),
		bad("an unknown integrity algorithm", add(func(m *pfkey.Message) { m.SA.Auth = 99 })),
		bad("a key that is too short", add(func(m *pfkey.Message) { m.KeyEnc = key(64) })),
		bad("a key that is too long", add(func(m *pfkey.Message) { m.KeyEnc = key(512) })),
		bad("a weak key of DES", add(func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 2, key(64) })),
		bad("a weak key of 3DES", add(func(m *pfkey.Message) { m.SA.Enc, m.KeyEnc = 3, key(192) })),
		{"twice", list(addMsg(pfkey.Add, 1000)), addMsg(pfkey.Add, 1000), syscall.EEXIST, ToSender},
		{"of a larval SA", list(getSPIMsg(1000, 1000)), addMsg(pfkey.Add, 1000), syscall.EEXIST, ToSender},
		{"the same SPI from elsewhere, KAME: accepted", list(addMsg(pfkey.Add, 1000)), add(func(m *pfkey.Message) { m.Src = addr("10.0.0.9") }), syscall.EEXIST, ToSender},
		{"the same SPI with another reqid, KAME: accepted", list(addMsg(pfkey.Add, 1000)), add(func(m *pfkey.Message) { m.SA2.ReqID++ }), syscall.EEXIST, ToSender},
		{"the same SPI of AH", list(addMsg(pfkey.Add, 1000)), ah(pfkey.Add, 1000), 0, ToAll},
	}
}

func updateRules() []rule {
	const inval, srch = syscall.EINVAL, syscall.ESRCH
	update := func(change change) *pfkey.Message { return with(addMsg(pfkey.Update, 1000), change) }
	nothing := func(*pfkey.Message) {}
	larval, mature := list(getSPIMsg(1000, 1000)), list(addMsg(pfkey.Add, 1000))
	return []rule{
		{"of a larval SA", larval, update(nothing), 0, ToAll},
		{"of a mature SA", mature, update(nothing), 0, ToAll},
		{"of nothing, KAME: ENOENT", nil, update(nothing), srch, ToSender},
		{"of another SPI, KAME: EINVAL", mature, update(func(m *pfkey.Message) { m.SA.SPI++ }), srch, ToSender},
		{"of another protocol", mature, ah(pfkey.Update, 1000), srch, ToSender},
		{"of another mode", mature, update(func(m *pfkey.Message) { m.SA2.Mode = pfkey.ModeTunnel }), srch, ToSender},
		{"of another reqid", mature, update(func(m *pfkey.Message) { m.SA2.ReqID++ }), srch, ToSender},
		{"by another than the creator of a larval SA", list(with(getSPIMsg(1000, 1000), func(m *pfkey.Message) { m.PID++ })), update(nothing), inval, ToSender},
		{"by another than the creator of a mature SA", list(with(addMsg(pfkey.Add, 1000), func(m *pfkey.Message) { m.PID++ })), update(nothing), 0, ToAll},
		{"with values that are refused, KAME: errno 0", larval, update(func(m *pfkey.Message) { m.SA.Enc = 99 }), inval, ToSender},
	}
}

func sadbRules() []rule {
	const inval = syscall.EINVAL
	pair := func(t pfkey.Type) *pfkey.Message { return with(saMsg(t, 0), func(m *pfkey.Message) { m.SA = nil }) }
	mature := list(addMsg(pfkey.Add, 1000))
	acquire := func() *pfkey.Message {
		return with(pair(pfkey.Acquire), func(m *pfkey.Message) { m.Proposal = &pfkey.Proposal{} })
	}
	return []rule{
		{"DELETE", mature, saMsg(pfkey.Delete, 1000), 0, ToAll},
		{"DELETE of a larval SA", list(getSPIMsg(1000, 1000)), saMsg(pfkey.Delete, 1000), 0, ToAll},
		{"DELETE of nothing", nil, saMsg(pfkey.Delete, 1000), syscall.ENOENT, ToSender},
		{"DELETE of another SPI", mature, saMsg(pfkey.Delete, 1001), syscall.ENOENT, ToSender},
		{"DELETE without SA", mature, pair(pfkey.Delete), 0, ToAll},
		{"DELETE without SA of nothing", nil, pair(pfkey.Delete), 0, ToAll},
		{"DELETE without SRC", mature, with(saMsg(pfkey.Delete, 1000), func(m *pfkey.Message) { m.Src = nil }), inval, ToSender},
		{"DELETE without DST", mature, with(saMsg(pfkey.Delete, 1000), func(m *pfkey.Message) { m.Dst = nil }), inval, ToSender},
		{"GET", mature, saMsg(pfkey.Get, 1000), 0, ToSender},
		{"GET of nothing", nil, saMsg(pfkey.Get, 1000), syscall.ENOENT, ToSender},
		{"GET without SA", mature, pair(pfkey.Get), inval, ToSender},
		{"FLUSH", mature, plain(pfkey.Flush, 0), 0, ToAll},
		{"FLUSH of nothing", nil, plain(pfkey.Flush, pfkey.SATypeAH), 0, ToAll},
		{"DUMP", mature, plain(pfkey.Dump, 0), 0, ToSender},
		{"DUMP of nothing", nil, plain(pfkey.Dump, 0), syscall.ENOENT, ToSender},
		{"DUMP of another type", mature, plain(pfkey.Dump, pfkey.SATypeAH), syscall.ENOENT, ToSender},
		{"REGISTER", nil, plain(pfkey.Register, pfkey.SATypeESP), 0, ToRegistered},
		{"REGISTER of type 0", nil, plain(pfkey.Register, 0), 0, ToRegistered},
		{"REGISTER twice", list(plain(pfkey.Register, pfkey.SATypeESP)), plain(pfkey.Register, pfkey.SATypeESP), syscall.EEXIST, ToSender},
		{"REGISTER of two types", list(plain(pfkey.Register, pfkey.SATypeESP)), plain(pfkey.Register, pfkey.SATypeAH), 0, ToRegistered},
		{"X_PROMISC off", nil, plain(pfkey.Promisc, 0), 0, ToAll},
		{"X_PROMISC of SA type 2", nil, plain(pfkey.Promisc, 2), inval, ToSender},
		{"a report of failure", nil, plain(pfkey.Acquire, pfkey.SATypeESP), 0, nobody},
		{"ACQUIRE of what there is", list(with(addMsg(pfkey.Add, 1000), func(m *pfkey.Message) { m.SA2 = nil })), acquire(), syscall.EEXIST, ToSender},
		{"ACQUIRE without a proposal", nil, pair(pfkey.Acquire), inval, ToSender},
		{"ACQUIRE without SRC", nil, with(acquire(), func(m *pfkey.Message) { m.Src = nil }), inval, ToSender},
	}
}

func spdAddRules() []rule {
	const inval = syscall.EINVAL
	add := func(change change) *pfkey.Message { return with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), change) }
	bad := func(name string, change change) rule { return rule{name, nil, add(change), inval, ToSender} }
	rules := []rule{
		{"discard", nil, add(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = pfkey.PolicyDiscard, nil }), 0, ToAll},
		{"none", nil, add(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = pfkey.PolicyNone, nil }), 0, ToAll},
		{"with a lifetime", nil, add(func(m *pfkey.Message) { m.Hard = &pfkey.Lifetime{AddTime: 60} }), 0, ToAll},
		{"protocol 0", nil, add(func(m *pfkey.Message) { m.Src, m.Dst = prefix("10.0.0.0/8", 0, 0), prefix("10.0.0.0/8", 0, 0) }), 0, ToAll},
		{"any address", nil, add(func(m *pfkey.Message) { m.Src, m.Dst = prefix("::/0", 0, 255), prefix("::/0", 0, 255) }), 0, ToAll},
		{"a priority", nil, add(func(m *pfkey.Message) { m.Policy.Priority = 0xffffffff }), 0, ToAll},
		bad("no SRC", func(m *pfkey.Message) { m.Src = nil }),
		bad("no DST", func(m *pfkey.Message) { m.Dst = nil }),
		bad("no POLICY", func(m *pfkey.Message) { m.Policy = nil }),
		bad("direction any, KAME: no answer", func(m *pfkey.Message) { m.Policy.Dir = 0 }),
		bad("direction 4, KAME: no answer", func(m *pfkey.Message) { m.Policy.Dir = 4 }),
		bad("entrust", func(m *pfkey.Message) { m.Policy.Type = pfkey.PolicyEntrust }),
		bad("bypass", func(m *pfkey.Message) { m.Policy.Type = pfkey.PolicyBypass }),
		bad("ipsec without a request", func(m *pfkey.Message) { m.Policy.Requests = nil }),
		bad("families that differ", func(m *pfkey.Message) { m.Dst = prefix("::/0", 0, 6) }),
		bad("a request of another family", ends("::1", "::2")),
		{"twice", list(spdMsg(pfkey.SPDAdd, pfkey.DirOut)), spdMsg(pfkey.SPDAdd, pfkey.DirOut), syscall.EEXIST, ToSender},
		{"twice, of another type", list(spdMsg(pfkey.SPDAdd, pfkey.DirOut)), add(func(m *pfkey.Message) { m.Policy.Type, m.Policy.Requests = 1, nil }), syscall.EEXIST, ToSender},
		{"SPDUPDATE", list(spdMsg(pfkey.SPDAdd, pfkey.DirOut)), spdMsg(pfkey.SPDUpdate, pfkey.DirOut), 0, ToAll},
		{"SPDUPDATE of nothing, KAME of 2001: ENOENT", nil, spdMsg(pfkey.SPDUpdate, pfkey.DirOut), 0, ToAll},
		{"SPDUPDATE without a request", nil, with(spdMsg(pfkey.SPDUpdate, pfkey.DirOut), func(m *pfkey.Message) { m.Policy.Requests = nil }), inval, ToSender},
		{"SPDSETIDX", nil, setIdxMsg(pfkey.DirOut), 0, ToAll},
		{"SPDSETIDX twice", list(setIdxMsg(pfkey.DirOut)), setIdxMsg(pfkey.DirOut), syscall.EEXIST, ToSender},
	}
	for dir, name := range map[pfkey.Dir]string{pfkey.DirIn: "in", pfkey.DirOut: "out", pfkey.DirFwd: "fwd, which KAME has not"} {
		rules = append(rules, rule{name, nil, spdMsg(pfkey.SPDAdd, dir), 0, ToAll})
	}
	return rules
}

// requestRules are those of KAME key_msg2sp.
func requestRules() []rule {
	const inval = syscall.EINVAL
	add := func(name string, errno syscall.Errno, change change) rule {
		to := ToAll
		if errno != 0 {
			to = ToSender
		}
		return rule{name, nil, with(spdMsg(pfkey.SPDAdd, pfkey.DirOut), change), errno, to}
	}
	return []rule{
		add("ESP", 0, req(func(r *pfkey.Request) { r.Proto = 50 })),
		add("AH", 0, req(func(r *pfkey.Request) { r.Proto = 51 })),
		add("IPComp", 0, req(func(r *pfkey.Request) { r.Proto = 108 })),
		add("protocol 0", syscall.EPROTONOSUPPORT, req(func(r *pfkey.Request) { r.Proto = 0 })),
		add("protocol 6", syscall.EPROTONOSUPPORT, req(func(r *pfkey.Request) { r.Proto = 6 })),
		add("mode any", inval, req(func(r *pfkey.Request) { r.Mode = 0 })),
		add("mode 3", inval, req(func(r *pfkey.Request) { r.Mode = 3 })),
		add("level default", 0, req(func(r *pfkey.Request) { r.Level = 0 })),
		add("level 4", inval, req(func(r *pfkey.Request) { r.Level = 4 })),
		add("unique", 0, req(func(r *pfkey.Request) { r.Level = 3 })),
		add("unique:3", 0, req(func(r *pfkey.Request) { r.Level, r.ReqID = 3, 3 })),
		add("unique beyond 0x3fff is replaced", 0, req(func(r *pfkey.Request) { r.Level, r.ReqID = 3, 0x4000 })),
		add("a tunnel", 0, tunnel("10.9.0.1", "10.9.0.2")),
		add("a tunnel of the other family", 0, tunnel("::1", "::2")),
		add("a tunnel without ends", inval, req(func(r *pfkey.Request) { r.Mode = 2 })),
		add("a tunnel to nowhere", inval, tunnel("10.9.0.1", "0.0.0.0")),
		add("two requests", 0, func(m *pfkey.Message) {
			m.Policy.Requests = append(m.Policy.Requests, pfkey.Request{Proto: 51, Mode: 1})
		}),
		add("a second request of protocol 1", syscall.EPROTONOSUPPORT, func(m *pfkey.Message) {
			m.Policy.Requests = append(m.Policy.Requests, pfkey.Request{Proto: 1, Mode: 1})
		}),
	}
}

func spdRules() []rule {
	const inval, noent = syscall.EINVAL, syscall.ENOENT
	there := list(spdMsg(pfkey.SPDAdd, pfkey.DirOut)) // its id is 9, the first of direction out
	byID := func(t pfkey.Type, id uint32) *pfkey.Message {
		return with(plain(t, 0), func(m *pfkey.Message) { m.Policy = &pfkey.Policy{ID: id} })
	}
	return []rule{
		{"SPDDELETE", there, spdMsg(pfkey.SPDDelete, pfkey.DirOut), 0, ToAll},
		{"SPDDELETE of nothing", nil, spdMsg(pfkey.SPDDelete, pfkey.DirOut), inval, ToSender},
		{"SPDDELETE of another direction", there, spdMsg(pfkey.SPDDelete, pfkey.DirIn), inval, ToSender},
		{"SPDDELETE without POLICY", there, with(spdMsg(pfkey.SPDDelete, pfkey.DirOut), func(m *pfkey.Message) { m.Policy = nil }), inval, ToSender},
		{"SPDDELETE2", there, byID(pfkey.SPDDelete2, 9), 0, ToAll},
		{"SPDDELETE2 of nothing", there, byID(pfkey.SPDDelete2, 17), inval, ToSender},
		{"SPDDELETE2 without POLICY", there, plain(pfkey.SPDDelete2, 0), inval, ToSender},
		{"SPDGET", there, byID(pfkey.SPDGet, 9), 0, ToSender},
		{"SPDGET of nothing", there, byID(pfkey.SPDGet, 17), noent, ToSender},
		{"SPDGET without POLICY", there, plain(pfkey.SPDGet, 0), inval, ToSender},
		{"SPDFLUSH", there, plain(pfkey.SPDFlush, 0), 0, ToAll},
		{"SPDFLUSH of nothing", nil, plain(pfkey.SPDFlush, 0), 0, ToAll},
		{"SPDFLUSH with an extension", there, with(byID(pfkey.SPDFlush, 9), func(*pfkey.Message) {}), inval, ToSender},
		{"SPDDUMP", there, plain(pfkey.SPDDump, 0), 0, ToSender},
		{"SPDDUMP of nothing", nil, plain(pfkey.SPDDump, 0), noent, ToSender},
	}
}
