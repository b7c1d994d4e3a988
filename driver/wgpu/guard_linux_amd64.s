#include "textflag.h"
#include "go_asm.h"

// The library's functions are called with the C calling convention on the stack of a
// thread. Neither guard nor what it calls runs on a goroutine's stack.

// guard's frame: five words of arguments on the stack, then what it saves, aligned to
// 16 bytes together with the return address.
#define FRAME 104
#define BLOCK 40
#define SAVED 48

GLOBL ·guardPC(SB), NOPTR|RODATA, $8
DATA ·guardPC(SB)/8, $guard<>(SB)

GLOBL ·onAbortPC(SB), NOPTR|RODATA, $8
DATA ·onAbortPC(SB)/8, $onAbort<>(SB)

// guard(block *callBlock) calls block.f. While it runs, one of slots says by the
// thread's pointer (the address of its own data, in FS:0) that this thread is inside
// the library, and where guard's frame is.
TEXT guard<>(SB), NOSPLIT|NOFRAME, $0
	ADJSP $FRAME, SP
	MOVQ  DI, BLOCK(SP)
	MOVQ  BX, (SAVED+0)(SP)
	MOVQ  BP, (SAVED+8)(SP)
	MOVQ  R12, (SAVED+16)(SP)
	MOVQ  R13, (SAVED+24)(SP)
	MOVQ  R14, (SAVED+32)(SP)
	MOVQ  R15, (SAVED+40)(SP)
	MOVQ  DI, BX
	MOVQ  0(FS), R12
	LEAQ  ·slots(SB), R13
	MOVL  $const_slotCount, CX

claim:
	XORL AX, AX
	LOCK
	CMPXCHGQ R12, slot_thread(R13)
	JEQ  claimed
	ADDQ $slot__size, R13
	DECL CX
	JNE  claim
	LEAQ ·spare(SB), R13 // all are taken: nothing looks here, an abort ends the process

claimed:
	MOVQ SP, slot_frame(R13)

	MOVQ (callBlock_stack+0)(BX), AX
	MOVQ AX, 0(SP)
	MOVQ (callBlock_stack+8)(BX), AX
	MOVQ AX, 8(SP)
	MOVQ (callBlock_stack+16)(BX), AX
	MOVQ AX, 16(SP)
	MOVQ (callBlock_stack+24)(BX), AX
	MOVQ AX, 24(SP)
	MOVQ (callBlock_stack+32)(BX), AX
	MOVQ AX, 32(SP)
	MOVQ (callBlock_args+0)(BX), DI
	MOVQ (callBlock_args+8)(BX), SI
	MOVQ (callBlock_args+16)(BX), DX
	MOVQ (callBlock_args+24)(BX), CX
	MOVQ (callBlock_args+32)(BX), R8
	MOVQ (callBlock_args+40)(BX), R9
	MOVQ callBlock_f(BX), R10
	XORL AX, AX
	CALL R10

	MOVQ AX, callBlock_result(BX)
	MOVQ X0, callBlock_float(BX)
	MOVQ $0, slot_frame(R13)
	MOVQ $0, slot_thread(R13)
	MOVQ (SAVED+0)(SP), BX
	MOVQ (SAVED+8)(SP), BP
	MOVQ (SAVED+16)(SP), R12
	MOVQ (SAVED+24)(SP), R13
	MOVQ (SAVED+32)(SP), R14
	MOVQ (SAVED+40)(SP), R15
	ADJSP $-FRAME, SP
	RET

// resume is where a thread goes on whose call ended in abort, with SP at guard's frame
// and the caller's registers. It returns for guard, and says so in the block.
TEXT resume<>(SB), NOSPLIT|NOFRAME, $0
	MOVQ BLOCK(SP), AX
	MOVQ $0, callBlock_result(AX)
	MOVQ $0, callBlock_float(AX)
	MOVQ $1, callBlock_aborted(AX)
	ADDQ $FRAME, SP
	RET

// Places in the kernel's siginfo_t and ucontext_t.
#define INFO_CODE 8
#define INFO_PID 16
#define CONTEXT_R12 72
#define CONTEXT_R13 80
#define CONTEXT_R14 88
#define CONTEXT_R15 96
#define CONTEXT_BP 120
#define CONTEXT_BX 128
#define CONTEXT_SP 160
#define CONTEXT_PC 168

// onAbort(signal, info, context) is SIGABRT's handler. A thread inside the library that
// has sent the signal to itself, which is what abort does, goes on at resume when the
// handler returns. Everything else is Go's, whose handler finds all as if it were first.
TEXT onAbort<>(SB), NOSPLIT|NOFRAME, $0
	CMPL INFO_CODE(SI), $-6 // SI_TKILL: to one thread
	JNE  others
	MOVL INFO_PID(SI), AX
	CMPL AX, ·processID(SB)
	JNE  others
	MOVQ 0(FS), AX
	LEAQ ·slots(SB), R8
	MOVL $const_slotCount, CX

look:
	CMPQ AX, slot_thread(R8)
	JEQ  found
	ADDQ $slot__size, R8
	DECL CX
	JNE  look

others:
	MOVQ ·previous(SB), AX
	JMP  AX

found:
	MOVQ  slot_frame(R8), AX
	TESTQ AX, AX
	JEQ   others
	MOVQ $0, slot_frame(R8)
	MOVQ AX, CONTEXT_SP(DX)
	MOVQ (SAVED+0)(AX), CX
	MOVQ CX, CONTEXT_BX(DX)
	MOVQ (SAVED+8)(AX), CX
	MOVQ CX, CONTEXT_BP(DX)
	MOVQ (SAVED+16)(AX), CX
	MOVQ CX, CONTEXT_R12(DX)
	MOVQ (SAVED+24)(AX), CX
	MOVQ CX, CONTEXT_R13(DX)
	MOVQ (SAVED+32)(AX), CX
	MOVQ CX, CONTEXT_R14(DX)
	MOVQ (SAVED+40)(AX), CX
	MOVQ CX, CONTEXT_R15(DX)
	LEAQ resume<>(SB), AX
	MOVQ AX, CONTEXT_PC(DX)
	MOVQ $0, slot_thread(R8)
	RET
