package sadb

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// TestExist: what an arriving packet could not tell apart is refused, whatever else differs.
func TestExist(t *testing.T) {
	db := New(Config{})
	mustAdd(t, db, esp(300))
	for name, change := range map[string]func(*Params){
		"the same":  func(*Params) {},
		"a mode":    func(p *Params) { p.Mode = pfkey.ModeTunnel },
		"a reqid":   func(p *Params) { p.ReqID = 9 },
		"a source":  func(p *Params) { p.Src = other },
		"other key": func(p *Params) { p.EncKey = key(32, 9) },
	} {
		_, err := db.Add(esp(300).with(change))
		wantErr(t, name, err, ErrExist)
	}
	for _, change := range []func(*Params){
		func(p *Params) { p.Dst = other },
		func(p *Params) { p.Proto, p.Enc, p.EncKey = wire.ProtoAH, 0, nil },
		func(p *Params) { p.SPI++ },
	} {
		mustAdd(t, db, esp(300).with(change))
	}
	larval := mustGetSPI(t, db, esp(0), 0, 0)
	_, err := db.Add(esp(larval.SPI))
	wantErr(t, "a larval SA", err, ErrExist)
}

// TestLarvalDeletedThenAdded is how strongSwan installs an inbound SA.
func TestLarvalDeletedThenAdded(t *testing.T) {
	db := New(Config{})
	larval := mustGetSPI(t, db, esp(0), 0, 0)
	if err := db.Delete(wire.ProtoESP, larval.SPI, left, right); err != nil {
		t.Fatal(err)
	}
	mustAdd(t, db, esp(larval.SPI))
}

func TestUpdate(t *testing.T) {
	db := New(Config{})
	bare := Params{Proto: wire.ProtoESP, Src: left, Dst: right, PID: 5}
	larval := mustGetSPI(t, db, bare, 0, 0)
	full := esp(larval.SPI).with(func(p *Params) { p.PID, p.Mode, p.ReqID = 5, pfkey.ModeTunnel, 12 })

	_, err := db.Update(full.with(func(p *Params) { p.PID = 6 }))
	wantErr(t, "another process", err, ErrInvalid)
	_, err = db.Update(full.with(func(p *Params) { p.Src = other }))
	wantErr(t, "another source", err, ErrNotFound)
	_, err = db.Update(full.with(func(p *Params) { p.EncKey = nil }))
	wantErr(t, "no key", err, alg.ErrKeyLength)
	if db.Get(wire.ProtoESP, larval.SPI, left, right) != larval {
		t.Fatal("a refused update took the larval SA away")
	}

	sa, err := db.Update(full)
	if err != nil {
		t.Fatal(err)
	}
	if sa == larval || larval.State() != pfkey.Dead || sa.State() != pfkey.Mature || db.Len() != 1 {
		t.Errorf("larval %d, new %d, %d SAs", larval.State(), sa.State(), db.Len())
	}
	if db.Inbound(right, wire.ProtoESP, sa.SPI) != sa || db.Outbound(wire.ProtoESP, pfkey.ModeTunnel, 12, left, right) != sa {
		t.Error("the new SA is not found")
	}
	// It is mature now: its header is its own, and any process may update it.
	_, err = db.Update(full.with(func(p *Params) { p.Mode = pfkey.ModeTransport }))
	wantErr(t, "another mode", err, ErrNotFound)
	_, err = db.Update(full.with(func(p *Params) { p.ReqID = 13 }))
	wantErr(t, "another reqid", err, ErrNotFound)
	_, err = db.Update(full.with(func(p *Params) { p.SPI++ }))
	wantErr(t, "another SPI", err, ErrNotFound)
	if _, err = db.Update(full.with(func(p *Params) { p.PID = 6 })); err != nil {
		t.Error(err)
	}
	named := mustGetSPI(t, db, bare.with(func(p *Params) { p.Mode, p.ReqID = pfkey.ModeTransport, 3 }), 0, 0)
	_, err = db.Update(full.with(func(p *Params) { p.SPI = named.SPI }))
	wantErr(t, "not the mode and reqid that were told to GETSPI", err, ErrNotFound)
}

