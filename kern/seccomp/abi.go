package seccomp

import "golang.org/x/sys/unix"

// An abi is one way to make the calls. A processor has several: amd64 runs programs of i386 and x32, arm64 those of arm.
type abi struct {
	arch    uint32          // AUDIT_ARCH_... of linux/audit.h
	numbers map[uint32]Call // of the system calls

	// multiplexer is the number of socketcall(2), or 0. Its first argument is the call, its second the address of 32-bit
	// words that hold the arguments. A filter cannot see those: all calls of these kinds are asked about, and those that
	// no rule names are let go on.
	multiplexer uint32
	kinds       map[uint32]Call
}

const x32 = 0x40000000 // __X32_SYSCALL_BIT

// abis are those of the processors that the project is built for; a kernel meets those that are its own. Programs of other
// ABIs do not run on them.
var abis = []abi{
	{
		arch: unix.AUDIT_ARCH_X86_64,
		numbers: map[uint32]Call{
			41: Socket, 54: Setsockopt, 55: Getsockopt, 45: Recvfrom, 7: Poll,
			x32 | 41: Socket, x32 | 541: Setsockopt, x32 | 542: Getsockopt, x32 | 517: Recvfrom, x32 | 7: Poll,
		},
	},
	{
		arch:        unix.AUDIT_ARCH_I386,
		numbers:     map[uint32]Call{359: Socket, 366: Setsockopt, 365: Getsockopt, 371: Recvfrom, 168: Poll},
		multiplexer: 102,
		kinds:       map[uint32]Call{1: Socket, 14: Setsockopt, 15: Getsockopt},
	},
	{
		arch:    unix.AUDIT_ARCH_AARCH64,
		numbers: map[uint32]Call{198: Socket, 208: Setsockopt, 209: Getsockopt, 207: Recvfrom, 73: Ppoll},
	},
	{
		arch:    unix.AUDIT_ARCH_ARM,
		numbers: map[uint32]Call{281: Socket, 294: Setsockopt, 295: Getsockopt, 292: Recvfrom, 168: Poll},
	},
}

// abiOf returns the row of an architecture.
func abiOf(arch uint32) (abi, bool) {
	for _, a := range abis {
		if a.arch == arch {
			return a, true
		}
	}
	return abi{}, false
}
