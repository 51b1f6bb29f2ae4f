package tcx

import (
	"errors"
	"fmt"
	"net/netip"
	"sync/atomic"
	"unsafe"

	"github.com/cilium/ebpf"
	"golang.org/x/sys/unix"
)

// Where things stand in the state that the program and the reader share.
const (
	stateLost   = 0  // how many packets found the ring full, 64 bits
	stateRung   = 8  // when the bell was rung last, 64 bits
	stateReader = 16 // awake, asleep or called, 32 bits
	stateBell   = 20 // 1 if there is a bell, 32 bits
	stateSize   = 24 // bytes
)

// What the reader does.
const (
	awake  = 0
	asleep = 1 // to be woken
	called = 2 // asleep, and the bell was rung
)

// maxLocal is how many addresses of each family there can be.
const maxLocal = 1 << 14

// maps are what the program and we share.
type maps struct {
	ring  *ebpf.Map
	local [2]*ebpf.Map // addresses of this host, as families has them
	state *ebpf.Map

	memory []byte // of state
}

func openMaps(ringSize int) (m *maps, err error) {
	m = new(maps)
	const onDemand = unix.BPF_F_NO_PREALLOC
	for _, d := range []struct {
		to   **ebpf.Map
		spec ebpf.MapSpec
	}{
		{&m.ring, ebpf.MapSpec{Name: "kipsec_ring", Type: ebpf.RingBuf, MaxEntries: uint32(ringSize)}},
		{&m.local[0], ebpf.MapSpec{Name: "kipsec_local4", Type: ebpf.Hash, KeySize: 4, ValueSize: 1, MaxEntries: maxLocal, Flags: onDemand}},
		{&m.local[1], ebpf.MapSpec{Name: "kipsec_local6", Type: ebpf.Hash, KeySize: 16, ValueSize: 1, MaxEntries: maxLocal, Flags: onDemand}},
		{&m.state, ebpf.MapSpec{Name: "kipsec_state", Type: ebpf.Array, KeySize: 4, ValueSize: stateSize, MaxEntries: 1, Flags: unix.BPF_F_MMAPABLE}},
	} {
		if *d.to, err = ebpf.NewMap(&d.spec); err != nil {
			return nil, errors.Join(fmt.Errorf("map %s: %w", d.spec.Name, err), m.close())
		}
	}
	if m.memory, err = unix.Mmap(m.state.FD(), 0, unix.Getpagesize(), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED); err != nil {
		return nil, errors.Join(err, m.close())
	}
	return m, nil
}

func (m *maps) close() error {
	var err error
	if m.memory != nil {
		err = unix.Munmap(m.memory)
	}
	for _, x := range []*ebpf.Map{m.ring, m.local[0], m.local[1], m.state} {
		if x != nil {
			err = errors.Join(err, x.Close())
		}
	}
	return err
}

func (m *maps) lost() uint64 {
	return atomic.LoadUint64((*uint64)(unsafe.Pointer(&m.memory[stateLost])))
}

// set changes what there is of 32 bits. What is looked at afterwards is later than that.
func (m *maps) set(at int, v uint32) { atomic.StoreUint32((*uint32)(unsafe.Pointer(&m.memory[at])), v) }

func (m *maps) get(at int) uint32 { return atomic.LoadUint32((*uint32)(unsafe.Pointer(&m.memory[at]))) }

// of is the map for an address.
func (m *maps) of(a netip.Addr) *ebpf.Map {
	if a.Is4() {
		return m.local[0]
	}
	return m.local[1]
}
