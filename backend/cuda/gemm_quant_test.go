package cuda

import (
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/tensor"
)

// TestQuantGEMM: every format and tile, tokens and rows that do not fill it, sums
// that end inside a stage, splits, against float64.
func TestQuantGEMM(t *testing.T) {
	g := openGPU(t)
	cases := []struct{ t, n, k, splits int }{{9, 70, 768, 1}, {16, 64, 256, 1}, {27, 130, 1280, 3}, {16, 64, 3584, 2}, {33, 50, 512, 1}, {64, 65, 768, 3}}
	for _, dtype := range []tensor.DType{tensor.Q4_0, tensor.Q8_0, tensor.Q3_K, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K, tensor.IQ4_XS} {
		for _, c := range cases {
			t.Run(fmt.Sprintf("%s/%dx%dx%d/%d", dtype, c.t, c.n, c.k, c.splits), func(t *testing.T) {
				plan, ok := planQuantGEMM(g.c.Device, dtype, c.t, c.n, c.k)
				if !ok {
					t.Fatal("no plan")
				}
				plan.Splits = c.splits
				checkQuantGEMM(t, g, dtype, plan)
			})
		}
	}
	if !quantGEMMTypes[tensor.Q4_K] || len(quantGEMMTypes) != 7 {
		t.Error("the test does not cover every format")
	}
	for _, bad := range []struct {
		dtype tensor.DType
		t     int
	}{{tensor.F16, 16}, {tensor.Q2_K, 16}, {tensor.Q4_K, 65}} {
		if _, ok := planQuantGEMM(g.c.Device, bad.dtype, bad.t, 64, 256); ok {
			t.Errorf("a plan for %s with %d tokens", bad.dtype, bad.t)
		}
	}
}

// TestStageSplits: sums are cut as far as all parts run at once, and not where a second
// round or the addition costs more than it gains.
func TestStageSplits(t *testing.T) {
	for _, c := range []struct{ blocks, stages, room, want int }{
		{56, 7, 264, 4}, {56, 37, 264, 4}, {296, 7, 264, 1}, {140, 3, 264, 1}, {24, 3, 264, 3}, {24, 18, 264, 6}, {1, 1, 264, 1}, {2376, 7, 264, 1}, {56, 14, 132, 2},
	} {
		if got := stageSplits(c.blocks, c.stages, c.room); got != c.want {
			t.Errorf("%d blocks, %d stages, %d at once: %d parts, want %d", c.blocks, c.stages, c.room, got, c.want)
		}
	}
}

// TestGEMMWithoutStages: devices with less shared memory than the stages of weights take
// have kernels too.
func TestGEMMWithoutStages(t *testing.T) {
	g := openGPU(t)
	dev := g.c.Device
	dev.SharedMemory = 64 << 10
	for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.Q6_K} {
		plan, ok := planQuantGEMM(dev, dtype, 16, 64, 512)
		if !ok || strings.HasPrefix(plan.module, "gemm_stage") {
			t.Fatalf("%s: %q", dtype, plan.module)
		}
		checkQuantGEMM(t, g, dtype, plan)
	}
}

// checkQuantGEMM multiplies, with bias and residual, rows of very different sizes.
func checkQuantGEMM(t *testing.T, g *gpu, dtype tensor.DType, p quantGEMMPlan) {
	t.Helper()
	w, weights := g.weights(dtype, p.N, p.K, func(r, i int) float64 { return []float64{0.02, 1e-4, 3}[r%3] })
	r := rand.New(rand.NewPCG(uint64(p.T), uint64(p.N)))
	x, bias, residual := make([]float32, p.T*p.K), make([]float32, p.N), make([]float32, p.T*p.N)
	for _, v := range [][]float32{x, bias, residual} {
		for i := range v {
			v[i] = float32(r.NormFloat64())
		}
	}
	// What is added must not hide the sums of small rows.
	for i := range bias {
		bias[i] *= []float32{0.02, 1e-4, 3}[i%3]
	}
	for i := range residual {
		residual[i] *= []float32{0.02, 1e-4, 3}[i%p.N%3]
	}
	width := gemmWidth(p.K)
	xp, x16, xs, ws := upload(g, x), g.alloc(int64(p.T*width*2)), g.alloc(int64(p.T*4)), g.alloc(int64(p.N*4))
	args := gemmArgs{X: x16, W: w, Y: g.alloc(int64(p.T * p.N * 4)), XScale: xs, WScale: ws, Bias: upload(g, bias), Residual: upload(g, residual)}
	if n := p.Workspace(); n > 0 {
		args.Work = g.alloc(n)
	}
	var launches []*cuda.Launch
	g.do(func() error {
		scales, err := rowScalesLaunch(g.c, g.find, w, dtype, ws, p.N, p.K)
		if err != nil {
			return err
		}
		convert, err := convertLaunch(g.c, g.find, xp, activations{x16, xs}, p.T, p.K)
		if err != nil {
			return err
		}
		product, err := p.launches(g.c, g.find, args)
		launches = append([]*cuda.Launch{scales, convert}, product...)
		return err
	})
	g.run(launches...)
	got := download[float32](g, args.Y, p.T*p.N)
	g.run(launches...)
	if !sameBits(got, download[float32](g, args.Y, p.T*p.N)) {
		t.Error("a second run gives other bits")
	}
	// Columns, that is rows of weights, each by its own size.
	byRow, want := make([]float32, len(got)), make([]float64, len(got))
	for n := range p.N {
		for i := range p.T {
			sum := 0.0
			for k := range p.K {
				sum += float64(x[i*p.K+k]) * float64(weights[n*p.K+k])
			}
			byRow[n*p.T+i] = got[i*p.N+n]
			want[n*p.T+i] = sum + float64(bias[n]) + float64(residual[i*p.N+n])
		}
	}
	// f16 for activations, scales, offsets and weights: 2^-12 each, hardly cancelling
	// within a group of 32.
	const tolerance = 1e-3
	e := rowError(byRow, want, p.T)
	t.Logf("error %.2g (%.0f %% of the tolerance)", e, 100*e/tolerance)
	if !(e <= tolerance) {
		t.Errorf("error %g, tolerance %g", e, tolerance)
	}
	g.release()
}
