package kernel

var (
	slotRMSNorm  = newSlot("f32/rmsnorm", rmsNormGeneric)
	slotSiLUMul  = newSlot("f32/silu-mul", siluMulGeneric)
	slotGELUMul  = newSlot("f32/gelu-mul", geluMulGeneric)
	slotMax      = newSlot("f32/max", maxGeneric)
	slotExpSub   = newSlot("f32/exp-sub", expSubGeneric)
	slotSoftCap  = newSlot("f32/softcap", softCapGeneric)
	slotRopeNeoX = newSlot("f32/rope-neox", ropeNeoXGeneric)
	slotRopeNorm = newSlot("f32/rope-norm", ropeNormGeneric)
)

// RMSNorm sets dst[i] = x[i] / √(mean(x²) + eps) · weight[i]. The squares are
// summed in float64, so the result is the correctly rounded one to within two
// roundings. dst may be x.
func RMSNorm(dst, x, weight []float32, eps float32) {
	mustLen(min(len(x), len(weight)), len(dst))
	slotRMSNorm.active(dst, x, weight, eps)
}

// SiLUMul sets dst[i] = gate[i] / (1 + exp(-gate[i])) · up[i], the gate of a
// SwiGLU feed-forward. dst may be gate or up.
func SiLUMul(dst, gate, up []float32) {
	mustLen(min(len(gate), len(up)), len(dst))
	slotSiLUMul.active(dst, gate, up)
}

// GELUMul sets dst[i] = gelu(gate[i])·up[i] with the tanh approximation that
// gemma uses: gelu(x) = x/2·(1 + tanh(√(2/π)·(x + 0.044715·x³))) (Hendrycks and
// Gimpel, arXiv:1606.08415). dst may be gate or up.
func GELUMul(dst, gate, up []float32) {
	mustLen(min(len(gate), len(up)), len(dst))
	slotGELUMul.active(dst, gate, up)
}

// ArgMax returns the index of the largest element, the lowest among equals; 0 for
// an empty slice. NaNs are passed over.
func ArgMax(x []float32) int {
	const block = 1024 // its maximum costs a fraction of looking for the place
	best, top := 0, float32(0)
	for start := 0; start < len(x); start += block {
		part := x[start:min(start+block, len(x))]
		if m := slotMax.active(part); start == 0 || m > top {
			best, top = start, m
		}
	}
	for i := best; i < min(best+block, len(x)); i++ {
		if x[i] == top {
			return i
		}
	}
	return best
}

// Finite reports whether no element is NaN or infinite.
func Finite(x []float32) bool {
	for len(x) > 0 {
		n := min(len(x), len(zeros))
		// A product with zero is zero, or NaN for what is not finite.
		if s := slotDotF32.active(x[:n], zeros[:n]); s != 0 {
			return false
		}
		x = x[n:]
	}
	return true
}

var zeros [4096]float32

// Softmax replaces x by exp(x - max) / Σ exp(x - max). Entries of -Inf (masked)
// become 0; if all are, the result is all zeros, not NaN. A NaN or +Inf
// anywhere makes every entry NaN.
func Softmax(x []float32) {
	if len(x) == 0 {
		return
	}
	sum := slotExpSub.active(x, finiteMax(slotMax.active(x)))
	if sum == 0 {
		return // all masked: every exp is 0 already
	}
	slotScale.active(x, x, float32(1/float64(sum)))
}

// finiteMax keeps the maximum usable as a subtrahend when everything is masked:
// exp(-Inf - 0) is 0 where exp(-Inf - -Inf) would be NaN.
func finiteMax(m float32) float32 {
	if m < -maxFloat32 {
		return 0
	}
	return m
}

// RopeNeoX rotates one head in place, pairing element i with element i+n for i
// in [0,n), n = len(cos), as GPT-NeoX and qwen do. Elements from 2n on stay.
func RopeNeoX(x, cos, sin []float32) {
	mustLen(len(x), 2*len(cos))
	mustLen(len(sin), len(cos))
	slotRopeNeoX.active(x, cos, sin)
}

// RopeNorm rotates one head in place, pairing element 2i with 2i+1 for i in
// [0,n), n = len(cos), as llama's GGUF files do. Elements from 2n on stay.
func RopeNorm(x, cos, sin []float32) {
	mustLen(len(x), 2*len(cos))
	mustLen(len(sin), len(cos))
	slotRopeNorm.active(x, cos, sin)
}