// TestUpdateKeepsCounting: under the same keys neither a sequence number nor an IV may come again, nor may what was
// received be received again.
func TestUpdateKeepsCounting(t *testing.T) {
	otherAuth := func(p *Params) { p.AuthKey = key(20, 9) }
	otherEnc := func(p *Params) { p.EncKey = key(16, 9) }
	gcm := func(p *Params) { p.Enc, p.EncKey, p.Auth, p.AuthKey = aesGCM16, key(20, 1), 0, nil }
	otherGCM := func(p *Params) { gcm(p); p.EncKey = key(20, 2) }
	same := func(*Params) {}
	for _, row := range []struct {
		name         string
		was, becomes func(*Params)
		suite, count bool
		window       bool
	}{
		{"same keys", same, same, true, true, true},
		{"other lifetime", same, func(p *Params) { p.Hard = &Lifetime{AddTime: 5} }, true, true, true},
		{"other cipher key", same, otherEnc, false, true, true},
		{"other integrity key", same, otherAuth, false, true, false},
		{"other keys", same, func(p *Params) { otherAuth(p); otherEnc(p) }, false, false, false},
		{"AEAD, same key", gcm, gcm, true, true, true},
		{"AEAD, other key", gcm, otherGCM, false, false, false},
	} {
		t.Run(row.name, func(t *testing.T) {
			db := New(Config{})
			old := mustAdd(t, db, esp(300).with(row.was))
			old.Record(100, 1000)
			for range 3 {
				old.NextSeq()
			}
			old.Replay.Update(40)
			sa, err := db.Update(esp(300).with(row.becomes))
			if err != nil {
				t.Fatal(err)
			}
			if (sa.Suite == old.Suite) != row.suite {
				t.Errorf("suite kept: %v", sa.Suite == old.Suite)
			}
			late, _ := old.NextSeq() // a packet that began with the old SA
			seq, _ := sa.NextSeq()
			if row.count && seq <= late || !row.count && seq != 1 {
				t.Errorf("sequence number %d after %d", seq, late)
			}
			if sa.Replay.Check(40) == row.window {
				t.Errorf("a packet played again passes: %v", !row.window)
			}
			if !sa.Replay.Check(41) {
				t.Error("the next packet does not pass")
			}
			if c := sa.Current(); c.Bytes != 0 || c.Allocations != 0 || c.UseTime != 0 {
				t.Errorf("counts go on: %+v", c)
			}
		})
	}
}

// TestUpdateWindowSize: a window of another size lets nothing through that the old one had seen.
func TestUpdateWindowSize(t *testing.T) {
	for _, size := range []uint32{0, 16, 64, 4096} {
		for _, last := range []uint64{0, 5, 1000, 10_000} {
			db := New(Config{})
			old := mustAdd(t, db, esp(300))
			old.Replay.Update(last)
			sa, err := db.Update(esp(300).with(func(p *Params) { p.ReplayWindow = size }))
			if err != nil {
				t.Fatal(err)
			}
			if sa.Replay.Size() != size || !sa.Replay.Check(last+1) {
				t.Errorf("size %d, last %d: size %d, next passes %v", size, last, sa.Replay.Size(), sa.Replay.Check(last+1))
			}
			for _, seq := range []uint64{1, last / 2, last - 1, last} {
				if size > 0 && seq <= last && sa.Replay.Check(seq) {
					t.Errorf("size %d, last %d: %d passes", size, last, seq)
				}
			}
		}
	}
}

func TestDelete(t *testing.T) {
	db := New(Config{})
	sa := mustAdd(t, db, esp(300))
	wantErr(t, "source", db.Delete(wire.ProtoESP, 300, other, right), ErrNotFound)
	wantErr(t, "protocol", db.Delete(wire.ProtoAH, 300, left, right), ErrNotFound)
	if db.Get(wire.ProtoESP, 300, other, right) != nil || db.Get(wire.ProtoESP, 300, left, right) != sa {
		t.Error("Get")
	}
	if err := db.Delete(wire.ProtoESP, 300, left, right); err != nil {
		t.Error(err)
	}
	wantErr(t, "again", db.Delete(wire.ProtoESP, 300, left, right), ErrNotFound)
	if sa.State() != pfkey.Dead || out(db, 0) != nil || db.Inbound(right, wire.ProtoESP, 300) != nil || db.Len() != 0 {
		t.Error("a deleted SA is there")
	}
	mustAdd(t, db, esp(300))
}

