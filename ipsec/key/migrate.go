package key

import (
	"errors"
	"net/netip"
	"slices"
	"syscall"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/sadb"
	"kipsec/ipsec/spd"
)

// migrate serves Linux's MIGRATE (net/key/af_key.c pfkey_migrate): the tunnels of the policy with this selector, and the SAs
// that go with them, get other ends, and go on as if they always had them. The policy's requests come in pairs, the old ends and the
// new. ENOENT when there is no such policy, ENODATA when none of its tunnels has one of the old ends. When it fails, everything
// is where it was.
func migrate(e *Engine, s *Socket, m *pfkey.Message) error {
	sel, err := selector(m)
	if err != nil {
		return err
	}
	moves, err := moves(m.Policy.Requests)
	if err != nil {
		return err
	}
	var old []spd.Request
	if _, err = e.cfg.SPD.Rewrite(sel, m.Policy.Dir, func(requests []spd.Request) error {
		old = slices.Clone(requests)
		return rewrite(requests, moves)
	}); err != nil {
		return err
	}
	if _, err = e.cfg.SADB.Migrate(moves); err != nil {
		_, back := e.cfg.SPD.Rewrite(sel, m.Policy.Dir, func(requests []spd.Request) error { copy(requests, old); return nil })
		return errors.Join(err, back)
	}
	r := reply(m)
	r.KMAddress, r.Src, r.Dst, r.Policy = m.KMAddress, m.Src, m.Dst, m.Policy
	r.Order = []pfkey.ExtType{pfkey.ExtKMAddress, pfkey.ExtSrc, pfkey.ExtDst, pfkey.ExtPolicy}
	e.send(s, ToAll, r)
	return nil
}

// moves reads the pairs.
func moves(requests []pfkey.Request) ([]sadb.Move, error) {
	n := len(requests)
	switch {
	case n == 0 || n%2 != 0:
		return nil, syscall.EINVAL
	case n > 2*spd.MaxRequests:
		return nil, syscall.ENOBUFS
	}
	all := make([]sadb.Move, 0, n/2)
	for i := 0; i < n; i += 2 {
		from, to := &requests[i], &requests[i+1]
		mv := sadb.Move{Proto: from.Proto, Mode: from.Mode, ReqID: from.ReqID, From: endsOf(from), To: endsOf(to)}
		switch {
		case from.Proto != to.Proto || from.Mode != to.Mode || from.ReqID != to.ReqID:
			return nil, syscall.EINVAL
		case !specified(mv.From.Src) || !specified(mv.From.Dst) || !specified(mv.To.Src) || !specified(mv.To.Dst):
			return nil, syscall.EINVAL
		}
		all = append(all, mv)
	}
	return all, nil
}

func endsOf(r *pfkey.Request) sadb.Ends { return sadb.Ends{Src: r.Src.Addr(), Dst: r.Dst.Addr()} }

func specified(a netip.Addr) bool { return a.IsValid() && !a.IsUnspecified() }

// rewrite gives the tunnels of a policy their new ends.
func rewrite(requests []spd.Request, moves []sadb.Move) error {
	found := false
	for i := range requests {
		r := &requests[i]
		for _, mv := range moves {
			if r.Mode == pfkey.ModeTunnel && r.Mode == mv.Mode && r.Proto == mv.Proto && (mv.ReqID == 0 || r.ReqID == 0 || r.ReqID == mv.ReqID) &&
				r.Src == mv.From.Src && r.Dst == mv.From.Dst {
				r.Src, r.Dst, found = mv.To.Src, mv.To.Dst, true
				break // a request moves once
			}
		}
	}
	if !found {
		return syscall.ENODATA
	}
	return nil
}
