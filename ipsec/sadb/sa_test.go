package sadb

import (
	"math"
	"sync"
	"testing"
	"time"

	"kipsec/ipsec/pfkey"
)

func TestSequence(t *testing.T) {
	gcm := func(p *Params) { p.Enc, p.EncKey, p.Auth, p.AuthKey = aesGCM16, key(20, 1), 0, nil }
	for _, row := range []struct {
		name   string
		change func(*Params)
		wraps  bool
	}{
		{"plain", func(*Params) {}, false},
		{"cyclic", func(p *Params) { p.Flags = pfkey.FlagCycSeq }, true},
		{"cyclic in counter mode", func(p *Params) { gcm(p); p.Flags = pfkey.FlagCycSeq }, false},
	} {
		sa := mustAdd(t, New(Config{}), esp(300).with(row.change))
		next := func(want uint64, wantOK bool) {
			t.Helper()
			if seq, ok := sa.NextSeq(); seq != want || ok != wantOK {
				t.Errorf("%s: %d %v, want %d %v", row.name, seq, ok, want, wantOK)
			}
		}
		if sa.LastSeq() != 0 {
			t.Errorf("%s: LastSeq %d at first", row.name, sa.LastSeq())
		}
		next(1, true)
		next(2, true)
		if sa.LastSeq() != 2 {
			t.Errorf("%s: LastSeq %d", row.name, sa.LastSeq())
		}
		sa.seq.Store(math.MaxUint32 - 1)
		next(math.MaxUint32, true)
		if !row.wraps {
			next(0, false)
			next(0, false)
			if sa.LastSeq() != math.MaxUint32 {
				t.Errorf("%s: LastSeq %d at the end", row.name, sa.LastSeq())
			}
			continue
		}
		next(1, true) // 0 is no sequence number
		next(2, true)
		if sa.LastSeq() != 2 {
			t.Errorf("%s: LastSeq %d after the wrap", row.name, sa.LastSeq())
		}
	}
}

// TestExtendedSequence counts on beyond 32 bits and stops before 64 are full.
func TestExtendedSequence(t *testing.T) {
	sa := mustAdd(t, New(Config{}), esp(300).with(func(p *Params) { p.Flags = pfkey.FlagESN | pfkey.FlagCycSeq }))
	sa.seq.Store(math.MaxUint32 - 1)
	for _, want := range []uint64{math.MaxUint32, 1 << 32, 1<<32 + 1} {
		if seq, ok := sa.NextSeq(); seq != want || !ok || sa.LastSeq() != want {
			t.Errorf("%#x %v, LastSeq %#x, want %#x", seq, ok, sa.LastSeq(), want)
		}
	}
	sa.seq.Store(maxESN - 1)
	if seq, ok := sa.NextSeq(); seq != maxESN || !ok {
		t.Errorf("%#x %v, want the last number", seq, ok)
	}
	for range 2 {
		if _, ok := sa.NextSeq(); ok || sa.LastSeq() != maxESN {
			t.Errorf("goes on after the last number; LastSeq %#x", sa.LastSeq())
		}
	}
}

// TestConcurrentSenders: no number is taken twice, also not across an UPDATE and not at the end of the numbers.
func TestConcurrentSenders(t *testing.T) {
	const senders, each = 8, 2000
	for _, row := range []struct {
		name  string
		flags pfkey.Flags
		start uint64
		want  int // how many numbers there are
	}{
		{"from the first", 0, 0, senders * each},
		{"to the last", 0, math.MaxUint32 - 5000, 5000},
		{"beyond 32 bits", pfkey.FlagESN, math.MaxUint32 - 5000, senders * each},
		{"to the last of 64 bits", pfkey.FlagESN, maxESN - 5000, 5000},
	} {
		db := New(Config{})
		p := esp(300).with(func(p *Params) { p.Flags = row.flags })
		mustAdd(t, db, p).SkipSeq(row.start)
		var mu sync.Mutex
		seen := make(map[uint64]bool)
		var wg sync.WaitGroup
		for range senders {
			wg.Go(func() {
				var mine []uint64
				for i := range each {
					if i%500 == 250 {
						if _, err := db.Update(p); err != nil && row.want == senders*each {
							t.Error(err)
						}
					}
					sa := db.Inbound(right, p.Proto, 300)
					if sa == nil {
						break // the numbers have ended, and the SA with them
					}
					if seq, ok := sa.NextSeq(); ok {
						mine = append(mine, seq)
					}
				}
				mu.Lock()
				defer mu.Unlock()
				for _, seq := range mine {
					if seen[seq] || seq <= row.start {
						t.Errorf("%s: number %d came twice", row.name, seq)
					}
					seen[seq] = true
				}
			})
		}
		wg.Wait()
		if len(seen) != row.want {
			t.Errorf("%s: %d numbers, want %d", row.name, len(seen), row.want)
		}
	}
}

func TestLastSeqOfAReceiver(t *testing.T) {
	sa := mustAdd(t, New(Config{}), esp(300))
	sa.Replay.Update(77)
	if sa.LastSeq() != 77 {
		t.Errorf("LastSeq %d", sa.LastSeq())
	}
}

func TestCurrent(t *testing.T) {
	before := time.Now().Unix()
	sa := mustAdd(t, New(Config{}), esp(300))
	c := sa.Current()
	if c.AddTime < uint64(before) || c.AddTime > uint64(time.Now().Unix()) || c.Allocations != 0 || c.Bytes != 0 || c.UseTime != 0 {
		t.Errorf("at first %+v", c)
	}
	sa.Record(100, 5000)
	sa.Record(50, 5001)
	if c := sa.Current(); c.Allocations != 2 || c.Bytes != 150 || c.UseTime != 5001 {
		t.Errorf("after two packets %+v", c)
	}
}

// TestSetState: states are left for later ones only, and of many who try one does it.
func TestSetState(t *testing.T) {
	states := []pfkey.State{pfkey.Larval, pfkey.Mature, pfkey.Dying, pfkey.Dead}
	for _, from := range states {
		for _, to := range states {
			sa := &SA{state: new(life)}
			sa.state.Store(uint32(from))
			moved := sa.setState(to)
			if moved != (to > from) || sa.State() != max(from, to) {
				t.Errorf("%d to %d: %v, now %d", from, to, moved, sa.State())
			}
			if usable := sa.State() == pfkey.Mature || sa.State() == pfkey.Dying; sa.Usable() != usable {
				t.Errorf("state %d: usable %v", sa.State(), sa.Usable())
			}
		}
	}
	sa := &SA{state: new(life)}
	var wg sync.WaitGroup
	won := make(chan bool, 8)
	for range cap(won) {
		wg.Go(func() { won <- sa.setState(pfkey.Dead) })
	}
	wg.Wait()
	close(won)
	n := 0
	for w := range won {
		if w {
			n++
		}
	}
	if n != 1 {
		t.Errorf("%d killed the SA", n)
	}
}
