// Package spd is the security policy database: which packets are protected, how, and which are dropped.
//
// A Table is asked for each packet, by Lookup and Overlaps, from any number of goroutines. These take no lock, allocate
// nothing, and answer with the first policy that fits in the order of priority and insertion, as the table stood at one
// moment of the call: a policy that is added before another is deleted leaves no gap for a packet to slip through. What
// they cost depends on how many kinds of selectors a packet's addresses meet, hardly on how many policies or kinds there
// are, and not even on that for busy flows, which are remembered until the next change. Package ipsec calls them, package key changes the table; package kern hears of changes to keep its packet filter in step. The package
// decides nothing about packets.
//
// Lock order: Table.mu, then the locks inside of package snapmap. Functions given to OnChange run under neither.
package spd

import (
	"cmp"
	"errors"
	"slices"
	"sync"
	"time"

	"kipsec/ipsec/pfkey"
)

// Errors of the methods that change a table.
var (
	ErrExist    = errors.New("spd: policy exists")
	ErrNotFound = errors.New("spd: no such policy")
	ErrInvalid  = errors.New("spd: invalid value")
	ErrFull     = errors.New("spd: too many policies")
)

// DefaultLimit is how many policies a table holds unless Config says otherwise.
const DefaultLimit = 1_000_000

// Config is what a Table is made with.
type Config struct {
	Limit int // bound of the number of policies; 0 means DefaultLimit
}

// Table is the SPD of one kernel. Make one with New. All methods are safe for concurrent use.
type Table struct {
	limit int
	dirs  [pfkey.DirFwd + 1]list // by direction

	mu       sync.Mutex
	byID     map[uint32]*Policy   // guarded by mu, as all below
	mortal   map[*Policy]struct{} // policies with a lifetime
	expired  time.Time            // when Expire was called last
	serial   uint64               // of the newest policy
	lastID   uint32               // without its direction
	onChange func()
	pairs    changeLog
}

// New returns an empty table.
func New(cfg Config) *Table {
	if cfg.Limit == 0 {
		cfg.Limit = DefaultLimit
	}
	t := &Table{limit: cfg.Limit, byID: make(map[uint32]*Policy), mortal: make(map[*Policy]struct{})}
	for i := range t.dirs {
		t.dirs[i].init()
	}
	return t
}

// OnChange has f called, and no other function any more, after each change that comes later; nil for none. It is called
// once for each call that changed something, without locks, so more may have changed by then. Calls come from the
// goroutines that change the table, maybe several at a time.
func (t *Table) OnChange(f func()) {
	t.mu.Lock()
	defer t.mu.Unlock()
	t.onChange = f
}

// Used says whether the table has ever had a policy.
func (t *Table) Used() bool {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.serial != 0
}

// unlock ends a change.
func (t *Table) unlock(changed bool) {
	tell := t.onChange
	t.mu.Unlock()
	if changed && tell != nil {
		tell()
	}
}

// Add puts a policy behind all others of its priority and returns the table's own copy of it, with id and creation time.
// ErrExist means that its direction has a policy with exactly this selector, ErrInvalid that a value is impossible.
func (t *Table) Add(p *Policy) (*Policy, error) { return t.put(p, false) }

// Update is Add, but a policy with exactly this selector is replaced: packets meet the old one or the new one. The
// new one moves behind all others of its priority, as in KAME, and keeps the id, as on Linux.
func (t *Table) Update(p *Policy) (*Policy, error) { return t.put(p, true) }

func (t *Table) put(p *Policy, replace bool) (*Policy, error) {
	p, err := p.own()
	if err != nil {
		return nil, err
	}
	t.mu.Lock()
	old := t.dirs[p.Dir].exact(&p.Selector)
	switch {
	case old != nil && !replace:
		err = ErrExist
	case old == nil && len(t.byID) >= t.limit:
		err = ErrFull
	}
	if err != nil {
		t.unlock(false)
		return nil, err
	}
	t.serial++
	p.serial = t.serial
	if old != nil {
		p.ID = old.ID
	} else {
		p.ID = t.newIDLocked(p.Dir)
	}
	t.setLocked(p, old)
	t.unlock(true)
	return p, nil
}

// Rewrite has f change the requests of the policy with exactly this selector, and returns the policy. All else of it stays: id,
// place in the order, age and last use. ErrNotFound means that there is none, ErrInvalid that f made something impossible of
// it; an error of f is returned. Then nothing has changed.
func (t *Table) Rewrite(s Selector, dir pfkey.Dir, f func([]Request) error) (*Policy, error) {
	s, err := s.normal()
	if err != nil || dir < pfkey.DirIn || dir > pfkey.DirFwd {
		return nil, ErrNotFound
	}
	t.mu.Lock()
	old := t.dirs[dir].exact(&s)
	if old == nil {
		t.unlock(false)
		return nil, ErrNotFound
	}
	p, err := old.own()
	if err == nil {
		err = f(p.Requests)
	}
	if err == nil {
		p, err = p.own()
	}
	if err != nil {
		t.unlock(false)
		return nil, err
	}
	p.ID, p.serial, p.Created = old.ID, old.serial, old.Created
	p.used.Store(old.used.Load())
	t.setLocked(p, old)
	t.unlock(true)
	return p, nil
}

