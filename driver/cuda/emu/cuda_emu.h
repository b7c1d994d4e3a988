// cuda_emu.h: a stand-in for the kernels' side of CUDA on an x86-64 or arm64 host.
// One block at a time; each CUDA thread is a fiber; warps and blocks meet at
// barriers. Slow, and exact enough to test kernels with: a misaligned vector
// load, a barrier that not all threads reach, and an access outside device memory
// fail here as they would on a GPU. Included by cudalite.h with -DCUDA_EMU.
#pragma once
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <map>
#include <string>
#include <utility>
#include <vector>

struct uint3 { unsigned x, y, z; };
struct dim3 { unsigned x, y, z; };
struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(8) uint2 { u32 x, y; };
struct alignas(16) uint4 { u32 x, y, z, w; };
struct alignas(16) int4 { int x, y, z, w; };

namespace emu {
// A fiber is a saved stack pointer. Registers that calls preserve are on its stack.
struct Fiber { void *sp; uint3 tid; int lane, warp, wait; u32 turn; bool done; };
// What lanes show each other lies in two sets that take turns: a lane can be one
// collective ahead of the others but not two, so one barrier does for each.
struct Warp { int arrived, alive; u32 slot[2][32], a[2][32][8], b[2][32][4]; };
struct Block { std::vector<Fiber> f; std::vector<Warp> w; int arrived, alive; };
inline Block blk;
inline Fiber *cur;
inline void *sched;
inline uint3 bid;
inline dim3 gdim, bdim;
inline size_t smemBytes;
alignas(1024) inline u8 smem[256 << 10];
inline void (*body)(void *);
inline void *bodyArg;

// fault ends the kernel that runs: on a GPU its context would be lost.
[[noreturn]] void fault(const char *what);

extern "C" void emu_switch(void **from, void *to);
inline void yield() { emu_switch(&cur->sp, sched); }

// warp_sync is a barrier of one warp; every lane must come, also those whose
// threads have nothing to do. The last one calls f.
template <class F> void warp_sync(F last) {
	Warp &w = blk.w[cur->warp];
	if (w.alive != 32) fault("warp collective after some lanes have left");
	if (++w.arrived == 32) {
		w.arrived = 0;
		last();
		Fiber *f = &blk.f[cur->warp * 32];
		for (int i = 0; i < 32; i++) f[i].wait = 0;
		return;
	}
	cur->wait = 2;
	yield();
}
inline void warp_sync() { warp_sync([] {}); }
inline void release_block() {
	if (blk.alive && blk.arrived == blk.alive) {
		blk.arrived = 0;
		for (auto &f : blk.f) if (f.wait == 1) f.wait = 0;
	}
}
inline void block_sync() {
	blk.arrived++;
	cur->wait = 1;
	release_block();
	if (cur->wait) yield();
}

// Kernels register themselves by name; see KERNEL below.
struct Kernel { void (*run)(void *args); std::string types; };
inline std::map<std::string, Kernel> &kernels() { static std::map<std::string, Kernel> m; return m; }
template <class T> char type_of() { return std::is_pointer<T>::value ? 'p' : std::is_same<T, float>::value ? 'f' : sizeof(T) == 8 ? 'l' : 'i'; }
template <auto F> struct Thunk;
template <class... A, void (*F)(A...)> struct Thunk<F> {
	static void run(void *v) { call((const u64 *)v, std::index_sequence_for<A...>{}); }
	template <size_t... I> static void call(const u64 *a, std::index_sequence<I...>) { F(get<A>(a[I])...); }
	template <class T> static T get(const u64 &v) { T t; memcpy(&t, &v, sizeof t); return t; }
};
template <auto F> struct Register;
template <class... A, void (*F)(A...)> struct Register<F> {
	explicit Register(const char *name) {
		if (kernels().count(name)) { fprintf(stderr, "emu: two kernels are called %s\n", name); abort(); }
		kernels()[name] = {Thunk<F>::run, std::string{type_of<A>()...}};
	}
};
inline float h(u16 b) { _Float16 x; memcpy(&x, &b, 2); return (float)x; }
} // namespace emu

#define __device__
#define __host__
#define __global__
#define __constant__
#define __shared__ static
#define __forceinline__ inline
#define __launch_bounds__(...)
#define DEV static inline
#define KERNEL(name, threads, ...)                                                                 \
	extern "C" void name(__VA_ARGS__);                                                             \
	static emu::Register<name> emu_register_##name(#name);                                         \
	extern "C" void name(__VA_ARGS__)
