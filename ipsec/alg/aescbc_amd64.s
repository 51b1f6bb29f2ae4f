#include "textflag.h"

// func substitute(w uint32) uint32
TEXT ·substitute(SB), NOSPLIT, $0-12
	MOVL w+0(FP), AX
	MOVQ AX, X0
	PSLLDQ $4, X0
	AESKEYGENASSIST $0, X0, X0 // the lowest word becomes SubWord of the second
	MOVQ X0, AX
	MOVL AX, ret+8(FP)
	RET

// func invert(dec, enc *[240]byte, rounds int)
TEXT ·invert(SB), NOSPLIT, $0-24
	MOVQ dec+0(FP), DI
	MOVQ enc+8(FP), SI
	MOVQ rounds+16(FP), CX
	MOVQ CX, DX
	SHLQ $4, DX
	ADDQ DX, SI // the last round key comes first
	MOVOU (SI), X0
	MOVOU X0, (DI)
middle:
	SUBQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JZ   last
	MOVOU (SI), X0
	AESIMC X0, X0
	MOVOU X0, (DI)
	JMP  middle
last:
	MOVOU (SI), X0
	MOVOU X0, (DI)
	RET

// func encryptCBC(schedule *[240]byte, rounds int, dst, src *byte, blocks int, iv *[16]byte)
TEXT ·encryptCBC(SB), NOSPLIT, $0-48
	MOVQ schedule+0(FP), AX
	MOVQ rounds+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ src+24(FP), SI
	MOVQ blocks+32(FP), CX
	MOVQ iv+40(FP), DX
	MOVOU (DX), X0
	MOVOU (AX), X1
	MOVOU 16(AX), X2
	MOVOU 32(AX), X3
	MOVOU 48(AX), X4
	MOVOU 64(AX), X5
	MOVOU 80(AX), X6
	MOVOU 96(AX), X7
	MOVOU 112(AX), X8
	MOVOU 128(AX), X9
	MOVOU 144(AX), X10
	SHLQ $4, BX
	ADDQ AX, BX // the last round key
	MOVOU (BX), X11
	ADDQ $160, AX // what stands between the first ten and the last
	PXOR X1, X0
block:
	MOVOU (SI), X12
	PXOR X12, X0
	AESENC X2, X0
	AESENC X3, X0
	AESENC X4, X0
	AESENC X5, X0
	AESENC X6, X0
	AESENC X7, X0
	AESENC X8, X0
	AESENC X9, X0
	AESENC X10, X0
	MOVQ AX, R8
more:
	CMPQ R8, BX
	JEQ  end
	MOVOU (R8), X13
	AESENC X13, X0
	ADDQ $16, R8
	JMP  more
end:
	AESENCLAST X11, X0
	MOVOU X0, (DI)
	PXOR X1, X0 // the first round key for the next block
	ADDQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JNZ  block
	PXOR X1, X0
	MOVOU X0, (DX)
	RET

// func decryptCBC(schedule *[240]byte, rounds int, dst, src *byte, blocks int, iv *[16]byte)
TEXT ·decryptCBC(SB), NOSPLIT, $0-48
	MOVQ schedule+0(FP), AX
	MOVQ rounds+8(FP), BX
	MOVQ dst+16(FP), DI
	MOVQ src+24(FP), SI
	MOVQ blocks+32(FP), CX
	MOVQ iv+40(FP), DX
	MOVOU (DX), X15 // the cipher text in front of the next block
	SHLQ $4, BX
	ADDQ AX, BX
	MOVOU (AX), X13
	MOVOU (BX), X14
	SUBQ $8, CX
	JLT  rest
eight:
	MOVOU (SI), X0
	MOVOU 16(SI), X1
	MOVOU 32(SI), X2
	MOVOU 48(SI), X3
	MOVOU 64(SI), X4
	MOVOU 80(SI), X5
	MOVOU 96(SI), X6
	MOVOU 112(SI), X7
	PXOR X13, X0
	PXOR X13, X1
	PXOR X13, X2
	PXOR X13, X3
	PXOR X13, X4
	PXOR X13, X5
	PXOR X13, X6
	PXOR X13, X7
	LEAQ 16(AX), R8
round8:
	MOVOU (R8), X8
	AESDEC X8, X0
	AESDEC X8, X1
	AESDEC X8, X2
	AESDEC X8, X3
	AESDEC X8, X4
	AESDEC X8, X5
	AESDEC X8, X6
	AESDEC X8, X7
	ADDQ $16, R8
	CMPQ R8, BX
	JNE  round8
	AESDECLAST X14, X0
	AESDECLAST X14, X1
	AESDECLAST X14, X2
	AESDECLAST X14, X3
	AESDECLAST X14, X4
	AESDECLAST X14, X5
	AESDECLAST X14, X6
	AESDECLAST X14, X7
	// dst may be src: everything is read before it is written.
	PXOR X15, X0
	MOVOU (SI), X8
	MOVOU 16(SI), X9
	MOVOU 32(SI), X10
	MOVOU 48(SI), X11
	PXOR X8, X1
	PXOR X9, X2
	PXOR X10, X3
	PXOR X11, X4
	MOVOU 64(SI), X8
	MOVOU 80(SI), X9
	MOVOU 96(SI), X10
	MOVOU 112(SI), X15
	PXOR X8, X5
	PXOR X9, X6
	PXOR X10, X7
	MOVOU X0, (DI)
	MOVOU X1, 16(DI)
	MOVOU X2, 32(DI)
	MOVOU X3, 48(DI)
	MOVOU X4, 64(DI)
	MOVOU X5, 80(DI)
	MOVOU X6, 96(DI)
	MOVOU X7, 112(DI)
	ADDQ $128, SI
	ADDQ $128, DI
	SUBQ $8, CX
	JGE  eight
rest:
	ADDQ $8, CX
	JZ   done
one:
	MOVOU (SI), X0
	MOVO X0, X8
	PXOR X13, X0
	LEAQ 16(AX), R8
round1:
	MOVOU (R8), X9
	AESDEC X9, X0
	ADDQ $16, R8
	CMPQ R8, BX
	JNE  round1
	AESDECLAST X14, X0
	PXOR X15, X0
	MOVO X8, X15
	MOVOU X0, (DI)
	ADDQ $16, SI
	ADDQ $16, DI
	DECQ CX
	JNZ  one
done:
	MOVOU X15, (DX)
	RET
