package key

import (
	"encoding/binary"
	"testing"

	"kipsec/ipsec/pfkey"
)

// FuzzHandle: whatever a client sends, each message to it is well formed; the failure report of a key daemon
// alone has no answer.
func FuzzHandle(f *testing.F) {
	for _, m := range []*pfkey.Message{
		addMsg(pfkey.Add, 1000), addMsg(pfkey.Update, 1000), getSPIMsg(256, 512), saMsg(pfkey.Get, 1000), saMsg(pfkey.Delete, 1000),
		spdMsg(pfkey.SPDAdd, pfkey.DirOut), spdMsg(pfkey.SPDUpdate, pfkey.DirFwd), spdMsg(pfkey.SPDDelete, pfkey.DirOut),
		with(plain(pfkey.SPDGet, 0), func(m *pfkey.Message) { m.Policy = &pfkey.Policy{ID: 8} }),
		plain(pfkey.Register, pfkey.SATypeESP), plain(pfkey.Flush, 0), plain(pfkey.SPDFlush, 0), plain(pfkey.Dump, 0),
		plain(pfkey.SPDDump, 0), plain(pfkey.Promisc, 1), with(plain(pfkey.Promisc, 0), func(m *pfkey.Message) { m.Payload = plain(pfkey.Flush, 0).AppendTo(nil) }),
		setIdxMsg(pfkey.DirIn), migrateMsg("10.9.0.2"), tunnelPolicy(), tunnelSA(2000), with(plain(pfkey.Dump, 0), func(m *pfkey.Message) { m.Filter = &pfkey.Filter{} }),
		with(saMsg(pfkey.Acquire, 0), func(m *pfkey.Message) { m.Proposal = &pfkey.Proposal{} }),
	} {
		f.Add(m.AppendTo(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		e := newEngine()
		c := e.client(t)
		for _, m := range []*pfkey.Message{addMsg(pfkey.Add, 1000), spdMsg(pfkey.SPDAdd, pfkey.DirOut), plain(pfkey.Register, pfkey.SATypeAH)} {
			c.must(m)
		}
		for range 2 {
			c.socket.Handle(b)
			for _, r := range c.got {
				if len(r) < pfkey.HeaderLen || len(r) != 8*int(binary.NativeEndian.Uint16(r[4:])) {
					t.Fatalf("answer %x to %x", r, b)
				}
			}
			if len(c.got) == 0 {
				if m, err := pfkey.Parse(b); err != nil || m.Type != pfkey.Acquire || len(m.Order) > 0 {
					t.Fatalf("no answer to %x", b)
				}
			}
			c.got = nil
		}
	})
}
