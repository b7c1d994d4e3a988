package cuda

import (
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// Speed of the prefill and attention kernels: APR_CUDA_BENCH=1 and -test.run
// Speed, with -test.v to see the tables. On the emulation the shapes are small
// and the times mean nothing; it only shows that the code runs.

// timer runs launches as a graph and says how long one pass takes.
type timer struct {
	*gpu
	emulated bool
	random   []uint16
}

func newTimer(t *testing.T) *timer {
	needBench(t)
	b := &timer{gpu: openGPU(t)}
	b.emulated = emutest.Emulated()
	r := rand.New(rand.NewPCG(1, 1))
	b.random = make([]uint16, 1<<22)
	for i := range b.random {
		b.random[i] = quant.F32ToF16(float32(r.NormFloat64()))
	}
	t.Logf("%s, %d multiprocessors", b.c.Device.Name, b.c.Device.SMs)
	return b
}

// halves is device memory of n random f16 numbers.
func (b *timer) halves(n int) cuda.Ptr {
	p := b.alloc(int64(n) * 2)
	b.do(func() error {
		for at := 0; at < n; at += len(b.random) {
			if err := cuda.Upload(b.c, p+cuda.Ptr(at*2), b.random[:min(len(b.random), n-at)]); err != nil {
				return err
			}
		}
		return nil
	})
	return p
}

// floats is device memory of n random float32 numbers.
func (b *timer) floats(n int) cuda.Ptr {
	x := make([]float32, n)
	for i := range x {
		x[i] = quant.F16ToF32(b.random[i%len(b.random)])
	}
	return upload(b.gpu, x)
}

// time returns the microseconds of one pass: the median of graph replays.
func (b *timer) time(launches []*cuda.Launch) float64 {
	if b.emulated {
		return b.replay(launches, 1, 1)
	}
	return b.replay(launches, 9, 5)
}

// replay captures launches as a graph and returns the microseconds of a run of it: the
// median of measurements of some runs each.
func (g *gpu) replay(launches []*cuda.Launch, measurements, runs int) float64 {
	g.t.Helper()
	var us []float64
	g.do(func() error {
		if err := g.c.BeginCapture(g.stream); err != nil {
			return err
		}
		for _, l := range launches {
			if err := g.c.Run(l, g.stream); err != nil {
				return err
			}
		}
		graph, err := g.c.EndCapture(g.stream)
		if err != nil {
			return err
		}
		defer g.c.DestroyGraph(graph)
		exec, err := g.c.Instantiate(graph)
		if err != nil {
			return err
		}
		defer g.c.DestroyExec(exec)
		from, err := g.c.NewEvent()
		if err != nil {
			return err
		}
		defer g.c.DestroyEvent(from)
		to, err := g.c.NewEvent()
		if err != nil {
			return err
		}
		defer g.c.DestroyEvent(to)
		for range measurements {
			if err := g.c.Record(from, g.stream); err != nil {
				return err
			}
			for range runs {
				if err := g.c.LaunchGraph(exec, g.stream); err != nil {
					return err
				}
			}
			if err := g.c.Record(to, g.stream); err != nil {
				return err
			}
			ms, err := g.c.Elapsed(from, to)
			if err != nil {
				return err
			}
			us = append(us, ms*1000/float64(runs))
		}
		return nil
	})
	slices.Sort(us)
	return us[len(us)/2]
}

// products are the matrices of Qwen2.5 1.5B and 7B: rows, columns.
var products = [][2]int{{256, 1536}, {1536, 1536}, {8960, 1536}, {1536, 8960}, {512, 3584}, {3584, 3584}, {18944, 3584}, {3584, 18944}}

func TestSpeedGEMM(t *testing.T) {
	b := newTimer(t)
	tokens := []int{16, 32, 64, 128, 512, 2048}
	shapes := products
	if b.emulated {
		tokens, shapes = []int{16}, [][2]int{{256, 128}}
	}
	for _, s := range shapes {
		for _, n := range tokens {
			plan := planGEMM(b.c.Device, n, s[0], s[1])
			b.gemm(t, plan, "")
		}
	}
	// every tile on three shapes, for the rates in gemmTiles
	for _, s := range shapes[len(shapes)*3/4:] {
		for _, tile := range gemmTiles {
			if tile.capability != 0 && tile.capability != b.c.Device.Capability() {
				continue
			}
			for _, n := range tokens {
				b.gemm(t, gemmPlan{T: n, N: s[0], K: s[1], Splits: 1, tile: tile, Variant: tile.name}, "forced ")
			}
		}
	}
}

func (b *timer) gemm(t *testing.T, plan gemmPlan, note string) {
	k := gemmWidth(plan.K)
	args := gemmArgs{X: b.halves(plan.T * k), W: b.halves(plan.N * k), Y: b.alloc(int64(plan.T*plan.N) * 4), XScale: b.floats(plan.T), WScale: b.floats(plan.N)}
	if n := plan.Workspace(); n > 0 {
		args.Work = b.alloc(n)
	}
	var one, all []*cuda.Launch
	b.do(func() (err error) {
		one, err = plan.launches(b.c, b.find, args)
		return err
	})
	for range 8 {
		all = append(all, one...)
	}
	us := b.time(all) / 8
	t.Logf("%sgemm %5d × %5d × %5d  %-20s splits %d  %8.2f µs  %6.1f TFLOP/s", note, plan.T, plan.N, plan.K, plan.Variant, plan.Splits, us, 2*float64(plan.T)*float64(plan.N)*float64(plan.K)/us/1e6)
	b.release()
}

// TestSpeedQuantGEMM: batches that read quantised weights once, rotating over more
// weights than the L2 cache holds.
func TestSpeedQuantGEMM(t *testing.T) {
	b := newTimer(t)
	tokens, shapes, copies := []int{9, 16, 32, 64}, products, 8
	if b.emulated {
		tokens, shapes, copies = []int{16}, [][2]int{{64, 512}}, 2
	}
	for _, s := range shapes {
		for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.Q6_K} {
			row, err := packedRowBytes(dtype, s[1])
			if err != nil {
				t.Fatal(err)
			}
			for _, n := range tokens {
				p, _ := planQuantGEMM(b.c.Device, dtype, n, s[0], s[1])
				var all []*cuda.Launch
				for range copies {
					args := gemmArgs{X: b.halves(n * gemmWidth(s[1])), W: b.halves(s[0] * row / 2), Y: b.alloc(int64(n*s[0]) * 4), XScale: b.floats(n), WScale: b.floats(s[0])}
					if n := p.Workspace(); n > 0 {
						args.Work = b.alloc(n)
					}
					b.do(func() error {
						l, err := p.launches(b.c, b.find, args)
						all = append(all, l...)
						return err
					})
				}
				us := b.time(all) / float64(copies)
				t.Logf("%s %2d × %5d × %5d  splits %d  %7.2f µs  %5.0f GB/s of weights  %6.1f TFLOP/s", p.Variant, n, s[0], s[1], p.Splits, us, float64(s[0]*row)/us/1e3, 2*float64(n)*float64(s[0])*float64(s[1])/us/1e6)
				b.release()
			}
		}
	}
}

