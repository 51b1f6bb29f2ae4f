package nft

import (
	"time"

	"golang.org/x/sys/unix"
)

// A packet on its way through a chain sees the rules as they were when it entered, but the elements of each set as they
// are when it gets there. So a transaction that moves coverage from one place to another is not atomic for it: it may come
// too early for the new place and too late for the old one. (Measured: 1 packet of 265,000.) Therefore the new place
// comes first, then a grace period in which all such packets leave the chains, then the old place goes.

// settled is after how much time no packet can be on its way any more.
const settled = time.Second

// grace waits until all packets that were inside a chain when it was called have left it. Membarrier's global command waits
// for all processors as the kernel does before it frees something (synchronize_rcu). Kernels with nohz_full refuse it.
func grace() {
	const cmdGlobal = 1
	if _, _, errno := unix.Syscall(unix.SYS_MEMBARRIER, cmdGlobal, 0, 0); errno != 0 {
		time.Sleep(settled / 4)
	}
}
