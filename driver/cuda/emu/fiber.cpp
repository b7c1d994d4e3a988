// fiber.cpp: switching between fibers, running a grid, and turning a bad memory
// access of a kernel into an error.
typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;
#include "cuda_emu.h"
#include "emu_run.h"
#include <csetjmp>
#include <csignal>

// emu_switch saves the registers that a call preserves on the stack, exchanges
// stacks and restores the others'.
#if defined(__x86_64__)
asm(R"(
.text
.globl emu_switch
.type emu_switch,@function
emu_switch:
	pushq %rbp; pushq %rbx; pushq %r12; pushq %r13; pushq %r14; pushq %r15
	movq %rsp, (%rdi)
	movq %rsi, %rsp
	popq %r15; popq %r14; popq %r13; popq %r12; popq %rbx; popq %rbp
	ret
.size emu_switch,.-emu_switch
)");
static const int returnAt = 6; // the word that holds where to go on
#elif defined(__aarch64__)
asm(R"(
.text
.globl emu_switch
.type emu_switch,%function
emu_switch:
	sub sp, sp, #160
	stp x19, x20, [sp, #0]; stp x21, x22, [sp, #16]; stp x23, x24, [sp, #32]; stp x25, x26, [sp, #48]
	stp x27, x28, [sp, #64]; stp x29, x30, [sp, #80]
	stp d8, d9, [sp, #96]; stp d10, d11, [sp, #112]; stp d12, d13, [sp, #128]; stp d14, d15, [sp, #144]
	mov x9, sp; str x9, [x0]; mov sp, x1
	ldp x19, x20, [sp, #0]; ldp x21, x22, [sp, #16]; ldp x23, x24, [sp, #32]; ldp x25, x26, [sp, #48]
	ldp x27, x28, [sp, #64]; ldp x29, x30, [sp, #80]
	ldp d8, d9, [sp, #96]; ldp d10, d11, [sp, #112]; ldp d12, d13, [sp, #128]; ldp d14, d15, [sp, #144]
	add sp, sp, #160
	ret
)");
static const int returnAt = 11;
#else
#error "the emulation has no fibers for this processor"
#endif

namespace emu {
static const size_t stackBytes = 64 << 10;
static sigjmp_buf unwind;
static thread_local bool running;
static const char *reason;

[[noreturn]] void fault(const char *what) {
	reason = what;
	siglongjmp(unwind, 1);
}

static void entry() {
	body(bodyArg);
	cur->done = true;
	blk.w[cur->warp].alive--;
	blk.alive--;
	release_block();
	yield();
	abort(); // a fiber that is done is never resumed
}

// prepare makes a stack that looks as if entry had just called emu_switch.
static void *prepare(char *stack) {
	// A multiple of 16 here is the alignment that a called function expects there.
	u64 *top = (u64 *)(((uintptr_t)stack + stackBytes - 512) & ~(uintptr_t)15);
	memset(top, 0, 512 - 16);
	top[returnAt] = (u64)entry;
	return top;
}

static void run_block(std::vector<char *> &stacks, int n, dim3 b) {
	blk.f.assign(n, Fiber{});
	blk.w.assign((n + 31) / 32, Warp{});
	blk.arrived = 0, blk.alive = n;
	memset(smem, 0xff, smemBytes); // NaNs, to show reads of what nobody wrote
	for (int i = 0; i < n; i++) {
		Fiber &f = blk.f[i];
		f.tid = {i % b.x, i / b.x % b.y, i / (b.x * b.y)};
		f.lane = i % 32, f.warp = i / 32;
		blk.w[f.warp].alive++;
		f.sp = prepare(stacks[i]);
	}
	for (int left = n; left;) {
		bool ran = false;
		for (auto &f : blk.f) {
			if (f.done || f.wait) continue;
			ran = true, cur = &f;
			emu_switch(&sched, f.sp);
			if (f.done) left--;
		}
		if (!ran && left) fault("deadlock: a barrier that not all threads reach");
	}
}

static struct sigaction before[2];

static void on_signal(int sig, siginfo_t *info, void *ctx) {
	if (running) {
		reason = sig == SIGBUS ? "bus error" : "access outside device memory";
		siglongjmp(unwind, 1);
	}
	// Another thread's: hand it to whoever was there before us.
	struct sigaction &old = before[sig == SIGBUS];
	if (old.sa_flags & SA_SIGINFO) old.sa_sigaction(sig, info, ctx);
	else if (old.sa_handler != SIG_DFL && old.sa_handler != SIG_IGN) old.sa_handler(sig);
	else { signal(sig, SIG_DFL); raise(sig); }
}

const char *run(const Kernel &k, dim3 g, dim3 b, size_t shared, void *args) {
	static std::vector<char *> stacks;
	int n = b.x * b.y * b.z;
	while ((int)stacks.size() < n) stacks.push_back((char *)malloc(stackBytes));
	gdim = g, bdim = b, body = k.run, bodyArg = args, smemBytes = shared;
	struct sigaction act = {};
	act.sa_sigaction = on_signal, act.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
	sigaction(SIGSEGV, &act, &before[0]), sigaction(SIGBUS, &act, &before[1]);
	reason = nullptr;
	running = true;
	if (sigsetjmp(unwind, 1) == 0)
		for (unsigned z = 0; z < g.z; z++) for (unsigned y = 0; y < g.y; y++) for (unsigned x = 0; x < g.x; x++) {
			bid = {x, y, z};
			run_block(stacks, n, b);
		}
	running = false;
	sigaction(SIGSEGV, &before[0], nullptr), sigaction(SIGBUS, &before[1], nullptr);
	return reason;
}
} // namespace emu
