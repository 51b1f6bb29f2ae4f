package main

import (
	"os"
	"runtime"
)

// spare is how many goroutines may run beside those that carry packets. Under load these never block, and as many of them as
// there are cores would leave PF_KEY and the mount to the runtime's preemption, which takes 10 ms.
const spare = 2

// reserveTurns lets more goroutines run than there are cores, unless the environment says how many. Linux shares the cores
// among them, within a fraction of a millisecond. It returns the number of cores, which a container may limit.
func reserveTurns() (cores int) {
	cores = runtime.GOMAXPROCS(0)
	if os.Getenv("GOMAXPROCS") == "" {
		runtime.GOMAXPROCS(cores + spare)
	}
	return cores
}
