package model

import (
	"encoding/binary"
	"math"

	"github.com/apr-engine/apr/tensor"
)

// rope reads the rotary keys. Absent keys have llama.cpp's defaults.
func (r *configReader) rope(headDim, context int) RopeConfig {
	c := RopeConfig{
		Dims:        r.count("rope.dimension_count", headDim, maxWidth),
		Base:        r.float("rope.freq_base", 10000),
		Scaling:     "none",
		Factor:      r.float("rope.scaling.factor", 0),
		OrigContext: r.count("rope.scaling.original_context_length", context, maxContext),
		AttnFactor:  r.float("rope.scaling.attn_factor", 1),
		BetaFast:    r.float("rope.scaling.yarn_beta_fast", 32),
		BetaSlow:    r.float("rope.scaling.yarn_beta_slow", 1),
		LowFreq:     r.float("rope.scaling.low_freq_factor", 1),
		HighFreq:    r.float("rope.scaling.high_freq_factor", 4),
	}
	if s, ok := r.md.String(r.arch + ".rope.scaling.type"); ok && s != "" {
		c.Scaling = s
	} else if c.Factor > 0 && c.Factor != 1 {
		c.Scaling = "linear"
	}
	if old := r.float("rope.scale_linear", 0); old > 0 && c.Factor == 0 {
		c.Factor, c.Scaling = old, "linear" // the key before rope.scaling.*
	}
	if c.Factor <= 0 {
		c.Factor = 1
	}
	if c.Dims > headDim || c.Dims%2 != 0 {
		r.fail("%s.rope.dimension_count is %d, want an even number up to the head's %d", r.arch, c.Dims, headDim)
	}
	if c.Base <= 0 {
		r.fail("%s.rope.freq_base is %v, want a positive number", r.arch, c.Base)
	}
	switch c.Scaling {
	case "none", "linear", "yarn":
	case "llama3":
		if !(c.HighFreq > c.LowFreq) {
			r.fail("%s.rope.scaling: high_freq_factor %v is not above low_freq_factor %v", r.arch, c.HighFreq, c.LowFreq)
		}
	default:
		r.fail("%s.rope.scaling.type %q is not supported (none, linear, yarn, llama3)", r.arch, c.Scaling)
	}
	return c
}

func (r *configReader) ropeFactors(t tensor.Tensor, dims int) []float32 {
	if t.Type != tensor.F32 || t.Elements() != dims/2 || len(t.Data) != 4*t.Elements() {
		r.fail("tensor %v: want F32 [%d]", t, dims/2)
		return nil
	}
	f := make([]float32, dims/2)
	for i := range f {
		f[i] = math.Float32frombits(binary.LittleEndian.Uint32(t.Data[4*i:]))
		if !(f[i] > 0) || math.IsInf(float64(f[i]), 0) {
			r.fail("tensor %v: factor %d is %v", t, i, f[i])
		}
	}
	return f
}

// Frequencies returns the angle per position of each rotated pair, in radians,
// and the magnitude that multiplies rotated elements.
func (c RopeConfig) Frequencies() (inv []float64, magnitude float64) {
	inv = make([]float64, c.Dims/2)
	for i := range inv {
		inv[i] = math.Pow(c.Base, -2*float64(i)/float64(c.Dims))
		if c.Factors != nil {
			inv[i] /= float64(c.Factors[i])
		}
	}
	switch c.Scaling {
	case "linear":
		for i := range inv {
			inv[i] /= c.Factor
		}
	case "llama3":
		c.llama3(inv)
	case "yarn":
		return inv, c.yarn(inv)
	}
	return inv, 1
}

// llama3 stretches long wavelengths by Factor, keeps short ones and blends
// between (Llama 3.1's apply_scaling).
func (c RopeConfig) llama3(inv []float64) {
	orig := float64(c.OrigContext)
	for i, f := range inv {
		rotations := orig * f / (2 * math.Pi)
		blend := (rotations - c.LowFreq) / (c.HighFreq - c.LowFreq)
		blend = min(1, max(0, blend))
		inv[i] = (1-blend)*f/c.Factor + blend*f
	}
}

// yarn blends interpolated and original frequencies between two wavelengths
// (Peng et al. 2023, "NTK-by-parts") and returns the attention factor.
func (c RopeConfig) yarn(inv []float64) (magnitude float64) {
	dims, orig := float64(c.Dims), float64(c.OrigContext)
	// The pair that turns the given number of times over the original context.
	pair := func(rotations float64) float64 {
		return dims * math.Log(orig/(rotations*2*math.Pi)) / (2 * math.Log(c.Base))
	}
	low := max(0, math.Floor(pair(c.BetaFast)))
	high := min(dims-1, math.Ceil(pair(c.BetaSlow)))
	for i, f := range inv {
		ramp := (float64(i) - low) / max(0.001, high-low)
		keep := 1 - min(1, max(0, ramp))
		inv[i] = f/c.Factor*(1-keep) + f*keep
	}
	return c.AttnFactor * (1 + 0.1*math.Log(c.Factor))
}
