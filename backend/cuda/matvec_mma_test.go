package cuda

import (
	"fmt"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// TestMatvecMMA: several tiles a block, the last of them not full, runs of steps that begin
// and end anywhere, up to eight tokens; the bits are those
// of one token alone.
func TestMatvecMMA(t *testing.T) {
	g := openGPU(t)
	defer func(least int) { mmaLeast = least }(mmaLeast)
	mmaLeast = 1
	r := rand.New(rand.NewPCG(3, 1))
	dev := g.c.Device
	for _, c := range []struct {
		dtype         tensor.DType
		rows, k, sms  int
		tokens, other int
	}{
		{tensor.Q4_K, 45, 1536, 1, 1, 0},
		{tensor.Q6_K, 45, 1792, 2, 1, 0},
		{tensor.Q4_K, 21, 2048, 1, 8, 9},
		{tensor.Q6_K, 37, 768, 1, 5, 0},
		{tensor.Q4_K, 19, 512, 1, 2, 18},
	} {
		dev.SMs = c.sms
		m := randomMatrix(r, c.dtype, c.rows, c.k, 0.1)
		x := outlierX(r, c.tokens, c.k)
		req := matvecRequest{tokens: c.tokens, k: c.k, x: upload(g, x), matrices: []matvecMatrix{{data: g.matrix(m), dtype: c.dtype, rows: c.rows, out: g.alloc(int64(c.tokens*c.rows) * 4)}}}
		ms := []testMatrix{m}
		if c.other > 0 {
			ms = append(ms, randomMatrix(r, tensor.Q6_K, c.other, c.k, 0.1))
			req.matrices = append(req.matrices, matvecMatrix{data: g.matrix(ms[1]), dtype: tensor.Q6_K, rows: c.other, out: g.alloc(int64(c.tokens*c.other) * 4)})
		}
		call := req.planMMA(dev)
		if call == nil {
			t.Fatalf("no kernel: %+v", c)
		}
		for i, m := range ms {
			got := g.callKernel(call, req.matrices[i].out, c.tokens*m.rows)
			want, size := product(m, roundedX(x), c.tokens)
			checkProduct(t, fmt.Sprintf("%s %d×%d, %d tokens", m.dtype, m.rows, m.k, c.tokens), got, want, size, floatRounding)
		}
		g.release()
	}
}
