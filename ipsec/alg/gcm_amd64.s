#include "textflag.h"

// The reduction of GHASH works on bits in the order of the processor, as POLYVAL does (RFC 8452 §3 and appendix A): blocks
// have their bytes reversed, and the key is multiplied by x once.

DATA reverse<>+0(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+8(SB)/8, $0x0001020304050607
DATA reverse<>+16(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+24(SB)/8, $0x0001020304050607
DATA reverse<>+32(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+40(SB)/8, $0x0001020304050607
DATA reverse<>+48(SB)/8, $0x08090a0b0c0d0e0f
DATA reverse<>+56(SB)/8, $0x0001020304050607
GLOBL reverse<>(SB), RODATA|NOPTR, $64

// The counters of the first four blocks, from that of the tag on.
DATA firstFour<>+0(SB)/8, $1
DATA firstFour<>+8(SB)/8, $0
DATA firstFour<>+16(SB)/8, $2
DATA firstFour<>+24(SB)/8, $0
DATA firstFour<>+32(SB)/8, $3
DATA firstFour<>+40(SB)/8, $0
DATA firstFour<>+48(SB)/8, $4
DATA firstFour<>+56(SB)/8, $0
GLOBL firstFour<>(SB), RODATA|NOPTR, $64

DATA four<>+0(SB)/8, $4
DATA four<>+8(SB)/8, $0
GLOBL four<>(SB), RODATA|NOPTR, $16

// x^127 + x^126 + x^121 + 1
DATA polynomial<>+0(SB)/8, $1
DATA polynomial<>+8(SB)/8, $0xc200000000000000
GLOBL polynomial<>(SB), RODATA|NOPTR, $16

// Registers of cryptGCM:
//
//	Z16 … Z25  round keys 0 to 9, Z26 the last one, each four times; R8 points behind the tenth, BX at the last
//	Z27        counters of the next four blocks, bytes reversed
//	Z28        4, four times; Z29 reverse; Z30 polynomial, four times
//	X31        GHASH so far, bytes reversed; all else of Z31 is 0
//	Z12 … Z15  powers 16 to 1 of the hash key; that of the 17th stands in front of them in memory
//	Z8 Z9 Z10  a product: low, middle and high part; Z11 is for whoever needs it
//	SI CX      the data, how many bytes are left; DX whether they come in encrypted
//	R9 R10     the powers; the tag, which is its mask until the end

// products adds those of x and y to Z8, Z9, Z10.
#define products(x, y) \
	VPCLMULQDQ $0x00, y, x, Z11; \
	VPXORQ     Z11, Z8, Z8; \
	VPCLMULQDQ $0x01, y, x, Z11; \
	VPXORQ     Z11, Z9, Z9; \
	VPCLMULQDQ $0x10, y, x, Z11; \
	VPXORQ     Z11, Z9, Z9; \
	VPCLMULQDQ $0x11, y, x, Z11; \
	VPXORQ     Z11, Z10, Z10

// firstProducts sets them.
#define firstProducts(x, y) \
	VPCLMULQDQ $0x00, y, x, Z8; \
	VPCLMULQDQ $0x01, y, x, Z9; \
	VPCLMULQDQ $0x10, y, x, Z11; \
	VPXORQ     Z11, Z9, Z9; \
	VPCLMULQDQ $0x11, y, x, Z10

// reduceLow and reduceMiddle each take 64 bits off the products, gather adds the four and leaves 128 bits in X31.
#define reduceLow \
	VPCLMULQDQ     $0x01, Z8, Z30, Z11; \
	VPSHUFD        $0x4e, Z8, Z8; \
	VPTERNLOGQ     $0x96, Z11, Z8, Z9

#define reduceMiddle \
	VPCLMULQDQ     $0x01, Z9, Z30, Z11; \
	VPSHUFD        $0x4e, Z9, Z9; \
	VPTERNLOGQ     $0x96, Z11, Z9, Z10

#define gather \
	VEXTRACTI64X4  $1, Z10, Y11; \
	VPXORQ         Y11, Y10, Y10; \
	VEXTRACTI32X4  $1, Y10, X11; \
	VPXORQ         X11, X10, X31

#define reduce \
	reduceLow; \
	reduceMiddle; \
	gather

// counters puts the next four into a register, as blocks.
#define counters(z) \
	VPSHUFB Z29, Z27, z; \
	VPADDD  Z28, Z27, Z27

#define counters4 \
	counters(Z0); \
	counters(Z1); \
	counters(Z2); \
	counters(Z3)

#define round4(key) \
	VAESENC key, Z0, Z0; \
	VAESENC key, Z1, Z1; \
	VAESENC key, Z2, Z2; \
	VAESENC key, Z3, Z3

// prepare does what comes before the data.
#define prepare \
	MOVQ           key+0(FP), AX; \
	VMOVQ          nonce+8(FP), X6; \
	VPINSRQ        $1, counter+16(FP), X6, X6; \
	VMOVQ          aad+24(FP), X5; \
	VPINSRQ        $1, more+32(FP), X5, X5; \
	MOVQ           data+48(FP), SI; \
	MOVQ           n+56(FP), CX; \
	MOVBQZX        open+72(FP), DX; \
	MOVQ           240(AX), BX; \
	LEAQ           256(AX), R9; \
	SHLQ           $4, BX; \
	ADDQ           AX, BX; \
	LEAQ           160(AX), R8; \
	VMOVDQU64      reverse<>(SB), Z29; \
	VBROADCASTI32X4 polynomial<>(SB), Z30; \
	VBROADCASTI32X4 four<>(SB), Z28; \
	VBROADCASTI32X4 0(AX), Z16; \
	VBROADCASTI32X4 16(AX), Z17; \
	VBROADCASTI32X4 32(AX), Z18; \
	VBROADCASTI32X4 48(AX), Z19; \
	VBROADCASTI32X4 64(AX), Z20; \
	VBROADCASTI32X4 80(AX), Z21; \
	VBROADCASTI32X4 96(AX), Z22; \
	VBROADCASTI32X4 112(AX), Z23; \
	VBROADCASTI32X4 128(AX), Z24; \
	VBROADCASTI32X4 144(AX), Z25; \
	VBROADCASTI32X4 (BX), Z26; \
	VPSHUFB        X29, X6, X7; \
	VSHUFI32X4     $0, Z7, Z7, Z27; \
	VPADDD         firstFour<>(SB), Z27, Z27; \
	VMOVDQU64      16(R9), Z12; \
	VMOVDQU64      80(R9), Z13; \
	VMOVDQU64      144(R9), Z14; \
	VMOVDQU64      208(R9), Z15; \
	VPSHUFB        X29, X5, X5; \
	VMOVDQU64      256(R9), X4; \
	VPCLMULQDQ     $0x00, X4, X5, X8; \
	VPCLMULQDQ     $0x01, X4, X5, X9; \
	VPCLMULQDQ     $0x10, X4, X5, X11; \
	VPXORQ         X11, X9, X9; \
	VPCLMULQDQ     $0x11, X4, X5, X10; \
	reduce

// toHash makes the 16 blocks of Z4 to Z7 what is to be multiplied.
#define toHash \
	VPSHUFB Z29, Z4, Z4; \
	VPSHUFB Z29, Z5, Z5; \
	VPSHUFB Z29, Z6, Z6; \
	VPSHUFB Z29, Z7, Z7; \
	VPXORQ  Z31, Z4, Z4

// hash adds the blocks to X31.
#define hash \
	toHash; \
	firstProducts(Z4, Z12); \
	products(Z5, Z13); \
	products(Z6, Z14); \
	products(Z7, Z15); \
	reduce

// mask encrypts X6 but for the last rounds.
#define mask \
	VPXORQ     X16, X6, X6; \
	VAESENC    X17, X6, X6; \
	VAESENC    X18, X6, X6; \
	VAESENC    X19, X6, X6; \
	VAESENC    X20, X6, X6; \
	VAESENC    X21, X6, X6; \
	VAESENC    X22, X6, X6; \
	VAESENC    X23, X6, X6; \
	VAESENC    X24, X6, X6; \
	VAESENC    X25, X6, X6

#define round1(key) VAESENC key, Z0, Z0

// upToNine is rounds 0 to 9 for one register.
#define upToNine \
	VPXORQ Z16, Z0, Z0; \
	round1(Z17); \
	round1(Z18); \
	round1(Z19); \
	round1(Z20); \
	round1(Z21); \
	round1(Z22); \
	round1(Z23); \
	round1(Z24); \
	round1(Z25)

// upToNine4 is the same for four.
#define upToNine4 \
	VPXORQ Z16, Z0, Z0; \
	VPXORQ Z16, Z1, Z1; \
	VPXORQ Z16, Z2, Z2; \
	VPXORQ Z16, Z3, Z3; \
	round4(Z17); \
	round4(Z18); \
	round4(Z19); \
	round4(Z20); \
	round4(Z21); \
	round4(Z22); \
	round4(Z23); \
	round4(Z24); \
	round4(Z25)

// hashWhileUpToNine4 does both at once: neither waits for the other.
#define hashWhileUpToNine4 \
	VPXORQ Z16, Z0, Z0; \
	VPXORQ Z16, Z1, Z1; \
	VPXORQ Z16, Z2, Z2; \
	VPXORQ Z16, Z3, Z3; \
	toHash; \
	round4(Z17); \
	firstProducts(Z4, Z12); \
	round4(Z18); \
	products(Z5, Z13); \
	round4(Z19); \
	products(Z6, Z14); \
	round4(Z20); \
	products(Z7, Z15); \
	round4(Z21); \
	reduceLow; \
	round4(Z22); \
	reduceMiddle; \
	round4(Z23); \
	gather; \
	round4(Z24); \
	round4(Z25)

#define last4 \
	VAESENCLAST Z26, Z0, Z0; \
	VAESENCLAST Z26, Z1, Z1; \
	VAESENCLAST Z26, Z2, Z2; \
	VAESENCLAST Z26, Z3, Z3

// tailBegins makes R9 point at the power for the first of the blocks that are left. Behind them comes that of the lengths.
#define tailBegins \
	LEAQ   15(CX), AX; \
	ANDQ   $~15, AX; \
	NEGQ   AX; \
	LEAQ   256(R9)(AX*1), R9

// tailMask selects the next 64 bytes in K1, or what is left.
#define tailMask \
	MOVQ  $-1, AX; \
	BZHIQ CX, AX, AX; \
	KMOVQ AX, K1

// tailHash adds the blocks of Z4 to the products.
#define tailHash \
	VPSHUFB   Z29, Z4, Z4; \
	VPXORQ    Z31, Z4, Z4; \
	VPXORQ    Z31, Z31, Z31; \
	VMOVDQU64 (R9), Z5; \
	products(Z4, Z5); \
	ADDQ      $64, R9; \
	ADDQ      $64, SI; \
	SUBQ      $64, CX

// finish adds the block of lengths to the products, and writes the tag.
#define finish \
	MOVQ       key+0(FP), R9; \
	MOVQ       aadLen+40(FP), AX; \
	MOVQ       n+56(FP), DX; \
	SHLQ       $3, AX; \
	SHLQ       $3, DX; \
	VMOVQ      DX, X4; \
	VPINSRQ    $1, AX, X4, X4; \
	VPXORQ     Z31, Z4, Z4; \
	VMOVDQU64  512(R9), X5; \
	products(Z4, Z5); \
	reduce; \
	VPSHUFB    X29, X31, X31; \
	VPXORQ     (R10), X31, X31; \
	VMOVDQU64  X31, (R10)

// func cryptGCM(key *vectorGCM, nonce, counter, aad, more uint64, aadLen int, data *byte, n int, tag *[16]byte, open bool)
TEXT ·cryptGCM(SB), NOSPLIT, $0-73
	prepare
	mask
	MOVQ R8, R13
maskMore:
	CMPQ R13, BX
	JEQ  maskEnd
	VAESENC (R13), X6, X6
	ADDQ $16, R13
	JMP  maskMore
maskEnd:
	VAESENCLAST X26, X6, X6
	MOVQ tag+64(FP), R10
	VMOVDQU64 X6, (R10)
	CMPQ CX, $256
	JLT  tail
	counters4
	upToNine4
	JMP  more // nothing is there yet to be hashed
blocks:
	counters4
	hashWhileUpToNine4
more:
	MOVQ R8, R13
another:
	CMPQ R13, BX
	JEQ  last
	VBROADCASTI32X4 (R13), Z11
	round4(Z11)
	ADDQ $16, R13
	JMP  another
last:
	last4
	VMOVDQU64 0(SI), Z4
	VMOVDQU64 64(SI), Z5
	VMOVDQU64 128(SI), Z6
	VMOVDQU64 192(SI), Z7
	VPXORQ Z4, Z0, Z0
	VPXORQ Z5, Z1, Z1
	VPXORQ Z6, Z2, Z2
	VPXORQ Z7, Z3, Z3
	VMOVDQU64 Z0, 0(SI)
	VMOVDQU64 Z1, 64(SI)
	VMOVDQU64 Z2, 128(SI)
	VMOVDQU64 Z3, 192(SI)
	TESTB DX, DX
	JNE  encrypted // Z4 to Z7 are
	VMOVDQA64 Z0, Z4
	VMOVDQA64 Z1, Z5
	VMOVDQA64 Z2, Z6
	VMOVDQA64 Z3, Z7
encrypted:
	ADDQ $256, SI
	SUBQ $256, CX
	CMPQ CX, $256
	JGE  blocks
	hash
tail:
	VPXORQ Z8, Z8, Z8
	VPXORQ Z9, Z9, Z9
	VPXORQ Z10, Z10, Z10
	TESTQ CX, CX
	JLE  lengths
	tailBegins
piece:
	tailMask
	counters(Z0)
	upToNine
	MOVQ R8, R13
pieceMore:
	CMPQ R13, BX
	JEQ  pieceEnd
	VBROADCASTI32X4 (R13), Z4
	round1(Z4)
	ADDQ $16, R13
	JMP  pieceMore
pieceEnd:
	VAESENCLAST Z26, Z0, Z0
	VMOVDQU8.Z (SI), K1, Z4
	VPXORQ Z4, Z0, Z0
	VMOVDQU8 Z0, K1, (SI)
	TESTB DX, DX
	JNE  pieceHashed
	VMOVDQU8.Z Z0, K1, Z4
pieceHashed:
	tailHash
	JG   piece
lengths:
	finish
	VZEROUPPER
	RET

// func multiplyGCM(product, x, y *[16]byte)
TEXT ·multiplyGCM(SB), NOSPLIT, $0-24
	MOVQ product+0(FP), DI
	MOVQ x+8(FP), SI
	MOVQ y+16(FP), DX
	VBROADCASTI32X4 polynomial<>(SB), Z30
	VMOVDQU64 (SI), X4
	VMOVDQU64 (DX), X5
	VPCLMULQDQ $0x00, X5, X4, X8
	VPCLMULQDQ $0x01, X5, X4, X9
	VPCLMULQDQ $0x10, X5, X4, X11
	VPXORQ X11, X9, X9
	VPCLMULQDQ $0x11, X5, X4, X10
	reduce
	VMOVDQU64 X31, (DI)
	VZEROUPPER
	RET
