package sadb

import (
	"crypto/rand"
	"encoding/binary"

	"kipsec/ipsec/pfkey"
	"kipsec/net/wire"
)

// GetSPI reserves an SPI between low and high by a larval SA, for RFC 2367's GETSPI. Both 0 mean the range of the
// configuration. Of p, protocol and addresses are needed; SPI, algorithms and keys are ignored. SPIs are drawn at random,
// up to Config.SPITries times; a range of no more numbers than that is searched whole. Reserved numbers are never
// given out.
//
// ErrInvalid is an impossible range, ErrNoSPI that no free number was found. KAME counted its tries down past zero,
// gave out a number in use after the last and refused a free one that the last had found.
func (db *DB) GetSPI(p Params, low, high uint32) (*SA, error) {
	own := p.own()
	own.Auth, own.Enc, own.AuthKey, own.EncKey, own.AuthBits, own.EncBits = 0, 0, nil, nil, 0, 0
	own.ReplayWindow = 0
	if err := own.checkEnds(); err != nil {
		return nil, err
	}
	if low == 0 && high == 0 {
		low, high = db.cfg.SPIMin(), db.cfg.SPIMax()
	}
	low, high, err := spiRange(own.Proto, low, high)
	if err != nil {
		return nil, err
	}
	db.lock()
	defer db.unlock()
	if db.len >= db.cfg.Limit {
		return nil, ErrFull
	}
	if own.SPI, err = db.drawLocked(&own, low, high); err != nil {
		return nil, err
	}
	sa, err := db.newSA(own, pfkey.Larval, nil)
	if err != nil {
		return nil, err
	}
	db.insertLocked(sa)
	return sa, nil
}

// spiRange cuts a range to the numbers that may be given out. For IPComp these have 16 bits, and the two ends of a range
// may be in the wrong order (KAME key_do_getnewspi).
func spiRange(proto uint8, low, high uint32) (uint32, uint32, error) {
	if proto == wire.ProtoIPComp {
		low, high = min(low, lastCPI), min(high, lastCPI)
		low, high = min(low, high), max(low, high)
	}
	if low = max(low, firstSPI); low > high {
		return 0, 0, ErrInvalid
	}
	return low, high, nil
}

func (db *DB) drawLocked(p *Params, low, high uint32) (uint32, error) {
	span := uint64(high-low) + 1
	tries := uint64(max(db.cfg.SPITries(), 1))
	start := random()
	for i := range min(tries, span) {
		offset := (start + i) % span
		if span > tries {
			offset = random() % span
		}
		spi := low + uint32(offset)
		if _, taken := db.inbound.Get(newInKey(p.Dst, p.Proto, spi)); !taken {
			return spi, nil
		}
	}
	return 0, ErrNoSPI
}

// random returns a number with so many bits that its remainders are as likely as each other; the highest is 0, so that
// adding to it does not wrap.
func random() uint64 {
	var b [8]byte
	rand.Read(b[:])
	return binary.NativeEndian.Uint64(b[:]) >> 1
}
