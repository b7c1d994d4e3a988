// cudalite.h: the little of CUDA C++ that our kernels need, in three dresses:
//   1. clang -x cuda --cuda-device-only -nocudainc -nocudalib   (no CUDA SDK)
//   2. nvcc                                                     (for comparison)
//   3. -DCUDA_EMU with a host C++ compiler                      (CPU emulation, tests)
// Everything that is an instruction rather than C++ is wrapped here, so that
// the kernels themselves hold no inline PTX; each wrapper has a counterpart in
// driver/cuda/emu/cuda_emu.h.
//
// A kernel is written as
//
//	KERNEL(name, 256, const float *x, float *y, int n) { ... }
//
// where 256 is the most threads of a block. Its name is the name of the PTX entry
// and the name that the emulation finds it by, so it must be unique among all .cu
// files. Arguments are pointers, u64, u32, int and float.
#pragma once

typedef unsigned char u8;
typedef unsigned short u16;
typedef unsigned int u32;
typedef unsigned long long u64;

// A lambda called twice is else a real function call in clang's PTX, its register
// arguments in local memory.
#if defined(__clang__) && !defined(__NVCC__)
#define INLINE_LAMBDA __attribute__((always_inline))
#else
#define INLINE_LAMBDA
#endif

#if defined(CUDA_EMU)

#include "cuda_emu.h"

#else

#if !defined(__NVCC__) // clang without an SDK
#define __host__ __attribute__((host))
#define __device__ __attribute__((device))
#define __global__ __attribute__((global))
#define __shared__ __attribute__((shared))
#define __constant__ __attribute__((constant))
#define __forceinline__ __inline__ __attribute__((always_inline))
#define __launch_bounds__(...) __attribute__((launch_bounds(__VA_ARGS__)))
typedef __SIZE_TYPE__ size_t;
struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
#include <__clang_cuda_builtin_vars.h> // threadIdx & co.; part of clang itself
struct __attribute__((aligned(8))) float2 { float x, y; };
struct __attribute__((aligned(16))) float4 { float x, y, z, w; };
struct __attribute__((aligned(8))) uint2 { u32 x, y; };
struct __attribute__((aligned(16))) uint4 { u32 x, y, z, w; };
struct __attribute__((aligned(16))) int4 { int x, y, z, w; };
#endif

#define DEV static __device__ __forceinline__
#define KERNEL(name, threads, ...) extern "C" __global__ __launch_bounds__(threads) void name(__VA_ARGS__)
// The same with the least number of blocks that must fit on a multiprocessor.
#define KERNEL_MIN(name, threads, blocks, ...) extern "C" __global__ __launch_bounds__(threads, blocks) void name(__VA_ARGS__)