#define KERNEL_MIN(name, threads, blocks, ...) KERNEL(name, threads, __VA_ARGS__)
#define threadIdx (emu::cur->tid)
#define blockIdx (emu::bid)
#define blockDim (emu::bdim)
#define gridDim (emu::gdim)
#define SHARED_DYN(name) u8 *name = emu::smem

DEV void __syncthreads() { emu::block_sync(); }
DEV void syncwarp() { emu::warp_sync(); }
DEV void __threadfence() {}

// ---- conversions and arithmetic ----
DEV float h2f(u16 v) { return emu::h(v); }
DEV u16 f2h(float f) { _Float16 x = (_Float16)f; u16 b; memcpy(&b, &x, 2); return b; }
DEV float u2f_bits(u32 u) { float f; memcpy(&f, &u, 4); return f; }
DEV u32 f2u_bits(float f) { u32 u; memcpy(&u, &f, 4); return u; }
DEV float bf2f(u16 b) { return u2f_bits((u32)b << 16); }
DEV u16 f2bf(float f) {
	u32 u = f2u_bits(f);
	if (f != f) return 0x7fff;
	return (u16)((u + 0x7fff + (u >> 16 & 1)) >> 16);
}
DEV int f2i_rn(float f) { return (int)lrintf(f); }
DEV u32 f2h2(float lo, float hi) { return (u32)f2h(lo) | (u32)f2h(hi) << 16; }
DEV float cl_exp2(float x) { return exp2f(x); }
DEV float cl_exp(float x) { return expf(x); }
DEV float cl_lg2(float x) { return log2f(x); }
DEV float cl_sin(float x) { return sinf(x); }
DEV float cl_cos(float x) { return cosf(x); }
DEV float cl_rint(float x) { return rintf(x); }
DEV float cl_tanh(float x) { return tanhf(x); }
DEV float cl_rsqrt(float x) { return 1.f / sqrtf(x); }
DEV float cl_sqrt(float x) { return sqrtf(x); }
DEV float cl_fabs(float x) { return fabsf(x); }
DEV float cl_fmax(float a, float b) { return a > b || b != b ? a : b; }
DEV float cl_fmax_nan(float a, float b) { return a != a ? a : b != b ? b : cl_fmax(a, b); }
DEV float cl_fma(float a, float b, float c) { return fmaf(a, b, c); }
DEV u32 prmt(u32 a, u32 b, u32 sel) {
	u64 v = (u64)b << 32 | a;
	u32 r = 0;
	for (int i = 0; i < 4; i++) {
		u32 s = sel >> (4 * i) & 15, x = (u32)(v >> (8 * (s & 7))) & 255;
		if (s & 8) x = x & 128 ? 255 : 0;
		r |= x << (8 * i);
	}
	return r;
}
DEV u32 rotate(u32 v, int n) { return v >> (n & 31) | v << (-n & 31); }
DEV int dp4a(u32 a, u32 b, int c) {
	for (int i = 0; i < 4; i++) c += (int)(u8)(a >> (8 * i)) * (int)(int8_t)(b >> (8 * i));
	return c;
}
DEV int dp4a_ss(u32 a, u32 b, int c) {
	for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> (8 * i)) * (int)(int8_t)(b >> (8 * i));
	return c;
}
DEV int dp4a_uu(u32 a, u32 b, int c) {
	for (int i = 0; i < 4; i++) c += (int)(u8)(a >> (8 * i)) * (int)(u8)(b >> (8 * i));
	return c;
}
DEV int dp4a_su(u32 a, u32 b, int c) {
	for (int i = 0; i < 4; i++) c += (int)(int8_t)(a >> (8 * i)) * (int)(u8)(b >> (8 * i));
	return c;
}
DEV u32 emu_h2(u32 a, u32 b, u32 c, bool mul) {
	u32 r = 0;
	for (int s = 0; s < 32; s += 16) {
		double x = emu::h((u16)(a >> s)), y = emu::h((u16)(b >> s)), z = emu::h((u16)(c >> s));
		r |= (u32)f2h((float)(mul ? x * y + z : x + z)) << s;
	}
	return r;
}
DEV u32 hfma2(u32 a, u32 b, u32 c) { return emu_h2(a, b, c, true); }
DEV u32 hmul2(u32 a, u32 b) { return emu_h2(a, b, 0, true); }
DEV u32 hadd2(u32 a, u32 b) { return emu_h2(a, a, b, false); }

