package seccomp

import (
	"maps"
	"slices"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/cpu"
	"golang.org/x/sys/unix"
)

// Where things stand in struct seccomp_data.
const (
	numberOffset = 0
	archOffset   = 4
	argsOffset   = 16
)

// argOffset is where the low half of an argument stands.
func argOffset(n int) uint32 {
	offset := uint32(argsOffset + 8*n)
	if cpu.IsBigEndian {
		offset += 4
	}
	return offset
}

// program makes the filter: architecture, number and arguments, one comparison after the other.
func program(rules []Rule) []bpf.Instruction {
	allow, notify := bpf.RetConstant{Val: unix.SECCOMP_RET_ALLOW}, bpf.RetConstant{Val: unix.SECCOMP_RET_USER_NOTIF}
	var whole []bpf.Instruction
	for _, a := range abis {
		var block []bpf.Instruction
		for _, number := range slices.Sorted(maps.Keys(a.numbers)) {
			block = append(block, when(numberOffset, Equal, number, append(picks(rules, a.numbers[number], notify), allow))...)
		}
		if a.multiplexer != 0 {
			var kinds []bpf.Instruction
			for _, kind := range slices.Sorted(maps.Keys(a.kinds)) {
				kinds = append(kinds, when(argOffset(0), Equal, kind, []bpf.Instruction{notify})...)
			}
			block = append(block, when(numberOffset, Equal, a.multiplexer, append(kinds, allow))...)
		}
		whole = append(whole, when(archOffset, Equal, a.arch, append(block, allow))...)
	}
	return append(whole, allow)
}

// picks returns what decides about one call: it ends where a rule picks it, and is passed through otherwise.
func picks(rules []Rule, c Call, yes bpf.Instruction) (body []bpf.Instruction) {
	for _, r := range rules {
		if r.Call != c {
			continue
		}
		then := []bpf.Instruction{yes}
		for _, t := range slices.Backward(r.Tests) {
			then = when(argOffset(t.Arg), t.Op, t.Value, then)
		}
		body = append(body, then...)
	}
	return body
}

// conditions are the comparisons in BPF.
var conditions = map[Op]bpf.JumpTest{Equal: bpf.JumpEqual, Below: bpf.JumpLessThan, Has: bpf.JumpBitsSet}

// when runs then where the 32-bit word at the offset passes a test, and goes on behind it otherwise.
func when(offset uint32, op Op, value uint32, then []bpf.Instruction) []bpf.Instruction {
	return append([]bpf.Instruction{
		bpf.LoadAbsolute{Off: offset, Size: 4},
		bpf.JumpIf{Cond: conditions[op], Val: value, SkipTrue: 1},
		bpf.Jump{Skip: uint32(len(then))},
	}, then...)
}
