package nft

import (
	"sync"
	"time"
)

const (
	// quiet is how long nothing must have changed before the rules become exact again.
	quiet = 50 * time.Millisecond
	// maxWide is how long changes in quick succession may put that off.
	maxWide = 2 * time.Second
	// retry is when narrowing is tried again after it failed.
	retry = time.Second
	// fewPairs is up to how many pairs are applied while the caller waits.
	fewPairs = 512
	// fewChanges is how many changes without quiet between them are applied while the caller waits.
	fewChanges = 16
)

// Setter is what a Syncer drives: a *Table, or a stand-in in tests.
type Setter interface {
	Set(sel Selectors, wide bool) error
	Widen(sel Selectors) error
}

// Syncer keeps a table equal to selectors that change, and widens at once what it narrows later: picking too much only
// costs time, picking too little lets packets pass in clear. What a change adds is added while its caller waits. After many
// changes in a row, or when there are many selectors, the rules pick everything instead and further changes cost nothing.
// After 50 ms of quiet the rules become exact.
type Syncer struct {
	table  Setter
	report func(error)

	mu     sync.Mutex // guards the following
	get    func() Selectors
	timer  *time.Timer
	loose  bool      // the rules pick more than they have to
	wide   bool      // they pick everything
	since  time.Time // when they became loose
	recent int       // changes since then
	pairs  int       // how many there were last
	closed bool
}

// NewSyncer returns a Syncer for the table. Errors that no caller of Changed waits for go to report, one at a time; the
// rules stay wide after them and narrowing is tried again.
func NewSyncer(table Setter, report func(error)) *Syncer {
	return &Syncer{table: table, report: report}
}

// Changed is told after each change of the selectors, with a function that returns what they are now. When it returns
// without an error, the rules pick all that they have to. Get may be called later too, from another goroutine; it must
// not call the Syncer.
func (s *Syncer) Changed(get func() Selectors) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.get = get
	if err := s.widen(); err != nil {
		return err
	}
	s.loosen()
	return nil
}

// Restore is told that somebody took the rules away. They are made anew, pick everything at first and become exact after
// 50 ms of quiet. Get is as for Changed.
func (s *Syncer) Restore(get func() Selectors) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	s.get = get
	if err := s.table.Set(Selectors{}, true); err != nil {
		return err
	}
	s.wide = true
	s.loosen()
	return nil
}

// loosen notes that the rules pick more than they have to, and when to end that. Must hold mu.
func (s *Syncer) loosen() {
	now := time.Now()
	if !s.loose {
		s.loose, s.since, s.recent = true, now, 0
	}
	s.recent++
	if s.timer == nil {
		s.timer = time.AfterFunc(quiet, s.narrow)
	} else {
		s.timer.Reset(s.delay(now))
	}
}

// widen makes the rules pick all that they have to. Must hold mu.
func (s *Syncer) widen() error {
	if s.wide {
		return nil
	}
	if s.loose && s.recent >= fewChanges || s.pairs > fewPairs {
		err := s.table.Set(Selectors{}, true)
		s.wide = err == nil
		return err
	}
	sel := s.get()
	s.pairs = len(sel.Out) + len(sel.In)
	return s.table.Widen(sel)
}

// delay is how long to wait for quiet after a change.
func (s *Syncer) delay(now time.Time) time.Duration {
	return max(0, min(quiet, maxWide-now.Sub(s.since)))
}

// narrow runs when the timer fires.
func (s *Syncer) narrow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.loose {
		return
	}
	sel := s.get()
	if err := s.table.Set(sel, false); err != nil {
		s.report(err)
		s.timer.Reset(retry)
		return
	}
	s.pairs = len(sel.Out) + len(sel.In)
	s.loose, s.wide = false, false
}

// Close stops following changes. The rules stay as they are, perhaps wide. After it has returned the table is not used.
func (s *Syncer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
