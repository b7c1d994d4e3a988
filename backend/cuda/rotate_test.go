package cuda

import (
	"fmt"
	"math"
	"math/rand/v2"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/quant"
)

// TestAttentionRotates: attention of one token that rotates and stores by itself gives
// what rope_store and attention give, and leaves the same cache.
func TestAttentionRotates(t *testing.T) {
	g := openGPU(t)
	r := rand.New(rand.NewPCG(7, 7))
	for _, c := range []struct {
		dim, heads, kvHeads, length, capacity, pairs, window int
		interleaved                                          bool
	}{
		{dim: 128, heads: 7, kvHeads: 1, length: 1, capacity: 5, pairs: 64},
		{dim: 128, heads: 6, kvHeads: 2, length: 300, capacity: 300, pairs: 64},
		{dim: 128, heads: 3, kvHeads: 1, length: 256, capacity: 256, pairs: 64}, // two groups a warp, not combined
		{dim: 64, heads: 20, kvHeads: 2, length: 161, capacity: 200, pairs: 20},
		{dim: 64, heads: 4, kvHeads: 4, length: 97, capacity: 100, pairs: 32, interleaved: true, window: 60},
		{dim: 128, heads: 2, kvHeads: 1, length: 7, capacity: 6, pairs: 64}, // outside the cache
	} {
		name := fmt.Sprintf("%+v", c)
		shape := attentionShape{Heads: c.heads, KVHeads: c.kvHeads, HeadDim: c.dim, KVBytes: 2, Unit: 64, Scale: 0.1, Window: c.window}
		plan, err := planDecode(g.c.Device, shape, 1, max(c.length, 200))
		if err != nil || !plan.rotates() {
			t.Fatalf("%s: %v, no plan that rotates", name, err)
		}
		random := func(n int) []float32 {
			x := make([]float32, n)
			for i := range x {
				x[i] = float32(r.NormFloat64())
			}
			return x
		}
		halves := make([]uint16, 32*c.capacity+2*c.kvHeads*c.capacity*c.dim)
		for i := range halves {
			halves[i] = quant.F32ToF16(float32(r.NormFloat64()))
		}
		freq := make([]uint64, c.pairs)
		for i := range freq {
			freq[i] = r.Uint64()
		}
		q, k, v := upload(g, random(c.heads*c.dim)), upload(g, random(c.kvHeads*c.dim)), upload(g, random(c.kvHeads*c.dim))
		pos, capacity, work := upload(g, []int32{int32(c.length - 1)}), upload(g, []int32{int32(c.capacity)}), g.alloc(max(plan.Workspace(), 4))
		var outs [2][]float32
		var caches [2][]uint16
		for i := range 2 {
			cache, out, qOut := upload(g, halves), g.alloc(int64(4*c.heads*c.dim)), g.alloc(int64(4*c.heads*c.dim))
			kv := upload(g, []uint64{uint64(cache)})
			rs := ropeStore{
				tokens: 1, heads: c.heads, kvHeads: c.kvHeads, headDim: c.dim, q: q, k: k, v: v, qOut: qOut, ropePos: pos, pos: pos,
				freq: upload(g, freq), pairs: c.pairs, interleaved: c.interleaved, magnitude: 1.1, kv: kv, cap: capacity, layer: 64, f16: true,
			}
			args := attentionArgs{Q: qOut, Out: out, Pos: pos, KV: kv, Cap: capacity, Work: work, Counters: upload(g, make([]byte, max(plan.Counters(), 1)))}
			if i == 0 {
				g.callOnce(rs.call())
			} else {
				args.Q, args.Rotate = q, &rs
			}
			var runs []*cuda.Launch
			g.do(func() (err error) {
				runs, err = plan.launches(g.c, g.find, args)
				return err
			})
			g.run(runs...)
			outs[i], caches[i] = download[float32](g, out, c.heads*c.dim), download[uint16](g, cache, len(halves))
		}
		for i, want := range outs[0] {
			if d := math.Abs(float64(outs[1][i] - want)); !(d <= 2e-6*(1+math.Abs(float64(want)))) {
				t.Fatalf("%s: element %d is %v, want %v", name, i, outs[1][i], want)
			}
		}
		for i, want := range caches[0] {
			if d := int(caches[1][i]) - int(want); d < -1 || d > 1 {
				t.Fatalf("%s: number %d of the cache is %04x, want %04x", name, i, caches[1][i], want)
			}
		}
		g.release()
	}
}
