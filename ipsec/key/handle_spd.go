package key

import (
	"syscall"

	"kipsec/ipsec/pfkey"
)

// spdAdd serves SPDADD, which refuses a selector that is there, SPDUPDATE, which replaces it or creates the policy when
// there is none, as later KAME and Linux do, and SPDSETIDX, which is SPDADD but may leave the requests open: a packet
// that meets such a policy is dropped and makes an SPDACQUIRE, which a key daemon answers with SPDUPDATE.
func spdAdd(e *Engine, s *Socket, m *pfkey.Message) error {
	p, err := e.policy(m)
	if err != nil {
		return err
	}
	if m.Type == pfkey.SPDUpdate {
		p, err = e.cfg.SPD.Update(p)
	} else {
		p, err = e.cfg.SPD.Add(p)
	}
	if err != nil {
		return err
	}
	r := reply(m)
	r.Policy = policyExt(p)
	r.Hard = m.Hard
	r.Src, r.Dst = m.Src, m.Dst
	r.Order = []pfkey.ExtType{pfkey.ExtPolicy, pfkey.ExtHard, pfkey.ExtSrc, pfkey.ExtDst}
	e.send(s, ToAll, r)
	return nil
}

// spdDelete serves SPDDELETE: the policy with exactly this selector and direction. EINVAL when there is none, as
// in KAME.
func spdDelete(e *Engine, s *Socket, m *pfkey.Message) error {
	sel, err := selector(m)
	if err != nil {
		return err
	}
	p, err := e.cfg.SPD.Delete(sel, m.Policy.Dir)
	if err != nil {
		return syscall.EINVAL
	}
	r := reply(m)
	r.Policy = policyExt(p)
	r.Src, r.Dst = m.Src, m.Dst
	e.send(s, ToAll, r)
	return nil
}

// spdDeleteID serves SPDDELETE2: the policy with this id; EINVAL when there is none.
func spdDeleteID(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.Policy == nil {
		return syscall.EINVAL
	}
	if _, err := e.cfg.SPD.DeleteID(m.Policy.ID); err != nil {
		return syscall.EINVAL
	}
	r := reply(m)
	r.Policy = m.Policy
	e.send(s, ToAll, r)
	return nil
}

// spdGet serves SPDGET: the policy with this id, to the client that asked. The sequence number is the
// request's, not KAME's 0, for IKE daemons find the answer by it.
func spdGet(e *Engine, s *Socket, m *pfkey.Message) error {
	if m.Policy == nil {
		return syscall.EINVAL
	}
	p := e.cfg.SPD.Get(m.Policy.ID)
	if p == nil {
		return syscall.ENOENT
	}
	r := reply(m)
	describePolicy(r, p)
	e.send(s, ToSender, r)
	return nil
}

// spdFlush serves SPDFLUSH, a header without extensions.
func spdFlush(e *Engine, s *Socket, m *pfkey.Message) error {
	if len(m.Order)+m.Unknown > 0 {
		return syscall.EINVAL
	}
	e.cfg.SPD.Flush()
	e.send(s, ToAll, reply(m))
	return nil
}

// spdDump serves SPDDUMP: one message for each policy that there was when the request came.
func spdDump(e *Engine, s *Socket, m *pfkey.Message) error {
	return sendDump(e, s, m, e.policies(), describePolicy)
}