func TestSpeedDequantize(t *testing.T) {
	b := newTimer(t)
	shapes := [][2]int{{8960, 1536}, {18944, 3584}}
	if b.emulated {
		shapes = [][2]int{{64, 512}}
	}
	for _, s := range shapes {
		for _, dtype := range []tensor.DType{tensor.Q4_K, tensor.Q6_K, tensor.Q8_0, tensor.F16, tensor.BF16, tensor.Q4_0, tensor.IQ4_XS, tensor.Q3_K} {
			row, err := packedRowBytes(dtype, s[1])
			if err != nil {
				t.Fatal(err)
			}
			w, out := b.halves(s[0]*row/2), b.alloc(int64(s[0]*gemmWidth(s[1]))*2)
			l := b.launch(func() (*cuda.Launch, error) { return dequantLaunch(b.c, b.find, w, dtype, 0, out, 0, s[0], s[1]) })
			us := b.time(slices.Repeat([]*cuda.Launch{l}, 8)) / 8
			bytes := float64(s[0]) * float64(row+2*gemmWidth(s[1]))
			t.Logf("dequantise %-7s %5d × %5d  %7.2f µs  %5.0f GB/s read and written", dtype, s[0], s[1], us, bytes/us/1e3)
			b.release()
		}
	}
	for _, s := range [][2]int{{512, 1536}, {2048, 1536}, {2048, 8960}, {2048, 18944}} {
		if b.emulated {
			s = [2]int{4, 256}
		}
		x, x16, scale := b.floats(s[0]*s[1]), b.alloc(int64(s[0]*gemmWidth(s[1]))*2), b.alloc(int64(s[0])*4)
		l := b.launch(func() (*cuda.Launch, error) {
			return convertLaunch(b.c, b.find, x, activations{x16, scale}, s[0], s[1])
		})
		us := b.time(slices.Repeat([]*cuda.Launch{l}, 8)) / 8
		t.Logf("convert %5d × %5d  %7.2f µs  %5.0f GB/s read and written", s[0], s[1], us, float64(s[0]*s[1]*6)/us/1e3)
		b.release()
	}
}