func TestDeleteAllAndFlush(t *testing.T) {
	db := New(Config{})
	change := func(spi uint32, f func(*Params)) *SA { return mustAdd(t, db, esp(spi).with(f)) }
	change(300, func(p *Params) { p.Mode = pfkey.ModeAny })
	change(301, func(p *Params) { p.Mode, p.ReqID = pfkey.ModeTunnel, 4 })
	change(302, func(p *Params) { p.ReqID = 5 })
	change(303, func(p *Params) { p.ReqID = 5 })
	dying := change(304, func(p *Params) { p.ReqID = 5 })
	dying.setState(pfkey.Dying)
	db.report(dying)
	larval := mustGetSPI(t, db, esp(0), 0, 0)
	back := change(300, func(p *Params) { p.Src, p.Dst = right, left })
	ah := mustAdd(t, db, Params{Proto: wire.ProtoAH, SPI: 300, Src: left, Dst: right, Auth: hmacSHA1, AuthKey: key(20, 1)})

	if n := db.DeleteAll(wire.ProtoESP, left, other) + db.DeleteAll(wire.ProtoESP, left, left6.Prev()); n != 0 {
		t.Errorf("deleted %d of another pair", n)
	}
	if n := db.DeleteAll(wire.ProtoESP, left, right); n != 5 {
		t.Errorf("deleted %d, want 5", n)
	}
	if got := all(db); !slices.Equal(got, []*SA{ah, back, larval}) {
		t.Errorf("left are %v", got)
	}
	if n := db.Flush(wire.ProtoESP); n != 2 || !slices.Equal(all(db), []*SA{ah}) {
		t.Errorf("flushed %d, left %v", n, all(db))
	}
	if n := db.Flush(0); n != 1 || db.Len() != 0 || db.Flush(0) != 0 {
		t.Errorf("flushed %d, left %d", n, db.Len())
	}
	if larval.State() != pfkey.Dead || ah.State() != pfkey.Dead {
		t.Error("flushed SAs live")
	}
	if len(db.headers)+len(db.chains)+db.order.Len()+db.larvals.Len()+db.outbound.Len()+db.inbound.Len() != 0 {
		t.Error("something stays behind in an empty database")
	}
}

// TestDumpOrder is kame-semantics 4.6: the newest header first, in a header mature, dying, larval.
func TestDumpOrder(t *testing.T) {
	db := New(Config{})
	a1 := mustAdd(t, db, esp(300))
	l := mustGetSPI(t, db, esp(0), 0, 0)
	b := mustAdd(t, db, esp(301).with(func(p *Params) { p.ReqID = 1 }))
	a2, a3 := mustAdd(t, db, esp(302)), mustAdd(t, db, esp(303))
	a2.setState(pfkey.Dying)
	db.report(a2)
	if got := all(db); !slices.Equal(got, []*SA{b, a3, a1, a2, l}) {
		t.Errorf("order %v", got)
	}
	for sa := range db.All {
		if sa != b {
			t.Error("All does not stop")
		}
		db.Flush(0) // f may use the database
		break
	}
}

func TestLimit(t *testing.T) {
	db := New(Config{Limit: 2})
	mustAdd(t, db, esp(300))
	larval := mustGetSPI(t, db, esp(0), 0, 0)
	_, err := db.Add(esp(301))
	wantErr(t, "Add", err, ErrFull)
	_, err = db.GetSPI(esp(0), 0, 0)
	wantErr(t, "GetSPI", err, ErrFull)
	if _, err := db.Update(esp(larval.SPI)); err != nil {
		t.Errorf("Update in a full database: %v", err)
	}
}

// TestWipe: keys go when the SA has, but not under a packet that is being computed, nor under a successor.
func TestWipe(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		works := func(sa *SA) bool { return sa.Suite.Seal(make([]byte, 8+16+16+12), 1) }
		db := New(Config{})
		sa := mustAdd(t, db, esp(300))
		db.Delete(wire.ProtoESP, 300, left, right)
		if !works(sa) {
			t.Error("wiped at once")
		}
		time.Sleep(grace)
		synctest.Wait()
		if works(sa) {
			t.Error("a deleted SA has keys")
		}

		old := mustAdd(t, db, esp(300))
		same, err := db.Update(esp(300))
		if err != nil {
			t.Fatal(err)
		}
		time.Sleep(grace)
		synctest.Wait()
		if !works(same) {
			t.Error("wiped under the successor")
		}
		rekeyed, err := db.Update(esp(300).with(func(p *Params) { p.EncKey = key(16, 8) }))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := db.Add(esp(300)); err == nil { // refused: its suite must not stay
			t.Error("Add over an SA")
		}
		time.Sleep(grace)
		synctest.Wait()
		if works(old) || !works(rekeyed) {
			t.Errorf("old keys work: %v, new keys: %v", works(old), works(rekeyed))
		}
	})
}
