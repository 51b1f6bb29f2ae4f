// Package sadb is the security association database: the SAs of one kernel, found by packet, by PF_KEY, by time.
//
// Packets ask Inbound and Outbound from any number of goroutines. These take no lock and allocate nothing; what they
// return was right at some moment of the call, and an SA whose values change is a new SA. Package ipsec calls them,
// package key the methods that change the database, package kern calls Tick each second. The package sends no message
// and never blocks: what became of SAs by themselves goes to Config.OnExpire and OnSuperseded.
//
// Terms: a header is a set of SAs with equal protocol, mode, reqid and addresses (KAME secashead), the unit in which
// outbound SAs are chosen. Lock order: DB.mu, then the locks inside of package snapmap. OnExpire runs under neither.
//
//	inbound   (dst, proto, SPI) ─────────────────► SA        one each; duplicates are refused
//	outbound  (proto, mode, reqid, src, dst) ────► choice    the dying and mature SAs of the newest fitting header
//	headers   all headers ──► all SAs of each                for dumps and changes; guarded by mu
package sadb

import (
	"container/list"
	"errors"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"kipsec/ipsec/alg"
	"kipsec/ipsec/snapmap"
)

// Errors of the methods that change the database. Refused algorithms and keys give the errors of package alg.
var (
	ErrExist    = errors.New("sadb: SA exists")
	ErrNotFound = errors.New("sadb: no such SA")
	ErrInvalid  = errors.New("sadb: invalid value")
	ErrProtocol = errors.New("sadb: not a protocol of IPsec")
	ErrFull     = errors.New("sadb: too many SAs")
	ErrNoSPI    = errors.New("sadb: found no free SPI")
)

// DefaultLimit is how many SAs a database holds unless Config says otherwise.
const DefaultLimit = 1_000_000

// Config is what a DB is made with. Functions are asked at each use, so they may read variables; nil means KAME's
// default.
type Config struct {
	// PreferOld says that of several fitting SAs the oldest is used for output, else the newest
	// (net.key.preferred_oldsa, default true). Asked for each packet.
	PreferOld func() bool
	// SPIMin, SPIMax and SPITries guide GetSPI (net.key.spi_minval 0x100, spi_maxval 0x0fffffff, spi_trycnt 1000).
	SPIMin, SPIMax, SPITries func() uint32
	// LarvalLifetime is how long a larval SA lives (net.key.larval_lifetime, default 30 s).
	LarvalLifetime func() time.Duration
	// OnExpire is called by Tick, without locks, for each SA that passed a soft lifetime and is dying now, and for
	// each that passed a hard lifetime and is gone.
	OnExpire func(sa *SA, hard bool)
	// OnSuperseded is called likewise for each mature SA that was taken away because packets prefer a newer one, without
	// PreferOld.
	OnSuperseded func(sa *SA)
	// OnAged is called by packets, when Tick has something to tell or to do before its time: without it, an SA could pass
	// from its soft to its hard limit in bytes before anybody hears. It must not block.
	OnAged func()
	// OnNATEnds is called, without locks, after a change of what NATEnds or Carries returns. It must not block.
	OnNATEnds func()
	// Limit bounds the number of SAs; 0 means DefaultLimit.
	Limit int
}

// DB is a database of SAs. Make one with New. All methods are safe for concurrent use.
type DB struct {
	cfg      Config
	inbound  *snapmap.Map[inKey, ref]
	outbound *snapmap.Map[outKey, choice]
	changes  atomic.Uint64      // of what the two maps hold
	aged     atomic.Pointer[SA] // stack of SAs with which packets did something

	mu        sync.Mutex
	len       int                   // guarded by mu, as all below
	serial    uint64                // of the newest SA
	headers   map[headerKey]*header // never empty ones
	order     list.List             // of *header, newest first
	chains    map[outKey]*place     // the newest of all headers that fit a key
	larvals   list.List             // of *SA, oldest first
	deadlines deadlines             // a heap of the SAs that have a time limit
	events    []event               // for the next Tick to tell
	retired   []*alg.Suite          // of SAs that this change took away
	nat       nat
}

// event is what became of an SA by itself.
type event struct {
	sa   *SA
	what happening
}

type happening uint8

const (
	softExpire happening = iota
	hardExpire
	superseded
)

// New returns an empty database.
func New(cfg Config) *DB {
	if cfg.PreferOld == nil {
		cfg.PreferOld = func() bool { return true }
	}
	for _, d := range []struct {
		f     *func() uint32
		value uint32
	}{{&cfg.SPIMin, 0x100}, {&cfg.SPIMax, 0x0fffffff}, {&cfg.SPITries, 1000}} {
		if *d.f == nil {
			*d.f = func() uint32 { return d.value }
		}
	}
	if cfg.LarvalLifetime == nil {
		cfg.LarvalLifetime = func() time.Duration { return 30 * time.Second }
	}
	if cfg.OnExpire == nil {
		cfg.OnExpire = func(*SA, bool) {}
	}
	if cfg.OnSuperseded == nil {
		cfg.OnSuperseded = func(*SA) {}
	}
	if cfg.OnAged == nil {
		cfg.OnAged = func() {}
	}
	if cfg.OnNATEnds == nil {
		cfg.OnNATEnds = func() {}
	}
	if cfg.Limit == 0 {
		cfg.Limit = DefaultLimit
	}
	return &DB{
		cfg:      cfg,
		inbound:  snapmap.New[inKey, ref](),
		outbound: snapmap.New[outKey, choice](),
		headers:  make(map[headerKey]*header),
		chains:   make(map[outKey]*place),
	}
}

// lock begins a change or a look at everything: it takes the lock and catches up with the data path.
func (db *DB) lock() {
	db.mu.Lock()
	db.settleLocked()
}

// grace is how long a packet may still be computed with an SA that has left the database.
const grace = time.Second

// unlock ends a change. Keys of SAs that it took away are wiped when no packet can be using them any more.
func (db *DB) unlock() {
	retired, moved := db.retired, db.nat.changed
	db.retired, db.nat.changed = nil, false
	db.mu.Unlock()
	if moved {
		db.cfg.OnNATEnds()
	}
	if len(retired) == 0 {
		return
	}
	time.AfterFunc(grace, func() {
		for _, s := range retired {
			s.Zero()
		}
	})
}

// Len is the number of SAs, larval ones included.
func (db *DB) Len() int {
	db.lock()
	defer db.unlock()
	return db.len
}

// Get returns an SA that has not died yet, nil when there is none (KAME key_get: mode and reqid do not matter).
func (db *DB) Get(proto uint8, spi uint32, src, dst netip.Addr) *SA {
	db.lock()
	defer db.unlock()
	return db.findLocked(proto, spi, src, dst)
}

func (db *DB) findLocked(proto uint8, spi uint32, src, dst netip.Addr) *SA {
	sa := db.Known(dst, proto, spi)
	if sa == nil || sa.Src != src.WithZone("") {
		return nil
	}
	return sa
}

// All calls f for each SA that there was when All was called, in the order of KAME's dumps: the newest header first, in a
// header mature, dying and larval SAs, the newest first. It stops when f returns false. f may use the database.
func (db *DB) All(f func(*SA) bool) {
	for _, sa := range db.snapshot() {
		if !f(sa) {
			return
		}
	}
}

func (db *DB) snapshot() []*SA {
	db.lock()
	defer db.unlock()
	all := make([]*SA, 0, db.len)
	for e := db.order.Front(); e != nil; e = e.Next() {
		all = e.Value.(*header).appendTo(all)
	}
	return all
}