// attentionBench is the attention of all layers of a model.
type attentionBench struct {
	name                 string
	heads, kvHeads, dim  int
	layers               int
	sequences, positions int
}

func (b *timer) attention(a attentionBench, tokens int, plan func(s attentionShape) (attentionPlan, error)) (float64, attentionPlan) {
	s := attentionShape{Heads: a.heads, KVHeads: a.kvHeads, HeadDim: a.dim, KVBytes: 2, Scale: float32(1 / math.Sqrt(float64(a.dim)))}
	per := 2 * a.kvHeads * a.dim // elements of a position
	rows := a.sequences * tokens
	kv, pos, caps, tiles := make([]uint64, rows), make([]int32, rows), make([]int32, rows), []int32{}
	for i := range a.sequences {
		arena := uint64(b.halves(a.layers * per * a.positions))
		for t := range tokens {
			kv[i*tokens+t], pos[i*tokens+t], caps[i*tokens+t] = arena, int32(a.positions-tokens+t), int32(a.positions)
			if t%queryTile == 0 {
				tiles = append(tiles, int32(i*tokens+t), int32(min(queryTile, tokens-t)))
			}
		}
	}
	args := attentionArgs{Q: b.floats(rows * a.heads * a.dim), Out: b.alloc(int64(rows*a.heads*a.dim) * 4), Pos: upload(b.gpu, pos), KV: upload(b.gpu, kv), Cap: upload(b.gpu, caps), Tiles: upload(b.gpu, tiles)}
	p, err := plan(s)
	if err != nil {
		b.t.Fatal(err)
	}
	if n := p.Workspace(); n > 0 {
		args.Work = b.alloc(n)
	}
	args.Counters = upload(b.gpu, make([]uint32, p.Counters()/4+1))
	var launches []*cuda.Launch
	for layer := range a.layers {
		p.shape.Unit = uint64(layer * per * 2)
		b.do(func() error {
			l, err := p.launches(b.c, b.find, args)
			launches = append(launches, l...)
			return err
		})
	}
	us := b.time(launches) / float64(a.layers)
	b.release()
	return us, p
}

var attentionModels = []attentionBench{{name: "1.5B", heads: 12, kvHeads: 2, dim: 128, layers: 28}, {name: "7B", heads: 28, kvHeads: 4, dim: 128, layers: 28}, {name: "llama 1B", heads: 32, kvHeads: 8, dim: 64, layers: 16}}

func TestSpeedDecodeAttention(t *testing.T) {
	b := newTimer(t)
	contexts, batches := []int{128, 512, 2048, 8192, 32768}, []int{1, 8, 32}
	models := attentionModels
	if b.emulated {
		contexts, batches, models = []int{80}, []int{1, 2}, []attentionBench{{name: "tiny", heads: 4, kvHeads: 2, dim: 64, layers: 2}}
	}
	for _, a := range models {
		for _, a.sequences = range batches {
			for _, a.positions = range contexts {
				if a.sequences*a.positions > 1<<18 || a.sequences > 1 && a.positions == 512 {
					continue
				}
				for _, v := range []struct{ warps, least, perSM int }{{0, 0, 0}, {4, 64, 2}, {4, 32, 2}, {8, 128, 1}, {8, 64, 1}} {
					us, p := b.attention(a, 1, func(s attentionShape) (attentionPlan, error) {
						p, err := planDecode(b.c.Device, s, a.sequences, a.positions)
						if v.warps > 0 {
							p.useWarps(v.warps)
							p.least = v.least
							p.Splits = max(1, min(maxSplits, v.perSM*b.c.Device.SMs/(a.sequences*a.kvHeads*p.parts()), (a.positions+v.least-1)/v.least))
						}
						return p, err
					})
					bytes := float64(a.sequences*a.positions) * float64(4*a.kvHeads*a.dim)
					t.Logf("decode attention %-8s batch %2d context %5d  %d warps, splits %3d of %3d  %7.2f µs a layer  %5.0f GB/s of keys and values", a.name, a.sequences, a.positions, p.threads/32, p.Splits, p.least, us, bytes/us/1e3)
				}
			}
		}
	}
}

