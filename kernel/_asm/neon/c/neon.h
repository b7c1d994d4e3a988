// What the NEON kernels share. The generator puts declarations of the arguments
// before this file; KERNEL(f) defines f, whose arguments are a->….
#ifndef NEON_H
#define NEON_H

#include <arm_neon.h>
#include <stdint.h>

#define GLUE2(a, b) a##b
#define GLUE(a, b) GLUE2(a, b)
#define KERNEL(name) __attribute__((preserve_none)) void GLUE(name, LEVEL)(struct name##_args *restrict a)

// Helpers vanish in their callers: a call has no place in a leaf function.
#define INLINE static inline __attribute__((always_inline))

// Loops over rows, tokens and lanes have constant bounds; unrolled, their arrays
// are registers.
#define UNROLL _Pragma("clang loop unroll(full)")

// BARRIER keeps loads on their side: what is loaded once for several uses occupies
// its register in between.
#define BARRIER __asm__ volatile("" ::: "memory")

// OPAQUE makes the compiler forget how p was computed: it would compute each address
// that a loop needs before the loop, more than there are registers for.
#define OPAQUE(p) __asm__("" : "+r"(p))

enum { CHUNK = 256 }; // columns of a chunk of activations

// half reads a binary16 at any address.
INLINE float half(const uint8_t *p) {
	struct __attribute__((packed)) { __fp16 h; } const *v = (const void *)p;
	return v->h;
}

// word reads a little-endian number at any address.
INLINE uint32_t word(const uint8_t *p) {
	struct __attribute__((packed)) { uint32_t v; } const *v = (const void *)p;
	return v->v;
}

INLINE float32x4_t to_f32(int32x4_t v) { return vcvtq_f32_s32(v); }

#endif
