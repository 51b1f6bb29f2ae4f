package wire

import "golang.org/x/sys/cpu"

// haveVectors says whether the processor adds eight words at a time.
var haveVectors = cpu.X86.HasAVX2

// vectorsPay is from how many bytes on that is faster.
const vectorsPay = 128

// sumVectors adds the little-endian 32-bit words of b, whose length is a multiple of 64 and at most 1 GiB. Such a sum folds to
// the same 16 bits as one of 64-bit words with their carries.
//
//go:noescape
func sumVectors(b []byte) uint64

// copyVectors is sumVectors that copies b to dst meanwhile.
//
//go:noescape
func copyVectors(dst *byte, b []byte) uint64
