package seccomp

import (
	"encoding/binary"
	"testing"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

var testRules = []Rule{
	{Call: Socket, Tests: []Test{{Arg: 0, Value: 15}}},
	{Call: Setsockopt, Tests: []Test{{Arg: 1, Value: 0}, {Arg: 2, Value: 16}}},
	{Call: Setsockopt, Tests: []Test{{Arg: 1, Value: 41}, {Arg: 2, Value: 34}}},
	{Call: Getsockopt, Tests: []Test{{Arg: 1, Value: 17}, {Arg: 2, Value: 100}}},
	{Call: Poll, Tests: []Test{{Arg: 1, Value: 1}, {Arg: 2, Op: Has, Value: 0xffffffff}, {Arg: 2, Op: Below, Value: 20}}},
}

// TestFilter runs the program in an interpreter, with the calls of every processor.
func TestFilter(t *testing.T) {
	vm, err := bpf.NewVM(program(testRules))
	if err != nil {
		t.Fatal(err)
	}
	const anything = 0xdeadbeef00000000 // the high half of an int is not looked at
	for _, c := range []struct {
		name   string
		arch   uint32
		number uint32
		args   [6]uint64
		picked bool
	}{
		{"amd64 socket of the domain", unix.AUDIT_ARCH_X86_64, 41, [6]uint64{15}, true},
		{"amd64 high half of the domain", unix.AUDIT_ARCH_X86_64, 41, [6]uint64{anything | 15}, true},
		{"amd64 other domain", unix.AUDIT_ARCH_X86_64, 41, [6]uint64{2}, false},
		{"amd64 setsockopt, first rule", unix.AUDIT_ARCH_X86_64, 54, [6]uint64{3, 0, 16}, true},
		{"amd64 setsockopt, second rule", unix.AUDIT_ARCH_X86_64, 54, [6]uint64{3, 41, 34}, true},
		{"amd64 setsockopt, half of each rule", unix.AUDIT_ARCH_X86_64, 54, [6]uint64{3, 0, 34}, false},
		{"amd64 setsockopt, rule of getsockopt", unix.AUDIT_ARCH_X86_64, 54, [6]uint64{3, 17, 100}, false},
		{"amd64 getsockopt", unix.AUDIT_ARCH_X86_64, 55, [6]uint64{3, 17, 100}, true},
		{"amd64 poll, a millisecond", unix.AUDIT_ARCH_X86_64, 7, [6]uint64{0x1000, 1, 1}, true},
		{"amd64 poll, no time", unix.AUDIT_ARCH_X86_64, 7, [6]uint64{0x1000, 1, 0}, false},
		{"amd64 poll, for ever", unix.AUDIT_ARCH_X86_64, 7, [6]uint64{0x1000, 1, 0xffffffff}, false},
		{"amd64 poll, bound", unix.AUDIT_ARCH_X86_64, 7, [6]uint64{0x1000, 1, 20}, false},
		{"amd64 poll, two", unix.AUDIT_ARCH_X86_64, 7, [6]uint64{0x1000, 2, 1}, false},
		{"amd64 write", unix.AUDIT_ARCH_X86_64, 1, [6]uint64{15, 0, 16}, false},
		{"x32 socket", unix.AUDIT_ARCH_X86_64, x32 | 41, [6]uint64{15}, true},
		{"x32 setsockopt", unix.AUDIT_ARCH_X86_64, x32 | 541, [6]uint64{3, 41, 34}, true},
		{"x32 with the number of amd64", unix.AUDIT_ARCH_X86_64, x32 | 54, [6]uint64{3, 41, 34}, false},
		{"i386 socket", unix.AUDIT_ARCH_I386, 359, [6]uint64{15}, true},
		{"i386 setsockopt", unix.AUDIT_ARCH_I386, 366, [6]uint64{3, 0, 16}, true},
		{"i386 with the number of amd64", unix.AUDIT_ARCH_I386, 41, [6]uint64{15}, false},
		{"i386 socketcall of socket", unix.AUDIT_ARCH_I386, 102, [6]uint64{1, 0x1000}, true},
		{"i386 socketcall of getsockopt", unix.AUDIT_ARCH_I386, 102, [6]uint64{15, 0x1000}, true},
		{"i386 socketcall of connect", unix.AUDIT_ARCH_I386, 102, [6]uint64{3, 0x1000}, false},
		{"arm64 socket", unix.AUDIT_ARCH_AARCH64, 198, [6]uint64{15}, true},
		{"arm64 other call", unix.AUDIT_ARCH_AARCH64, 41, [6]uint64{15}, false},
		{"arm socket", unix.AUDIT_ARCH_ARM, 281, [6]uint64{15}, true},
		{"unknown processor", unix.AUDIT_ARCH_PPC64LE, 41, [6]uint64{15}, false},
	} {
		verdict, err := vm.Run(data(c.number, c.arch, c.args))
		if err != nil {
			t.Fatal(err)
		}
		want := unix.SECCOMP_RET_ALLOW
		if c.picked {
			want = unix.SECCOMP_RET_USER_NOTIF
		}
		if verdict != want {
			t.Errorf("%s: %#x, want %#x", c.name, verdict, want)
		}
	}
}

// TestOtherCallsAreFree checks what lets the kernel leave the filter out: for a call that no rule names, only its number and the
// processor are looked at.
func TestOtherCallsAreFree(t *testing.T) {
	whole := program(testRules)
	for _, a := range abis {
		vm, err := bpf.NewVM(whole)
		if err != nil {
			t.Fatal(err)
		}
		for number := range uint32(600) {
			if _, named := a.numbers[number]; named || number == a.multiplexer {
				continue
			}
			short := data(number, a.arch, [6]uint64{})[:argsOffset-8] // arguments are out of bounds: the program would return 0
			if verdict, err := vm.Run(short); err != nil || verdict != unix.SECCOMP_RET_ALLOW {
				t.Fatalf("call %d of %#x: %#x, %v", number, a.arch, verdict, err)
			}
		}
	}
}

// data is a struct seccomp_data whose words stand as the interpreter reads them.
func data(number, arch uint32, args [6]uint64) []byte {
	b := binary.BigEndian.AppendUint32(nil, number)
	b = binary.BigEndian.AppendUint32(b, arch)
	b = binary.BigEndian.AppendUint64(b, 0) // instruction pointer
	for _, a := range args {
		b = binary.BigEndian.AppendUint32(b, uint32(a)) // little endian: the low half first
		b = binary.BigEndian.AppendUint32(b, uint32(a>>32))
	}
	return b
}
