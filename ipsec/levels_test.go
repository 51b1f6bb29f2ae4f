package ipsec

import (
	"fmt"
	"testing"

	"kipsec/ipsec/pfkey"
	"kipsec/ipsec/spd"
	"kipsec/kern/sysctl"
	"kipsec/net/wire"
)

// TestLevels: for each protocol, mode and family, what a request of each level demands when the packet has no protection, and
// that of the eight deflev variables only its own has a say in `default`, from the next packet on.
func TestLevels(t *testing.T) {
	for _, f := range families {
		for _, proto := range []uint8{wire.ProtoESP, wire.ProtoAH, wire.ProtoIPComp} {
			for _, mode := range []pfkey.Mode{pfkey.ModeTransport, pfkey.ModeTunnel} {
				t.Run(fmt.Sprintf("IPv6 %t, protocol %d, mode %d", f.v6, proto, mode), func(t *testing.T) {
					h := newHost(t)
					own := h.deflev(f.v6, proto, mode)
					for _, level := range []pfkey.Level{pfkey.LevelUse, pfkey.LevelRequire, pfkey.LevelUnique} {
						h.demands(f, proto, mode, level, level != pfkey.LevelUse)
					}
					h.demands(f, proto, mode, pfkey.LevelDefault, false)
					for _, v := range h.deflevs() {
						set(t, v.Set("2"))
						h.demands(f, proto, mode, pfkey.LevelDefault, v == own)
						set(t, v.Set("1"))
						h.demands(f, proto, mode, pfkey.LevelDefault, false)
					}
				})
			}
		}
	}
}

// deflevs are all eight variables.
func (h *host) deflevs() (all []*sysctl.Int) {
	for _, v6 := range []bool{false, true} {
		k := h.Knobs.Family(v6)
		all = append(all, k.ESPTransDeflev, k.ESPNetDeflev, k.AHTransDeflev, k.AHNetDeflev)
	}
	return all
}

// deflev is the variable for a request, nil where there is none.
func (h *host) deflev(v6 bool, proto uint8, mode pfkey.Mode) *sysctl.Int {
	k, net := h.Knobs.Family(v6), mode == pfkey.ModeTunnel
	switch {
	case proto == wire.ProtoESP && net:
		return k.ESPNetDeflev
	case proto == wire.ProtoESP:
		return k.ESPTransDeflev
	case proto == wire.ProtoAH && net:
		return k.AHNetDeflev
	case proto == wire.ProtoAH:
		return k.AHTransDeflev
	}
	return nil
}

// demands checks that a policy of one request drops a packet without an SA or protection exactly if it should. IPComp
// is never demanded inbound: what is too small to shrink arrives without it.
func (h *host) demands(f ends, proto uint8, mode pfkey.Mode, level pfkey.Level, want bool) {
	h.t.Helper()
	r := spd.Request{Proto: proto, Mode: mode, Level: level}
	if mode == pfkey.ModeTunnel {
		r.Src, r.Dst = addr(f.me), addr(f.peer)
	}
	h.SPD.Flush()
	h.policy(pfkey.DirOut, f.all, f.all, pfkey.PolicyIPsec, r)
	h.policy(pfkey.DirIn, f.all, f.all, pfkey.PolicyIPsec, r)
	b := udp(f.me, f.peer, 100)
	defer b.Free()
	if got := h.Output(b).Action == Drop; got != want {
		h.t.Errorf("level %d, outbound: dropped %t, want %t", level, got, want)
	}
	if got := h.Check(b.Bytes()).Action == Drop; got != (want && proto != wire.ProtoIPComp) {
		h.t.Errorf("level %d, inbound: dropped %t", level, got)
	}
}
