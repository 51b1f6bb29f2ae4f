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
)

// Setter is what a Syncer drives: a *Table, or a stand-in in tests.
type Setter interface {
	Set(sel Selectors, wide bool) error
}

// Syncer keeps a table equal to selectors that change, and widens at once what it narrows later: picking too much only
// costs time, picking too little lets packets pass in clear. One change among few selectors is applied exactly; in a burst,
// or with many selectors, the first change makes the rules pick everything and the following ones cost nothing, until the
// rules become exact again after 50 ms of quiet.
type Syncer struct {
	table  Setter
	report func(error)

	mu     sync.Mutex // guards the following
	get    func() Selectors
	timer  *time.Timer
	wide   bool
	since  time.Time // when it became wide
	last   time.Time // of the last change
	pairs  int       // of the last exact state
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
	now := time.Now()
	burst := now.Sub(s.last) < quiet
	s.get, s.last = get, now
	if s.wide {
		s.timer.Reset(s.delay(now))
		return nil
	}
	if !burst && s.pairs <= fewPairs {
		return s.exact()
	}
	if err := s.table.Set(Selectors{}, true); err != nil {
		return err
	}
	s.wide, s.since = true, now
	s.timer = time.AfterFunc(quiet, s.narrow)
	return nil
}

// delay is how long to wait for quiet after a change.
func (s *Syncer) delay(now time.Time) time.Duration {
	return max(0, min(quiet, maxWide-now.Sub(s.since)))
}

// exact applies the selectors. Must hold mu.
func (s *Syncer) exact() error {
	sel := s.get()
	if err := s.table.Set(sel, false); err != nil {
		return err
	}
	s.pairs = len(sel.Out) + len(sel.In)
	return nil
}

// narrow runs when the timer fires.
func (s *Syncer) narrow() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed || !s.wide {
		return
	}
	if err := s.exact(); err != nil {
		s.report(err)
		s.timer.Reset(retry)
		return
	}
	s.wide = false
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
