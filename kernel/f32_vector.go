package kernel

// The kernels on plain float32 vectors. Lengths are those of the first
// argument; a shorter second or third one is a mistake of the caller and panics.

var (
	slotDotF32  = newSlot("f32/dot", dotF32Generic)
	slotAxpyF32 = newSlot("f32/axpy", axpyF32Generic)
	slotDotF16  = newSlot("f16/dot", dotF16Generic)
	slotAxpyF16 = newSlot("f16/axpy", axpyF16Generic)
	slotAdd     = newSlot("f32/add", addGeneric)
	slotMul     = newSlot("f32/mul", mulGeneric)
	slotScale   = newSlot("f32/scale", scaleGeneric)
	slotToF16   = newSlot("f16/from-f32", f32ToF16Generic)
	slotFromF16 = newSlot("f16/to-f32", f16ToF32Generic)
)

// mustLen panics when a vector that a kernel reads or writes is too short: the
// assembly trusts lengths, so the wrapper is the last place to notice.
func mustLen(got, want int) {
	if got < want {
		panic("kernel: vector shorter than its partner")
	}
}

// DotF32 returns Σ a[i]·b[i] in float32 with several accumulators.
func DotF32(a, b []float32) float32 {
	mustLen(len(b), len(a))
	return slotDotF32.active(a, b)
}

// AxpyF32 adds a·x to y: y[i] += a·x[i]. It may round once or twice an element.
func AxpyF32(y []float32, a float32, x []float32) {
	mustLen(len(x), len(y))
	slotAxpyF32.active(y, a, x)
}

// DotF16 returns Σ a[i]·b[i], b in IEEE half precision as the KV cache holds it.
func DotF16(a []float32, b []uint16) float32 {
	mustLen(len(b), len(a))
	return slotDotF16.active(a, b)
}

// AxpyF16 adds a·x to y with x in IEEE half precision.
func AxpyF16(y []float32, a float32, x []uint16) {
	mustLen(len(x), len(y))
	slotAxpyF16.active(y, a, x)
}

// Add sets dst[i] = a[i] + b[i]. dst may be a or b.
func Add(dst, a, b []float32) {
	mustLen(min(len(a), len(b)), len(dst))
	slotAdd.active(dst, a, b)
}

// Mul sets dst[i] = a[i]·b[i]. dst may be a or b.
func Mul(dst, a, b []float32) {
	mustLen(min(len(a), len(b)), len(dst))
	slotMul.active(dst, a, b)
}

// Scale sets dst[i] = s·x[i]. dst may be x.
func Scale(dst, x []float32, s float32) {
	mustLen(len(x), len(dst))
	slotScale.active(dst, x, s)
}

// F32ToF16Slice converts len(src) values to IEEE half precision, to nearest,
// ties to even. Too large becomes infinity; a NaN stays a (quiet) NaN.
func F32ToF16Slice(dst []uint16, src []float32) {
	mustLen(len(dst), len(src))
	slotToF16.active(dst[:len(src)], src)
}

// F16ToF32Slice converts len(src) halves to float32, exactly. Signalling NaNs
// become quiet ones.
func F16ToF32Slice(dst []float32, src []uint16) {
	mustLen(len(dst), len(src))
	slotFromF16.active(dst[:len(src)], src)
}
