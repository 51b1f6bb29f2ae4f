package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
)

// getSPI serves GETSPI: an SPI that nobody uses, kept for the client as a larval SA.
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
	var low, high uint32 // 0 and 0: the range of net.key
	if r := m.SPIRange; r != nil {
		low, high = r.Min, r.Max
	}
	sa, err := e.cfg.SADB.GetSPI(p, low, high)
	if err != nil {
		return err
	}
	e.acquires.answered(m.Seq)
	r := reply(m)
	r.SA = &pfkey.SA{SPI: sa.SPI}
	r.Src, r.Dst = m.Src, m.Dst
	e.send(s, ToSender, r)
	return nil
}
