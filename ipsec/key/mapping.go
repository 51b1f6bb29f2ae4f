package key

import (
	"net/netip"
	"sync"
	"time"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// mappings remembers which new ends of SAs in UDP clients have been told of, so that not every packet tells again.
type mappings struct {
	mu   sync.Mutex
	told map[mapped]told // guarded by mu
}

// mapped is an SA of ESP.
type mapped struct {
	dst netip.Addr
	spi uint32
}

type told struct {
	from netip.AddrPort
	at   time.Time
}

// mappingsMax bounds the SAs that are remembered, and mappingRepeat is when clients are told again.
const (
	mappingsMax   = 4096
	mappingRepeat = 20 * time.Second
)

// NewMapping tells the registered clients that the peer of an SA in UDP shows another address or port, with Linux's
// SADB_X_NAT_T_NEW_MAPPING (net/key/af_key.c pfkey_send_new_mapping): SRC and NAT_T_SPORT are the old ones, DST and NAT_T_DPORT
// the new ones. It may be called for each packet. The SA stays as it is until a client updates it.
func (e *Engine) NewMapping(sa *sadb.SA, from netip.AddrPort) {
	if e.registered.Load() == 0 || !e.mappings.fresh(mapped{sa.Dst, sa.SPI}, from) {
		return
	}
	m := &pfkey.Message{
		Type: pfkey.NATTNewMapping, SAType: saType(sa.Proto), Seq: e.acquires.nextSeq(),
		SA:  &pfkey.SA{SPI: sa.SPI},
		Src: saAddress(sa.Src), NATSrcPort: new(sa.NAT.SrcPort),
		Dst: saAddress(from.Addr()), NATDstPort: new(from.Port()),
		Order: []pfkey.ExtType{pfkey.ExtSA, pfkey.ExtSrc, pfkey.ExtNATSrcPort, pfkey.ExtDst, pfkey.ExtNATDstPort},
	}
	e.send(nil, ToRegistered, m)
}

// fresh says whether clients should be told, and remembers that they are.
func (m *mappings) fresh(key mapped, from netip.AddrPort) bool {
	now := time.Now()
	m.mu.Lock()
	defer m.mu.Unlock()
	if t, ok := m.told[key]; ok && t.from == from && now.Sub(t.at) < mappingRepeat {
		return false
	}
	if len(m.told) >= mappingsMax {
		clear(m.told)
	}
	if m.told == nil {
		m.told = make(map[mapped]told)
	}
	m.told[key] = told{from, now}
	return true
}
