package kern

import (
	"strconv"

	"kipsec/kern/sysctl"
)

// wireTree is where the tree tells of the fast wire. There is one for both families.
const wireTree = "net.inet.ipsec.wire."

// addWireStats puts what can be told of the wires into the tree.
func (k *Kernel) addWireStats() error {
	kind := func(fast func(*fastWire) bool) func(*fastWire) string {
		return func(f *fastWire) string {
			if f != nil && fast(f) {
				return string(FastWire)
			}
			return string(RawWire)
		}
	}
	count := func(get func(*fastWire) uint64) func(*fastWire) string {
		return func(f *fastWire) string {
			if f == nil {
				return "0"
			}
			return strconv.FormatUint(get(f), 10)
		}
	}
	for _, v := range []struct {
		name, doc string
		read      func(*fastWire) string
	}{
		{"in", "The wire on which protected packets come in: raw or fast", kind(func(f *fastWire) bool { return f.receives.Load() })},
		{"out", "The wire on which protected packets go out: raw or fast", kind(func(f *fastWire) bool { return !f.outRaw.Load() })},
		{"hook", "What takes packets on the fast wire: tcx, a program; packet, a packet socket; none", func(f *fastWire) string {
			switch {
			case f == nil:
				return "none"
			case f.program != nil:
				return string(ProgramWire)
			}
			return string(PacketWire)
		}},
		{"received", "Packets that came in over the fast wire", count(func(f *fastWire) uint64 { return f.receiver.Taken() + f.datagrams.Taken() })},
		{"lost", "Packets that found the ring of the fast wire full", count(func(f *fastWire) uint64 { return f.receiver.Lost() + f.datagrams.Lost() })},
		{"sent", "Packets that went out over the fast wire", count(func(f *fastWire) uint64 { fast, _ := f.sender.Sent(); return fast })},
		{"passed", "Packets that the fast wire gave to the raw one", count(func(f *fastWire) uint64 { _, raw := f.sender.Sent(); return raw })},
	} {
		if err := k.Tree.Add(sysctl.NewFunc(wireTree+v.name, v.doc, func() string { return v.read(k.fast.Load()) })); err != nil {
			return err
		}
	}
	return nil
}
