package key

import (
	"errors"
	"slices"
	"syscall"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/pfkey"
)

// setIdxMsg asks for protection and leaves open which.
func setIdxMsg(dir pfkey.Dir) *pfkey.Message {
	return with(spdMsg(pfkey.SPDSetIdx, dir), func(m *pfkey.Message) { m.Policy.Requests = nil })
}

func TestSPDSetIdx(t *testing.T) {
	e := newEngine()
	c, other := e.client(t), e.client(t)
	r := c.must(setIdxMsg(pfkey.DirOut))
	if r.Type != pfkey.SPDSetIdx || r.Policy.ID == 0 || r.Policy.Type != pfkey.PolicyIPsec || len(r.Policy.Requests) != 0 || *r.Dst != *setIdxMsg(0).Dst {
		t.Errorf("%+v %+v", r, r.Policy)
	}
	if all := other.messages(); len(all) != 1 || all[0].Policy.ID != r.Policy.ID {
		t.Errorf("another client got %+v", all)
	}
	wantHeader(t, c.ask(setIdxMsg(pfkey.DirOut)), pfkey.SPDSetIdx, syscall.EEXIST)
	if all := c.dump(plain(pfkey.SPDDump, 0)); len(all) != 1 || all[0].Policy.ID != r.Policy.ID {
		t.Errorf("dump %+v", all)
	}
	if done := c.must(spdMsg(pfkey.SPDUpdate, pfkey.DirOut)); done.Policy.ID != r.Policy.ID || e.cfg.SPD.Get(r.Policy.ID).Incomplete() {
		t.Errorf("SPDUPDATE: %+v", done.Policy)
	}
	// With requests it is SPDADD.
	if p := c.must(spdMsg(pfkey.SPDSetIdx, pfkey.DirIn)).Policy; len(p.Requests) != 1 {
		t.Errorf("with requests: %+v", p)
	}
}

func TestSPDAcquire(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		e, c, other := registered(t)
		id := other.must(setIdxMsg(pfkey.DirOut)).Policy.ID
		in := other.must(setIdxMsg(pfkey.DirIn)).Policy.ID
		c.messages()
		var when []int
		for i := range 25 {
			if err := e.AcquirePolicy(e.cfg.SPD.Get(id)); err != nil {
				t.Fatal(err)
			}
			for _, m := range c.messages() {
				when = append(when, i)
				if m.Type != pfkey.SPDAcquire || m.SAType != 0 || m.PID != 0 || m.Seq != 1 ||
					!slices.Equal(m.Order, []pfkey.ExtType{pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy}) ||
					m.Policy.ID != id || m.Policy.Dir != pfkey.DirOut || *m.Src != *setIdxMsg(0).Src || *m.Dst != *setIdxMsg(0).Dst {
					t.Errorf("%+v %+v", m, m.Policy)
				}
			}
		}
		if !slices.Equal(when, []int{0, 12, 24}) || len(other.messages()) != 0 {
			t.Errorf("packets %v sent a message", when)
		}
		e.AcquirePolicy(e.cfg.SPD.Get(in))
		if all := c.messages(); len(all) != 1 || all[0].Policy.ID != in {
			t.Errorf("another policy: %+v", all)
		}
		time.Sleep(21 * time.Second)
		e.AcquirePolicy(e.cfg.SPD.Get(id))
		if all := c.messages(); len(all) != 1 || all[0].Seq == 1 {
			t.Errorf("after 21 s: %+v", all)
		}
		c.room = 0
		if err := e.AcquirePolicy(e.cfg.SPD.Get(in)); !errors.Is(err, syscall.ENOBUFS) {
			t.Errorf("nobody has room: %v", err)
		}
		c.socket.Close()
		if err := e.AcquirePolicy(e.cfg.SPD.Get(in)); err != nil {
			t.Errorf("nobody is registered: %v", err)
		}
	})
}
