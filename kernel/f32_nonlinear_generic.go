package kernel

import "math"

const maxFloat32 = math.MaxFloat32

func rmsNormGeneric(dst, x, weight []float32, eps float32) {
	x, weight = x[:len(dst)], weight[:len(dst)]
	var sum float64
	for _, v := range x {
		sum += float64(v) * float64(v)
	}
	scale := rmsScale(sum, len(x), eps)
	for i := range dst {
		dst[i] = x[i] * scale * weight[i]
	}
}

// rmsScale is 1/√(sum/n + eps), rounded once to float32.
func rmsScale(sum float64, n int, eps float32) float32 {
	return float32(1 / math.Sqrt(sum/float64(n)+float64(eps)))
}

func siluMulGeneric(dst, gate, up []float32) {
	gate, up = gate[:len(dst)], up[:len(dst)]
	for i := range dst {
		g := float64(gate[i])
		dst[i] = float32(g/(1+math.Exp(-g))) * up[i]
	}
}

// Constants of the tanh approximation of GELU.
const (
	geluSqrt2OverPi = 0.79788456080286535587989211986876
	geluCubic       = 0.044715
)

func geluMulGeneric(dst, gate, up []float32) {
	gate, up = gate[:len(dst)], up[:len(dst)]
	for i := range dst {
		g := float64(gate[i])
		t := math.Tanh(geluSqrt2OverPi * (g + geluCubic*g*g*g))
		dst[i] = float32(0.5*g*(1+t)) * up[i]
	}
}

// maxGeneric returns the largest element, ignoring NaN, or -Inf if there is none.
func maxGeneric(x []float32) float32 {
	m := float32(math.Inf(-1))
	for _, v := range x {
		if v > m {
			m = v
		}
	}
	return m
}

// expSubGeneric sets x[i] = exp(x[i] - m) and returns the sum of the results.
func expSubGeneric(x []float32, m float32) float32 {
	var sum float64
	for i, v := range x {
		e := float32(math.Exp(float64(v - m)))
		x[i] = e
		sum += float64(e)
	}
	return float32(sum)
}

// softCapGeneric sets x[i] = cap·tanh(scale·x[i]/cap), or scale·x[i] if cap is 0.
func softCapGeneric(x []float32, scale, limit float32) {
	if limit == 0 {
		for i := range x {
			x[i] *= scale
		}
		return
	}
	for i, v := range x {
		x[i] = limit * float32(math.Tanh(float64(v*scale/limit)))
	}
}

func ropeNeoXGeneric(x, cos, sin []float32) {
	n := len(cos)
	lo, hi := x[:n], x[n:2*n]
	for i, c := range cos {
		a, b, s := lo[i], hi[i], sin[i]
		lo[i] = float32(a*c) - float32(b*s)
		hi[i] = float32(a*s) + float32(b*c)
	}
}

func ropeNormGeneric(x, cos, sin []float32) {
	for i, c := range cos {
		a, b, s := x[2*i], x[2*i+1], sin[i]
		x[2*i] = float32(a*c) - float32(b*s)
		x[2*i+1] = float32(a*s) + float32(b*c)
	}
}