// ---- warps ----
DEV u32 emu_exchange(u32 v, int from) {
	u32 *slot = emu::blk.w[emu::cur->warp].slot[emu::cur->turn++ & 1];
	slot[emu::cur->lane] = v;
	emu::warp_sync();
	return slot[from & 31];
}
DEV float shfl_xor(float v, int m) { return u2f_bits(emu_exchange(f2u_bits(v), emu::cur->lane ^ m)); }
DEV float shfl(float v, int src) { return u2f_bits(emu_exchange(f2u_bits(v), src)); }
DEV int shfl_xor_i(int v, int m) { return (int)emu_exchange((u32)v, emu::cur->lane ^ m); }
// The butterfly in one exchange, by the last lane for all, in the order that each
// would add.
template <class F> float emu_butterfly(float v, F op) {
	float *slot = (float *)emu::blk.w[emu::cur->warp].slot[emu::cur->turn++ & 1];
	int l = emu::cur->lane;
	slot[l] = v;
	emu::warp_sync([slot, op] {
		for (int m = 16; m; m >>= 1) {
			float n[32];
			for (int i = 0; i < 32; i++) n[i] = op(slot[i], slot[i ^ m]);
			memcpy(slot, n, sizeof n);
		}
	});
	return slot[l];
}
DEV float warp_sum(float v) { return emu_butterfly(v, [](float a, float b) { return a + b; }); }
DEV float warp_max(float v) { return emu_butterfly(v, [](float a, float b) { return a > b || b != b ? a : b; }); }

// ---- memory ----
template <class T> T emu_ld(const void *p) {
	if ((uintptr_t)p % sizeof(T)) emu::fault("misaligned load");
	T v;
	memcpy(&v, p, sizeof v);
	return v;
}
DEV uint4 ldg128(const void *p) { return emu_ld<uint4>(p); }
DEV uint4 ldg128_na(const void *p) { return emu_ld<uint4>(p); }
DEV float4 ldgf4(const void *p) { return emu_ld<float4>(p); }
DEV float2 ldgf2(const void *p) { return emu_ld<float2>(p); }
DEV uint4 ld_stream128(const void *p) { return emu_ld<uint4>(p); }
DEV uint2 ld_stream64(const void *p) { return emu_ld<uint2>(p); }
DEV u32 ld_stream32(const void *p) { return emu_ld<u32>(p); }
DEV u32 ld_stream16(const void *p) { return emu_ld<u16>(p); }
DEV void ld_stream128_if(uint4 &v, const void *p, bool c) { if (c) v = emu_ld<uint4>(p); }
DEV void ld_keep128_if(uint4 &v, const void *p, bool c) { if (c) v = emu_ld<uint4>(p); }
DEV void ld_stream64_if(uint2 &v, const void *p, bool c) { if (c) v = emu_ld<uint2>(p); }
DEV void ld_keep16_if(u32 &v, const void *p, bool c) { if (c) v = emu_ld<u16>(p); }
DEV void prefetch_l2(const void *) {}
DEV void bulk_prefetch_l2(const void *p, u32 bytes) {
	if (((uintptr_t)p | bytes) & 15 || !bytes) emu::fault("misaligned bulk prefetch");
}
DEV u32 smem_u32(const void *p) { return (u32)((u8 *)p - emu::smem); }
DEV void emu_smem_check(u32 at, u32 n) {
	if (at + n > emu::smemBytes) emu::fault("access beyond the dynamic shared memory of the launch");
}
template <class T> void emu_cp_async(u32 dst, const void *src) {
	emu_smem_check(dst, sizeof(T));
	if (dst % sizeof(T)) emu::fault("misaligned cp.async");
	T v = emu_ld<T>(src);
	memcpy(emu::smem + dst, &v, sizeof v);
}
DEV void cp_async16(u32 dst, const void *src) { emu_cp_async<uint4>(dst, src); }
DEV void cp_async8(u32 dst, const void *src) { emu_cp_async<uint2>(dst, src); }
DEV void cp_async4(u32 dst, const void *src) { emu_cp_async<u32>(dst, src); }
DEV void cp_async_commit() {}
template <int N> DEV void cp_async_wait() {}
DEV float2 ld_cg_f2(const void *p) { return emu_ld<float2>(p); }
DEV float4 ld_cg_f4(const void *p) { return emu_ld<float4>(p); }
DEV u32 atomic_add_u32(u32 *p, u32 v) { u32 old = *p; *p += v; return old; }

