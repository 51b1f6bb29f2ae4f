package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/net/wire"
)

// SPIs below belong to IANA (RFC 4303 §2.1).
const lowestSPI = 0x100

// getSPI serves GETSPI: an SPI that nobody uses, kept for the client as a larval SA. Unlike KAME it refuses a
// range that is empty or wholly reserved.
func getSPI(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.Src == nil || m.Dst == nil {
		return syscall.EINVAL
	}
	p := sadb.Params{
		Proto: protocol(m.SAType), Src: m.Src.Addr.Addr(), Dst: m.Dst.Addr.Addr(), Seq: m.Seq, PID: m.PID,
	}
	if m.SA2 != nil {
		p.Mode, p.ReqID = m.SA2.Mode, m.SA2.ReqID
	}
	if p.Mode > pfkey.ModeTunnel {
		return syscall.EINVAL
	}
	low, high := e.cfg.SPIMin(), e.cfg.SPIMax()
	if r := m.SPIRange; r != nil {
		low, high = r.Min, r.Max
	}
	if p.Proto == wire.ProtoIPComp {
		low, high = min(low, 0xffff), min(high, 0xffff)
	}
	if low = max(low, lowestSPI); low > high {
		return syscall.EINVAL
	}
	sa, err := e.cfg.SADB.GetSPI(p, low, high, e.cfg.SPITries())
	if err != nil {
		return syscall.EINVAL
	}
	r := reply(m)
	r.SA = &pfkey.SA{SPI: sa.SPI}
	r.Src, r.Dst = m.Src, m.Dst
	e.send(s, ToSender, r)
	return nil
}
