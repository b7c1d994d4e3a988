package kernels

import "github.com/apr-engine/apr/graph"

// actText defines fn act(x: f32) -> f32; see graph.Activation.
func actText(a graph.Activation) string {
	if a == graph.GELU {
		// 0.5·x·(1 + tanh(u)) = x / (1 + exp(−2u))
		return "fn act(x: f32) -> f32 { return x / (1.0 + exp(-2.0 * 0.7978845608028654 * (x + 0.044715 * x * x * x))); }"
	}
	return "fn act(x: f32) -> f32 { return x / (1.0 + exp(-x)); }"
}

// capText is a soft cap as WGSL, empty for none.
func capText(c float32) string {
	if c == 0 {
		return ""
	}
	return float(c)
}

// softText defines fn soft(v: f32) -> f32, and soft4 of four: c·tanh(v/c), without the overflow of its
// exponentials and exact near 0.
func softText(c float32) string {
	return expand("soft.wgsl", float(c))
}
