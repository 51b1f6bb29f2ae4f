package nft

import (
	"sync"
	"time"
)

const (
	// quiet is how long nothing must have changed before the rules become exact again.
	quiet = 50 * time.Millisecond
	// maxLoose is how long changes in quick succession may put that off.
	maxLoose = 2 * time.Second
	// retry is when narrowing is tried again after it failed.
	retry = time.Second
	// maxIdle is how many pairs may be picked that are not wanted; beyond it nothing is put off.
	maxIdle = 1 << 17
)

// Setter is what a Syncer drives: a *Table, or a stand-in in tests.
type Setter interface {
	Change(c Change) error
	Expect(sel Selectors) error
	Narrow() error
	Idle() int
	Coarse() bool
}

// Source tells how the selectors have changed since the last call, or, when all is set, what they are (Change.Anew). It is not
// called twice at a time, and must not call the Syncer.
type Source func(all bool) Change

// Syncer keeps a table equal to selectors that change, and widens at once what it narrows later: picking too much only
// costs time, picking too little lets packets pass in clear. What a change adds is added while its caller waits, whatever else
// there is. What it takes away goes in bulk after 50 ms of quiet, or 2 s. The rules pick everything only
// where a selector does, beyond the bounds of the sets (maxSets, maxElements), and from when the table is made anew to the next quiet.
type Syncer struct {
	table  Setter
	source Source
	report func(error)

	mu     sync.Mutex // guards the following
	timer  *time.Timer
	loose  bool      // the rules may pick more than they have to
	since  time.Time // when they became loose
	closed bool
}

// NewSyncer returns a Syncer for the table, which picks what source has told of until now. Errors that no caller waits for go to
// report, one at a time; what failed is tried again.
func NewSyncer(table Setter, source Source, report func(error)) *Syncer {
	return &Syncer{table: table, source: source, report: report}
}

// Changed is told after each change of the selectors, and when somebody took rules away. When it returns without an error, the
// rules pick all that they have to.
func (s *Syncer) Changed() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return nil
	}
	err := s.table.Change(s.source(false))
	s.loosen()
	if err == nil && s.table.Idle() > maxIdle {
		s.narrow()
	}
	return err
}

// Expect is told what changes may be about to add, so that many are added at once and the changes need not wait. What has not
// come by the time the rules are narrowed is forgotten.
func (s *Syncer) Expect(sel Selectors) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	_ = s.table.Expect(sel) // the change itself will say
	s.loosen()
}

// loosen notes that the rules may pick more than they have to, and when to end that. Must hold mu.
func (s *Syncer) loosen() {
	now := time.Now()
	if !s.loose {
		s.loose, s.since = true, now
	}
	if s.timer == nil {
		s.timer = time.AfterFunc(quiet, s.settle)
	} else {
		s.timer.Reset(s.delay(now))
	}
}

// delay is how long to wait for quiet after a change.
func (s *Syncer) delay(now time.Time) time.Duration {
	return max(0, min(quiet, maxLoose-now.Sub(s.since)))
}

// settle runs when the timer fires.
func (s *Syncer) settle() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.closed && s.loose {
		s.narrow()
	}
}

// narrow makes the rules exact. Must hold mu.
func (s *Syncer) narrow() {
	var err error
	if s.table.Coarse() {
		err = s.table.Change(s.source(true))
	}
	if err == nil {
		err = s.table.Narrow()
	}
	if err != nil {
		s.report(err)
		s.timer.Reset(retry)
		return
	}
	s.loose = false
}

// Close stops following changes. The rules stay as they are and may pick too much. After it has returned the table is not used.
func (s *Syncer) Close() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.closed = true
	if s.timer != nil {
		s.timer.Stop()
	}
}