// ---- conversions (raw bits in, so that no half type is needed) ----
DEV float h2f(u16 h) { float f; asm("cvt.f32.f16 %0, %1;" : "=f"(f) : "h"(h)); return f; }
DEV u16 f2h(float f) { u16 h; asm("cvt.rn.f16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; }
DEV float u2f_bits(u32 u) { float f; asm("mov.b32 %0, %1;" : "=f"(f) : "r"(u)); return f; }
DEV u32 f2u_bits(float f) { u32 u; asm("mov.b32 %0, %1;" : "=r"(u) : "f"(f)); return u; }
DEV float bf2f(u16 b) { return u2f_bits((u32)b << 16); }
DEV u16 f2bf(float f) { u16 h; asm("cvt.rn.bf16.f32 %0, %1;" : "=h"(h) : "f"(f)); return h; } // sm_80
DEV int f2i_rn(float f) { int i; asm("cvt.rni.s32.f32 %0, %1;" : "=r"(i) : "f"(f)); return i; }
// two floats to packed f16x2, lo in the low half
DEV u32 f2h2(float lo, float hi) { u32 r; asm("cvt.rn.f16x2.f32 %0, %1, %2;" : "=r"(r) : "f"(hi), "f"(lo)); return r; } // sm_80

// ---- math without libdevice ----
DEV float cl_exp2(float x) { float r; asm("ex2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_exp(float x) { return cl_exp2(x * 1.4426950408889634f); }
DEV float cl_rsqrt(float x) { float r; asm("rsqrt.approx.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_sqrt(float x) { float r; asm("sqrt.rn.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_fabs(float x) { float r; asm("abs.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
// NaN if either is: a maximum that hides no NaN (sm_80)
DEV float cl_fmax_nan(float a, float b) { float r; asm("max.NaN.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
DEV float cl_fmax(float a, float b) { float r; asm("max.f32 %0, %1, %2;" : "=f"(r) : "f"(a), "f"(b)); return r; }
DEV float cl_lg2(float x) { float r; asm("lg2.approx.ftz.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_sin(float x) { float r; asm("sin.approx.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_cos(float x) { float r; asm("cos.approx.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
DEV float cl_rint(float x) { float r; asm("cvt.rni.f32.f32 %0, %1;" : "=f"(r) : "f"(x)); return r; }
// tanh by way of exp: tanh.approx has only 11 bits.
DEV float cl_tanh(float x) {
	float e = cl_exp(-2.f * cl_fabs(x)), t = (1.f - e) / (1.f + e);
	return x < 0 ? -t : t;
}
DEV float cl_fma(float a, float b, float c) { float r; asm("fma.rn.f32 %0, %1, %2, %3;" : "=f"(r) : "f"(a), "f"(b), "f"(c)); return r; }

// ---- bytes ----
DEV u32 prmt(u32 a, u32 b, u32 sel) { u32 r; asm("prmt.b32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(sel)); return r; }
// to the right, by n modulo 32
DEV u32 rotate(u32 v, int n) { u32 r; asm("shf.r.wrap.b32 %0, %1, %1, %2;" : "=r"(r) : "r"(v), "r"(n)); return r; }
DEV int dp4a(u32 a, u32 b, int c) { int r; asm("dp4a.u32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; } // a unsigned, b signed; sm_61
DEV int dp4a_ss(u32 a, u32 b, int c) { int r; asm("dp4a.s32.s32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEV int dp4a_uu(u32 a, u32 b, int c) { int r; asm("dp4a.u32.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEV int dp4a_su(u32 a, u32 b, int c) { int r; asm("dp4a.s32.u32 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; } // a signed, b unsigned

// ---- warp ----
DEV float shfl_xor(float v, int m) { u32 r; asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(f2u_bits(v)), "r"(m)); return u2f_bits(r); }
DEV float warp_sum(float v) {
#pragma unroll
	for (int m = 16; m; m >>= 1) v += shfl_xor(v, m);
	return v;
}

DEV float warp_max(float v) {
#pragma unroll
	for (int m = 16; m; m >>= 1) v = cl_fmax(v, shfl_xor(v, m));
	return v;
}
// the value of lane src
DEV float shfl(float v, int src) { u32 r; asm volatile("shfl.sync.idx.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"(f2u_bits(v)), "r"(src)); return u2f_bits(r); }
DEV int shfl_xor_i(int v, int m) { u32 r; asm volatile("shfl.sync.bfly.b32 %0, %1, %2, 31, 0xffffffff;" : "=r"(r) : "r"((u32)v), "r"(m)); return (int)r; }

DEV void syncwarp() { asm volatile("bar.warp.sync 0xffffffff;" ::: "memory"); }

// ---- packed halves ----
DEV u32 hfma2(u32 a, u32 b, u32 c) { u32 r; asm("fma.rn.f16x2 %0, %1, %2, %3;" : "=r"(r) : "r"(a), "r"(b), "r"(c)); return r; }
DEV u32 hmul2(u32 a, u32 b) { u32 r; asm("mul.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b)); return r; }
DEV u32 hadd2(u32 a, u32 b) { u32 r; asm("add.rn.f16x2 %0, %1, %2;" : "=r"(r) : "r"(a), "r"(b)); return r; }

// ---- memory ----
// read-only path, 16 bytes
DEV uint4 ldg128(const void *p) { uint4 v; asm("ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p)); return v; }
// the same, not kept in L1 (PTX 7.4, sm_70)
DEV uint4 ldg128_na(const void *p) { uint4 v; asm("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p)); return v; }
DEV float4 ldgf4(const void *p) { float4 v; asm("ld.global.nc.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p)); return v; }
DEV float2 ldgf2(const void *p) { float2 v; asm("ld.global.nc.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p)); return v; }

// Weights that are read once: not kept in L1, and never moved by the compiler, so
// that those before pdl_wait stay there.
DEV uint4 ld_stream128(const void *p) { uint4 v; asm volatile("ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4];" : "=r"(v.x), "=r"(v.y), "=r"(v.z), "=r"(v.w) : "l"(p)); return v; }
DEV uint2 ld_stream64(const void *p) { uint2 v; asm volatile("ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2];" : "=r"(v.x), "=r"(v.y) : "l"(p)); return v; }
DEV u32 ld_stream32(const void *p) { u32 v; asm volatile("ld.global.nc.L1::no_allocate.u32 %0, [%1];" : "=r"(v) : "l"(p)); return v; }
DEV u32 ld_stream16(const void *p) { u16 v; asm volatile("ld.global.nc.L1::no_allocate.u16 %0, [%1];" : "=h"(v) : "l"(p)); return v; }
// The same if a condition holds; else the old value stays. keep: in L1, for what lanes or
// the next load read again.
DEV void ld_stream128_if(uint4 &v, const void *p, bool c) {
	asm volatile("{ .reg .pred q; setp.ne.u32 q, %5, 0; @q ld.global.nc.L1::no_allocate.v4.u32 {%0,%1,%2,%3}, [%4]; }" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "l"(p), "r"((u32)c));
}
DEV void ld_keep128_if(uint4 &v, const void *p, bool c) {
	asm volatile("{ .reg .pred q; setp.ne.u32 q, %5, 0; @q ld.global.nc.v4.u32 {%0,%1,%2,%3}, [%4]; }" : "+r"(v.x), "+r"(v.y), "+r"(v.z), "+r"(v.w) : "l"(p), "r"((u32)c));
}
DEV void ld_stream64_if(uint2 &v, const void *p, bool c) {
	asm volatile("{ .reg .pred q; setp.ne.u32 q, %3, 0; @q ld.global.nc.L1::no_allocate.v2.u32 {%0,%1}, [%2]; }" : "+r"(v.x), "+r"(v.y) : "l"(p), "r"((u32)c));
}
DEV void ld_keep16_if(u32 &v, const void *p, bool c) {
	asm volatile("{ .reg .pred q; .reg .b16 h; setp.ne.u32 q, %2, 0; cvt.u16.u32 h, %0; @q ld.global.nc.u16 h, [%1]; cvt.u32.u16 %0, h; }" : "+r"(v) : "l"(p), "r"((u32)c));
}
DEV void prefetch_l2(const void *p) { asm volatile("prefetch.global.L2 [%0];" ::"l"(p)); }

// not from L1, which does not see what other blocks write
DEV float2 ld_cg_f2(const void *p) { float2 v; asm volatile("ld.global.cg.v2.f32 {%0,%1}, [%2];" : "=f"(v.x), "=f"(v.y) : "l"(p) : "memory"); return v; }
DEV float4 ld_cg_f4(const void *p) { float4 v; asm volatile("ld.global.cg.v4.f32 {%0,%1,%2,%3}, [%4];" : "=f"(v.x), "=f"(v.y), "=f"(v.z), "=f"(v.w) : "l"(p) : "memory"); return v; }
DEV u32 atomic_add_u32(u32 *p, u32 v) { u32 r; asm volatile("atom.global.add.u32 %0, [%1], %2;" : "=r"(r) : "l"(p), "r"(v) : "memory"); return r; }
DEV void __threadfence() { asm volatile("membar.gl;" ::: "memory"); }

DEV u32 smem_u32(const void *p) { u64 a; asm("cvta.to.shared.u64 %0, %1;" : "=l"(a) : "l"(p)); return (u32)a; }

// ---- cp.async (sm_80) ----
DEV void cp_async16(u32 dst, const void *src) { asm volatile("cp.async.cg.shared.global [%0], [%1], 16;" ::"r"(dst), "l"(src) : "memory"); }
DEV void cp_async8(u32 dst, const void *src) { asm volatile("cp.async.ca.shared.global [%0], [%1], 8;" ::"r"(dst), "l"(src) : "memory"); }
DEV void cp_async4(u32 dst, const void *src) { asm volatile("cp.async.ca.shared.global [%0], [%1], 4;" ::"r"(dst), "l"(src) : "memory"); }
DEV void cp_async_commit() { asm volatile("cp.async.commit_group;" ::: "memory"); }
template <int N> DEV void cp_async_wait() { asm volatile("cp.async.wait_group %0;" ::"n"(N) : "memory"); }

// ---- tensor cores, warp level (sm_75 / sm_80) ----
DEV void ldmatrix_x4(u32 &a, u32 &b, u32 &c, u32 &d, u32 addr) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(addr) : "memory");
}
// the same, each 8×8 matrix transposed
DEV void ldmatrix_x4_trans(u32 &a, u32 &b, u32 &c, u32 &d, u32 addr) {
	asm volatile("ldmatrix.sync.aligned.m8n8.x4.trans.shared.b16 {%0,%1,%2,%3}, [%4];" : "=r"(a), "=r"(b), "=r"(c), "=r"(d) : "r"(addr) : "memory");
}
DEV void mma_16816(float *c, const u32 *a, const u32 *b) {
	asm volatile("mma.sync.aligned.m16n8k16.row.col.f32.f16.f16.f32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
	             : "+f"(c[0]), "+f"(c[1]), "+f"(c[2]), "+f"(c[3])
	             : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}
// m16n8k32, row times column, bytes with int32 sums: A signed or not, B signed or not
#define MMA_16832(name, at, bt)                                                                                                  \
	DEV void name(int *c, const u32 *a, const u32 *b) {                                                                            \
		asm("mma.sync.aligned.m16n8k32.row.col.s32." at "." bt ".s32 {%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"       \
		    : "+r"(c[0]), "+r"(c[1]), "+r"(c[2]), "+r"(c[3])                                                                       \
		    : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));                                                   \
	}
MMA_16832(mma_16832_uu, "u8", "u8")
MMA_16832(mma_16832_us, "u8", "s8")
MMA_16832(mma_16832_su, "s8", "u8")
MMA_16832(mma_16832_ss, "s8", "s8")

// ---- programmatic dependent launch (sm_90): no-ops elsewhere ----
#if __CUDA_ARCH__ >= 900
DEV void pdl_wait() { asm volatile("griddepcontrol.wait;" ::: "memory"); }
DEV void pdl_launch() { asm volatile("griddepcontrol.launch_dependents;" ::: "memory"); }
#else
DEV void pdl_wait() {}
DEV void pdl_launch() {}
#endif

// ---- bulk copies completing on an mbarrier (sm_90, PTX 8.0) ----
DEV void mbar_init(u32 bar, u32 n) { asm volatile("mbarrier.init.shared::cta.b64 [%0], %1;" ::"r"(bar), "r"(n) : "memory"); }
DEV void mbar_expect(u32 bar, u32 bytes) { asm volatile("mbarrier.arrive.expect_tx.shared::cta.b64 _, [%0], %1;" ::"r"(bar), "r"(bytes) : "memory"); }
DEV void mbar_wait(u32 bar, u32 parity) {
	u32 ok;
	do
		asm volatile("{ .reg .pred p; mbarrier.try_wait.parity.shared::cta.b64 p, [%1], %2; selp.u32 %0, 1, 0, p; }" : "=r"(ok) : "r"(bar), "r"(parity) : "memory");
	while (!ok);
}
DEV void bulk_g2s(u32 dst, const void *src, u32 bytes, u32 bar) {
	asm volatile("cp.async.bulk.shared::cluster.global.mbarrier::complete_tx::bytes [%0], [%1], %2, [%3];" ::"r"(dst), "l"(src), "r"(bytes), "r"(bar) : "memory");
}
// asks the L2 cache for bytes (a multiple of 16, at least 16, from a multiple of 16); sm_90
#if __CUDA_ARCH__ >= 900
DEV void bulk_prefetch_l2(const void *p, u32 bytes) { asm volatile("cp.async.bulk.prefetch.L2.global [%0], %1;" ::"l"(p), "r"(bytes) : "memory"); }
#else
DEV void bulk_prefetch_l2(const void *, u32) {}
#endif
DEV void fence_async_smem() { asm volatile("fence.proxy.async.shared::cta;" ::: "memory"); }

#define SHARED_DYN(name) extern __shared__ __attribute__((aligned(1024))) u8 name[]
#endif // !CUDA_EMU