// ---- tensor cores ----
DEV void ldmatrix_x4(u32 &a, u32 &b, u32 &c, u32 &d, u32 addr) {
	u32 *slot = emu::blk.w[emu::cur->warp].slot[emu::cur->turn++ & 1];
	int l = emu::cur->lane;
	emu_smem_check(addr, 16);
	slot[l] = addr;
	emu::warp_sync();
	u32 *o[4] = {&a, &b, &c, &d};
	for (int i = 0; i < 4; i++) memcpy(o[i], emu::smem + slot[8 * i + l / 4] + (l % 4) * 4, 4);
	emu::warp_sync();
}
DEV void ldmatrix_x4_trans(u32 &a, u32 &b, u32 &c, u32 &d, u32 addr) {
	u32 *slot = emu::blk.w[emu::cur->warp].slot[emu::cur->turn++ & 1];
	int l = emu::cur->lane;
	emu_smem_check(addr, 16);
	slot[l] = addr;
	emu::warp_sync();
	u32 *o[4] = {&a, &b, &c, &d};
	for (int i = 0; i < 4; i++) {
		u16 h[2];
		for (int j = 0; j < 2; j++) memcpy(&h[j], emu::smem + slot[8 * i + (l % 4) * 2 + j] + (l / 4) * 2, 2);
		*o[i] = (u32)h[0] | (u32)h[1] << 16;
	}
	emu::warp_sync();
}
// m16n8k16, row times column, f16 with float32 sums
DEV void mma_16816(float *c, const u32 *a, const u32 *b) {
	emu::Warp &w = emu::blk.w[emu::cur->warp];
	int turn = emu::cur->turn++ & 1, l = emu::cur->lane, g = l / 4, t = l % 4;
	auto wa = w.a[turn];
	auto wb = w.b[turn];
	memcpy(wa[l], a, 16), memcpy(wb[l], b, 8);
	emu::warp_sync();
	for (int e = 0; e < 4; e++) {
		int row = g + (e >> 1) * 8, n = t * 2 + (e & 1);
		float s = c[e];
		for (int k = 0; k < 16; k++) {
			u32 av = wa[(row % 8) * 4 + (k % 8) / 2][row / 8 + 2 * (k / 8)], bv = wb[n * 4 + (k % 8) / 2][k / 8];
			s += emu::h((u16)(av >> (16 * (k & 1)))) * emu::h((u16)(bv >> (16 * (k & 1))));
		}
		c[e] = s;
	}
}
// m16n8k32, row times column, bytes with int32 sums
template <class A, class B> void emu_mma_16832(int *c, const u32 *a, const u32 *b) {
	emu::Warp &w = emu::blk.w[emu::cur->warp];
	int turn = emu::cur->turn++ & 1, l = emu::cur->lane, g = l / 4, t = l % 4;
	auto wa = w.a[turn];
	auto wb = w.b[turn];
	memcpy(wa[l], a, 16), memcpy(wb[l], b, 8);
	emu::warp_sync();
	for (int e = 0; e < 4; e++) {
		int row = g + (e >> 1) * 8, n = t * 2 + (e & 1), s = c[e];
		for (int k = 0; k < 32; k++) {
			u32 av = wa[(row % 8) * 4 + (k % 16) / 4][row / 8 + 2 * (k / 16)], bv = wb[n * 4 + (k % 16) / 4][k / 16];
			s += (int)(A)(av >> (8 * (k & 3))) * (int)(B)(bv >> (8 * (k & 3)));
		}
		c[e] = s;
	}
}
DEV void mma_16832_uu(int *c, const u32 *a, const u32 *b) { emu_mma_16832<u8, u8>(c, a, b); }
DEV void mma_16832_us(int *c, const u32 *a, const u32 *b) { emu_mma_16832<u8, int8_t>(c, a, b); }
DEV void mma_16832_su(int *c, const u32 *a, const u32 *b) { emu_mma_16832<int8_t, u8>(c, a, b); }
DEV void mma_16832_ss(int *c, const u32 *a, const u32 *b) { emu_mma_16832<int8_t, int8_t>(c, a, b); }

// ---- bulk copies: done at once, so barriers have nothing to wait for ----
DEV void mbar_init(u32, u32) {}
DEV void mbar_expect(u32, u32) {}
DEV void mbar_wait(u32, u32) { emu::warp_sync(); }
DEV void bulk_g2s(u32 dst, const void *src, u32 bytes, u32) {
	emu_smem_check(dst, bytes);
	if (((uintptr_t)src | bytes | dst) & 15) emu::fault("misaligned bulk copy");
	memcpy(emu::smem + dst, src, bytes);
}
DEV void fence_async_smem() {}

// ---- programmatic dependent launch: kernels run one after the other here ----
DEV void pdl_wait() {}
DEV void pdl_launch() {}