func TestSpeedPrefillAttention(t *testing.T) {
	b := newTimer(t)
	steps := [][2]int{{512, 512}, {2048, 2048}, {8192, 8192}, {2048, 32768}, {64, 8192}, {16, 32768}} // tokens, context with them
	models := attentionModels
	if b.emulated {
		steps, models = [][2]int{{70, 80}}, []attentionBench{{name: "tiny", heads: 2, kvHeads: 1, dim: 64, layers: 2}}
	}
	for _, a := range models {
		a.sequences, a.layers = 1, min(a.layers, 4)
		for _, s := range steps {
			a.positions = s[1]
			us, p := b.attention(a, s[0], func(shape attentionShape) (attentionPlan, error) {
				return planPrefill(b.c.Device, shape, s[0], (s[0]+queryTile-1)/queryTile, s[1])
			})
			pairs := float64(s[0]) * (float64(s[1]) - float64(s[0]-1)/2)
			t.Logf("prefill attention %-8s %5d tokens, context %5d  splits %2d  %9.2f µs a layer  %6.1f TFLOP/s  %s", a.name, s[0], s[1], p.Splits, us, 4*pairs*float64(a.heads*a.dim)/us/1e6, p.Variant)
		}
	}
}

// fewSpills may keep some bytes in local memory: with all in registers, one block a
// multiprocessor would have to hide the latency that two do.
var fewSpills = map[string]int{"gemm_q4_k_32": 96, "gemm_q6_k_32": 96}

// TestRegisters: no kernel spills to local memory; prints what each takes.
func TestRegisters(t *testing.T) {
	g := openGPU(t)
	for module, kernels := range map[string][]string{
		"gemm":            {"gemm_128x128", "gemm_64x128", "gemm_32x128", "gemm_16x128", "gemm_reduce"},
		"gemm_q4_k":       {"gemm_q4_k_16", "gemm_q4_k_32", "gemm_q4_k_64"},
		"gemm_q6_k":       {"gemm_q6_k_16", "gemm_q6_k_32", "gemm_q6_k_64"},
		"gemm_stage_q4_k": {"gemm_stage_q4_k_16", "gemm_stage_q4_k_32"},
		"gemm_stage_q6_k": {"gemm_stage_q6_k_16", "gemm_stage_q6_k_32"},
		"convert":         {"convert_f16", "convert_norm_f16", "convert_gated_f16"},
		"dequant":         {"dequant_f16", "dequant_scales"},
		"attention":       {"attention_vector_f16", "attention_vector_f32", "attention_combine"},
		"attention_64":    {"attention_decode_f16_d64", "attention_prefill_f16_d64", "attention_prefill_f32_d64"},
		"attention_96":    {"attention_decode_f16_d96", "attention_prefill_f16_d96", "attention_prefill_f32_d96"},
		"attention_128":   {"attention_decode_f16_d128", "attention_prefill_f16_d128", "attention_prefill_f32_d128"},
		"attention_256":   {"attention_decode_f16_d256", "attention_prefill_f16_d256", "attention_prefill_f32_d256"},
		"gemm_sm90a":      {"gemm_wgmma_128x256", "gemm_wgmma_128x128"},
	} {
		if module == "gemm_sm90a" && g.c.Device.Capability() != 90 {
			continue
		}
		for _, kernel := range kernels {
			g.do(func() error {
				f, err := g.find(module, kernel)
				if err != nil {
					return err
				}
				registers, local, err := g.c.Registers(f)
				if local > fewSpills[kernel] {
					t.Errorf("%s spills %d bytes", kernel, local)
				}
				t.Logf("%-28s %3d registers, %d bytes of local memory", kernel, registers, local)
				return err
			})
		}
	}
}
