package cuda

import (
	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/graph"
)

// activations is where the f16 operand of a product goes: rows (tokens,
// gemmWidth(k)) and the factors (tokens) that undo their scaling by powers of two.
type activations struct{ x16, scale cuda.Ptr }

// convertLaunch prepares x (t, k) float32 → f16. k is a multiple of 4.
func convertLaunch(c *cuda.Context, find lookup, x cuda.Ptr, to activations, t, k int) (*cuda.Launch, error) {
	return prepare(find, c, "convert", "convert_f16", [3]int{t, 1, 1}, 256, 0, x, to.x16, to.scale, k, gemmWidth(k))
}

// convertNormLaunch prepares RMSNorm(x) · weight (k) → f16, over whole rows.
func convertNormLaunch(c *cuda.Context, find lookup, x, weight cuda.Ptr, eps float32, to activations, t, k int) (*cuda.Launch, error) {
	return prepare(find, c, "convert", "convert_norm_f16", [3]int{t, 1, 1}, 256, 0, x, weight, to.x16, to.scale, k, gemmWidth(k), eps)
}

// convertGatedLaunch prepares act(gate) · up → f16, both (t, k). It needs 4·k bytes
// of shared memory.
func convertGatedLaunch(c *cuda.Context, find lookup, gate, up cuda.Ptr, act graph.Activation, to activations, t, k int) (*cuda.Launch, error) {
	return prepare(find, c, "convert", "convert_gated_f16", [3]int{t, 1, 1}, 256, 4*k, gate, up, to.x16, to.scale, k, gemmWidth(k), int(act))
}