// setLocked puts a policy in, in the place of old if that is not nil.
func (t *Table) setLocked(p, old *Policy) {
	if old != nil {
		delete(t.mortal, old)
	}
	t.pairs.replace(p, old)
	t.byID[p.ID] = p
	if p.Hard != nil {
		t.mortal[p] = struct{}{}
	}
	t.dirs[p.Dir].put(p, old)
}

// idStep is the distance of ids: an id modulo 8 tells the direction, in, out or fwd by 0, 1 or 2, as on Linux, whose
// setkey takes the other remainders for policies of sockets.
const idStep = 8

// newIDLocked returns an id that is not in use; never 0. The number of policies is bounded far below that of ids.
func (t *Table) newIDLocked(dir pfkey.Dir) uint32 {
	for {
		t.lastID += idStep
		id := t.lastID + uint32(dir-pfkey.DirIn)
		if _, used := t.byID[id]; !used && t.lastID != 0 {
			return id
		}
	}
}

// Delete takes away the policy with exactly this selector and returns it, or ErrNotFound.
func (t *Table) Delete(s Selector, dir pfkey.Dir) (*Policy, error) {
	s, err := s.normal()
	if err != nil || dir < pfkey.DirIn || dir > pfkey.DirFwd {
		return nil, ErrNotFound
	}
	t.mu.Lock()
	return t.removeAndUnlock(t.dirs[dir].exact(&s))
}

// DeleteID takes away the policy with an id and returns it, or ErrNotFound.
func (t *Table) DeleteID(id uint32) (*Policy, error) {
	t.mu.Lock()
	return t.removeAndUnlock(t.byID[id])
}

func (t *Table) removeAndUnlock(p *Policy) (*Policy, error) {
	if p == nil {
		t.unlock(false)
		return nil, ErrNotFound
	}
	t.removeLocked(p)
	t.unlock(true)
	return p, nil
}

func (t *Table) removeLocked(p *Policy) {
	t.pairs.replace(nil, p)
	t.dirs[p.Dir].remove(p)
	delete(t.byID, p.ID)
	delete(t.mortal, p)
}

// Flush takes away all policies and returns how many there were. Packets of one direction lose all at the same moment.
func (t *Table) Flush() int {
	t.mu.Lock()
	n := len(t.byID)
	for i := range t.dirs {
		t.dirs[i].clear()
	}
	clear(t.byID)
	clear(t.mortal)
	t.pairs.flush()
	t.unlock(n > 0)
	return n
}

// Expire takes away the policies whose lifetime is over at now, a reading of time.Now, and returns them: those that
// are older than Hard.AddTime, or were not used for Hard.UseTime seconds (KAME key_timehandler). Call it about once a
// second. It looks at policies with a lifetime only.
func (t *Table) Expire(now time.Time) []*Policy {
	t.mu.Lock()
	var gone []*Policy
	for p := range t.mortal {
		if p.expired(now, t.expired) {
			gone = append(gone, p)
		}
	}
	t.expired = now
	for _, p := range gone {
		t.removeLocked(p)
	}
	t.unlock(len(gone) > 0)
	slices.SortFunc(gone, byOrder)
	return gone
}

// expired says whether a lifetime is over. The wall clock, which used is of, may have been set meanwhile: all that counts of
// it is that it has moved since before, the time of the last call.
func (p *Policy) expired(now, before time.Time) bool {
	if used := p.used.Load(); used != p.seen {
		p.seen = used
		since := max(now.Sub(p.last), 0)
		if !before.IsZero() {
			since = min(since, now.Sub(before))
		}
		p.last = now.Add(-min(max(now.Sub(time.Unix(used, 0)), 0), since))
	}
	return over(p.Hard.AddTime, now.Sub(p.Created)) || over(p.Hard.UseTime, now.Sub(p.last))
}

// over says whether so much time is at least a limit in seconds, of which 0 is none.
func over(limit uint64, d time.Duration) bool {
	return limit > 0 && d >= time.Second && uint64(d/time.Second) >= limit
}

// Get returns the policy with an id, nil when there is none.
func (t *Table) Get(id uint32) *Policy {
	t.mu.Lock()
	defer t.mu.Unlock()
	return t.byID[id]
}

// Len is the number of policies of a direction; of all directions for pfkey.DirAny.
func (t *Table) Len(dir pfkey.Dir) int {
	t.mu.Lock()
	defer t.mu.Unlock()
	switch {
	case dir == pfkey.DirAny:
		return len(t.byID)
	case dir > pfkey.DirFwd:
		return 0
	}
	return t.dirs[dir].len()
}

// All calls f for each policy that there was when All was called, inbound ones first, then outbound and forwarded ones,
// each in the order in which packets meet them. It stops when f returns false. f may use the table.
func (t *Table) All(f func(*Policy) bool) {
	t.mu.Lock()
	all := make([]*Policy, 0, len(t.byID))
	for _, p := range t.byID {
		all = append(all, p)
	}
	t.mu.Unlock()
	slices.SortFunc(all, byOrder)
	for _, p := range all {
		if !f(p) {
			return
		}
	}
}

func byOrder(p, q *Policy) int {
	return cmp.Or(cmp.Compare(p.Dir, q.Dir), cmp.Compare(p.Priority, q.Priority), cmp.Compare(p.serial, q.serial))
}
