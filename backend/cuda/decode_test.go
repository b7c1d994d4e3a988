package cuda

import (
	"encoding/binary"
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/quant"
)

// headWant is a head after norm and rotation, in float64.
func headWant(x, norm []float32, eps, pos float64, inv []float64, interleaved bool, magnitude float64) []float64 {
	out := floats64(x)
	if norm != nil {
		sum := 0.0
		for _, v := range out {
			sum += v * v
		}
		scale := 1 / math.Sqrt(sum/float64(len(x))+eps)
		for i := range out {
			out[i] *= scale * float64(norm[i])
		}
	}
	for i, f := range inv {
		first, second := i, i+len(inv)
		if interleaved {
			first, second = 2*i, 2*i+1
		}
		s, c := math.Sincos(math.Mod(pos*f, 2*math.Pi))
		a, b := out[first], out[second]
		out[first], out[second] = magnitude*(a*c-b*s), magnitude*(a*s+b*c)
	}
	return out
}

// TestRopeStore: pairings, partial rotation, head norms, both cache types, positions
// that differ from those of the rotation, and one that the cache does not have.
func TestRopeStore(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(7, 7))
	const heads, kvHeads, capacity, layerUnit, eps = 5, 2, 9, 48, 1e-6
	for _, c := range []struct {
		head, pairs            int
		interleaved, norm, f16 bool
		magnitude              float64
	}{
		{64, 32, false, false, true, 1},
		{128, 64, true, true, false, 1.25},
		{96, 20, false, true, true, 1},
		{256, 128, false, true, true, 1},
		{80, 0, false, false, false, 1},
	} {
		name := fmt.Sprintf("%+v", c)
		pos, ropePos := []int32{0, 8, 9, 3}, []int32{0, 8, 9, 100003}
		tokens := len(pos)
		q, k, v := outlierX(r, tokens, heads*c.head), outlierX(r, tokens, kvHeads*c.head), outlierX(r, tokens, kvHeads*c.head)
		inv, freq := make([]float64, c.pairs), make([]uint64, c.pairs+1)
		for i := range inv {
			inv[i] = math.Pow(1e6, -float64(i)/float64(c.pairs))
			freq[i] = uint64(math.Round(inv[i] / (2 * math.Pi) * 0x1p64))
		}
		size := 4
		if c.f16 {
			size = 2
		}
		arena := make([]uint64, tokens)
		bytes := layerUnit*capacity + 2*kvHeads*capacity*c.head*size
		for i := range arena {
			arena[i] = uint64(g.alloc(int64(bytes)))
		}
		rs := ropeStore{tokens: tokens, heads: heads, kvHeads: kvHeads, headDim: c.head, q: upload(g, q), k: upload(g, k), v: upload(g, v), eps: eps,
			ropePos: upload(g, ropePos), pos: upload(g, pos), freq: upload(g, freq), pairs: c.pairs, interleaved: c.interleaved, magnitude: float32(c.magnitude),
			kv: upload(g, arena), cap: upload(g, []int32{capacity, capacity, capacity, capacity}), layer: layerUnit, f16: c.f16}
		rs.qOut = g.alloc(int64(len(q)) * 4)
		var qn, kn []float32
		if c.norm {
			qn, kn = outlierX(r, 1, c.head), outlierX(r, 1, c.head)
			rs.qNorm, rs.kNorm = upload(g, qn), upload(g, kn)
		}
		got := g.callKernel(rs.call(), rs.qOut, len(q))
		const share = 2e-6 // float32: the angle, the rotation, the norm
		for i := range tokens * heads {
			at := i * c.head
			want := headWant(q[at:at+c.head], qn, eps, float64(ropePos[i/heads]), inv, c.interleaved, c.magnitude)
			checkHead(t, name+" queries", got[at:at+c.head], want, share)
		}
		for tok := range tokens {
			raw := download[byte](g, cuda.Ptr(arena[tok]), bytes)
			for i := range kvHeads {
				for which := range 2 {
					cell := func(p int) []float32 {
						out := make([]float32, c.head)
						for j := range out {
							at := layerUnit*capacity + (((which*kvHeads+i)*capacity+p)*c.head+j)*size
							if c.f16 {
								out[j] = quant.F16ToF32(binary.LittleEndian.Uint16(raw[at:]))
							} else {
								out[j] = math.Float32frombits(binary.LittleEndian.Uint32(raw[at:]))
							}
						}
						return out
					}
					for p := range capacity {
						if p != int(pos[tok]) {
							for _, x := range cell(p) {
								if x == x {
									t.Fatalf("%s: token %d wrote position %d", name, tok, p)
								}
							}
							continue
						}
						at := (tok*kvHeads + i) * c.head
						want := headWant(k[at:at+c.head], kn, eps, float64(ropePos[tok]), inv, c.interleaved, c.magnitude)
						if which == 1 {
							want = floats64(v[at : at+c.head])
						}
						tolerance := share
						if c.f16 {
							tolerance = 0.51 / 1024 // half a step of F16
						}
						checkHead(t, name+" cache", cell(p), want, tolerance)
					}
				}
			}
		}
		// In place.
		rs.qOut = rs.q
		g.callOnce(rs.call())
		for i, v := range download[float32](g, rs.q, len(q)) {
			if v != got[i] {
				t.Fatalf("%s: in place, element %d is %v, else %v", name, i, v, got[i])
			}
		}
		g.release()
	}
}

// checkHead compares with a tolerance that is a share of the largest element.
func checkHead(t *testing.T, what string, got []float32, want []float64, share float64) {
	t.Helper()
	top := 0.0
	for _, v := range want {
		top = max(top, math.Abs(v))
	}
	for i, w := range want {
		if !(math.Abs(float64(got[i])-w) <= share*top) {
			t.Fatalf("%s: element %d is %v, want %v", what, i, got[i], w)
		}
	}
}

func TestNormAdd(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(8, 8))
	for _, width := range []int{32, 896, 1184} {
		const rows, eps = 3, 1e-5
		x, residual, weight := outlierX(r, rows, width), outlierX(r, rows, width), outlierX(r, 1, width)
		y := g.alloc(rows * int64(width) * 4)
		got := g.callKernel(normAddCall(upload(g, x), upload(g, weight), eps, upload(g, residual), y, rows, width), y, rows*width)
		for i := range rows {
			want := headWant(x[i*width:(i+1)*width], weight, eps, 0, nil, false, 1)
			for j := range want {
				want[j] += float64(residual[i*width+j])
			}
			checkHead(t, fmt.Sprint(width), got[i*width:(i+1)*width], want, 2e-6)
		}
	}
}
