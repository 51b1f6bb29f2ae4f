#include "textflag.h"

// begin clears four sums of 64 bits each.
#define begin \
	VPXOR Y0, Y0, Y0; \
	VPXOR Y1, Y1, Y1; \
	VPXOR Y2, Y2, Y2; \
	VPXOR Y3, Y3, Y3; \
	VPXOR Y15, Y15, Y15

// add adds the words of Y4 and Y5, widened with zeros.
#define add \
	VPUNPCKLDQ Y15, Y4, Y6; \
	VPUNPCKHDQ Y15, Y4, Y7; \
	VPUNPCKLDQ Y15, Y5, Y8; \
	VPUNPCKHDQ Y15, Y5, Y9; \
	VPADDQ Y6, Y0, Y0; \
	VPADDQ Y7, Y1, Y1; \
	VPADDQ Y8, Y2, Y2; \
	VPADDQ Y9, Y3, Y3

// end makes one sum of all, in AX.
#define end \
	VPADDQ Y1, Y0, Y0; \
	VPADDQ Y3, Y2, Y2; \
	VPADDQ Y2, Y0, Y0; \
	VEXTRACTI128 $1, Y0, X1; \
	VPADDQ X1, X0, X0; \
	VPSRLDQ $8, X0, X1; \
	VPADDQ X1, X0, X0; \
	VMOVQ X0, AX; \
	VZEROUPPER

// func sumVectors(b []byte) uint64
TEXT ·sumVectors(SB), NOSPLIT, $0-32
	MOVQ b_base+0(FP), SI
	MOVQ b_len+8(FP), CX
	begin
	SHRQ $6, CX
	JZ   done
next:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	add
	ADDQ $64, SI
	DECQ CX
	JNZ  next
done:
	end
	MOVQ AX, ret+24(FP)
	RET

// func copyVectors(dst *byte, b []byte) uint64
TEXT ·copyVectors(SB), NOSPLIT, $0-40
	MOVQ dst+0(FP), DI
	MOVQ b_base+8(FP), SI
	MOVQ b_len+16(FP), CX
	begin
	SHRQ $6, CX
	JZ   done
next:
	VMOVDQU (SI), Y4
	VMOVDQU 32(SI), Y5
	VMOVDQU Y4, (DI)
	VMOVDQU Y5, 32(DI)
	add
	ADDQ $64, SI
	ADDQ $64, DI
	DECQ CX
	JNZ  next
done:
	end
	MOVQ AX, ret+32(FP)
	RET
