package cuda

import (
	"fmt"
	"math/rand/v2"
	"os"
	"slices"
	"testing"

	"github.com/apr-engine/apr/driver/cuda"
	"github.com/apr-engine/apr/driver/cuda/emutest"
	"github.com/apr-engine/apr/tensor"
)

// benchEnv set to 1 runs the measurements, which print tables; on a GPU machine:
//
//	APR_CUDA_BENCH=1 ./cuda.test -test.run TestBenchMatvec -test.v
const benchEnv = "APR_CUDA_BENCH"

// rotation is the least memory that launches in turn read, several times the L2 cache.
const rotation = 200 << 20

// bench measures kernels in captured graphs.
type bench struct {
	*gpu
	quick bool // on the emulation: only that it runs
	read  float64
	x, y  cuda.Ptr
	arena cuda.Ptr
	size  int64
}

// needBench skips measurements unless they are asked for.
func needBench(t *testing.T) {
	t.Helper()
	if os.Getenv(benchEnv) != "1" {
		t.Skip("a measurement that nothing can fail: set " + benchEnv + "=1 on a GPU (docs/performance-gpu.md)")
	}
}

func newBench(t *testing.T) *bench {
	needBench(t)
	b := &bench{gpu: openGPU(t), quick: emutest.Emulated(), size: 2 << 30}
	if b.quick {
		b.size = 64 << 20
	}
	b.do(func() (err error) {
		b.arena, err = b.c.Alloc(b.size)
		if err != nil {
			return err
		}
		// Bytes that are small scales and small numbers in every format.
		return b.c.Fill(b.arena, 0x11, b.size, b.stream)
	})
	r := rand.New(rand.NewPCG(1, 1))
	b.x = upload(b.gpu, outlierX(r, 8, 32768))
	b.y = b.alloc(8 * 160000 * 4)
	return b
}

// time returns the microseconds of a launch when all of them run in turn in a graph.
func (b *bench) time(launches []*cuda.Launch, overlap bool) float64 {
	b.t.Helper()
	turns, repeats := max(1, 60/len(launches)), 15
	if b.quick {
		turns, repeats = 1, 1
	}
	for _, l := range launches {
		l.Overlap = overlap
	}
	return b.replay(slices.Repeat(launches, turns), repeats, 1) / float64(turns*len(launches))
}

// launchAll prepares calls.
func (b *bench) launchAll(calls []*kernelCall) []*cuda.Launch {
	b.t.Helper()
	var out []*cuda.Launch
	b.do(func() error {
		for _, k := range calls {
			l, err := k.launch(b.find, b.c)
			if err != nil {
				return err
			}
			out = append(out, l)
		}
		return nil
	})
	return out
}

// readTime measures reading n bytes in each launch.
func (b *bench) readTime(n int64, blocks int) float64 {
	var calls []*kernelCall
	for at := int64(0); at+n <= b.size && (len(calls) == 0 || at < rotation); at += n {
		calls = append(calls, &kernelCall{module: "measure", kernel: "read_stream", grid: blocks, threads: 512, args: []any{b.arena + cuda.Ptr(at), b.y, uint64(n / 16)}})
	}
	return b.time(b.launchAll(calls), true)
}

// benchMatrix is one matrix of a measured launch.
type benchMatrix struct {
	rows  int
	dtype tensor.DType
}

// product is what is measured: copies of a launch on different weights.
type benchProduct struct {
	name       string
	tokens, k  int
	matrices   []benchMatrix
	pair, norm bool
	residual   bool
	rounded    bool
}

func (b *bench) calls(p benchProduct) []*kernelCall {
	b.t.Helper()
	var calls []*kernelCall
	for at := int64(0); len(calls) < 2 || at < rotation; {
		r := matvecRequest{tokens: p.tokens, k: p.k, x: b.x, pair: p.pair, eps: 1e-6, rounded: p.rounded}
		if p.norm {
			r.norm = b.x
		}
		for i, m := range p.matrices {
			n, err := packedRowBytes(m.dtype, p.k)
			if err != nil {
				b.t.Fatal(err)
			}
			if bytes := int64(n * m.rows); at+bytes > b.size {
				at = 0
				if len(calls) >= 2 {
					return calls
				}
			}
			r.matrices = append(r.matrices, matvecMatrix{data: b.arena + cuda.Ptr(at), dtype: m.dtype, rows: m.rows, out: b.y + cuda.Ptr(i*8*20000*4)})
			at += int64(roundUp(n*m.rows, 256))
		}
		if p.residual {
			r.residual = r.matrices[0].out
		}
		k, err := planMatvec(b.c.Device, r)
		if err != nil {
			b.t.Fatal(err)
		}
		calls = append(calls, k)
		if b.quick {
			break
		}
	}
	return calls
}

func (b *bench) product(p benchProduct) {
	b.t.Helper()
	calls := b.calls(p)
	launches := b.launchAll(calls)
	k := calls[0]
	plain, over := b.time(launches, false), b.time(launches, true)
	rate := float64(k.weightBytes) / over / 1e3
	var regs, local int
	b.do(func() (err error) {
		f, err := b.find(k.module, k.kernel)
		if err != nil {
			return err
		}
		regs, local, err = b.c.Registers(f)
		return err
	})
	fmt.Printf("%-34s %8.2f MB  graph %7.2f µs  +PDL %7.2f µs %6.0f GB/s %3.0f %%  grid %d×%d lanes %d run %d shared %d regs %d local %d\n",
		p.name, float64(k.weightBytes)/1e6, plain, over, rate, 100*rate/b.read, k.grid, k.threads, k.shape.lanes, k.shape.run, k.shared, regs, local)
}

// TestBenchMatvec prints time, bandwidth and its share of what a read kernel reaches,
// for the products of Qwen2.5 1.5B and 7B and others.
func TestBenchMatvec(t *testing.T) {
	b := newBench(t)
	sms := b.c.Device.SMs
	fmt.Printf("%s, %d multiprocessors, driver %d\n", b.c.Device.Name, sms, b.c.Driver.Version)
	for _, blocks := range []int{sms, 2 * sms, 4 * sms} {
		us := b.readTime(b.size, blocks)
		b.read = max(b.read, float64(b.size)/us/1e3)
		fmt.Printf("read %d MB, %d blocks: %.0f GB/s\n", b.size>>20, blocks, float64(b.size)/us/1e3)
	}
	for _, mb := range []float64{0.25, 1.3, 7.7, 15.5, 33, 76} {
		if n := int64(mb*1e6) / 16 * 16; n < b.size {
			us := b.readTime(n, 4*sms)
			fmt.Printf("read %.2f MB a launch: %.2f µs %.0f GB/s\n", mb, us, float64(n)/us/1e3)
		}
	}
	const q4, q6 = tensor.Q4_K, tensor.Q6_K
	one := func(rows, k int, d tensor.DType, tokens int) benchProduct {
		return benchProduct{name: fmt.Sprintf("%s %d×%d T=%d", d, rows, k, tokens), tokens: tokens, k: k, matrices: []benchMatrix{{rows, d}}}
	}
	shapes := [][2]int{{4096, 14336}, {18944, 3584}, {3584, 18944}, {3584, 3584}, {8960, 1536}, {1536, 8960}, {1536, 1536}, {256, 1536}}
	if b.quick {
		shapes = shapes[len(shapes)-1:]
	}
	for _, small := range []bool{false, true} {
		matvecSmall = small
		fmt.Println("-- half the threads for little work:", small)
		for _, d := range []tensor.DType{q4, q6} {
			for _, s := range shapes {
				b.product(one(s[0], s[1], d, 1))
			}
		}
	}
	if b.quick {
		return
	}
	fmt.Println("-- output matrices")
	b.product(one(151936, 1536, q6, 1))
	b.product(one(152064, 3584, q6, 1))
	fmt.Println("-- fused")
	fused := fusedProducts
	for _, ahead := range []int{0, 4096, 8192, 16384} {
		matvecAhead = ahead
		fmt.Printf("-- %d bytes a warp prefetched before the wait\n", ahead)
		for _, p := range fused {
			b.product(p)
		}
		for _, next := range []int{0, 2048, 4096, 8192, 16384} {
			for i, name := range []string{"1.5B", "7B"} {
				fmt.Printf("%s: the four products of a layer in turn, %d bytes a warp prefetched for the next: %.2f µs\n", name, next, b.layer(fused[4*i:4*i+4], next))
			}
		}
	}
	matvecAhead = 0
	fmt.Println("-- several tokens")
	for _, tokens := range []int{2, 4} {
		for _, s := range [][2]int{{4096, 14336}, {18944, 3584}, {8960, 1536}} {
			if tokens <= matvecTokens(b.c.Device, q4, s[0], s[1]) {
				b.product(one(s[0], s[1], q4, tokens))
				b.product(one(s[0], s[1], q6, tokens))
			}
		}
	}
	fmt.Println("-- other formats")
	for _, d := range []tensor.DType{tensor.F32, tensor.F16, tensor.BF16, tensor.Q8_0, tensor.Q5_0, tensor.Q4_0, tensor.Q5_K, tensor.Q3_K, tensor.Q2_K, tensor.IQ4_NL, tensor.IQ4_XS} {
		b.product(one(4096, 14336, d, 1))
	}
}

// fusedProducts are those of a layer of Qwen2.5 1.5B and 7B in Q4_K_M.
var fusedProducts = []benchProduct{
	{name: "1.5B norm qkv", tokens: 1, k: 1536, matrices: []benchMatrix{{1536, tensor.Q4_K}, {256, tensor.Q4_K}, {256, tensor.Q6_K}}, norm: true},
	{name: "1.5B o + residual", tokens: 1, k: 1536, matrices: []benchMatrix{{1536, tensor.Q4_K}}, residual: true},
	{name: "1.5B norm gate up", tokens: 1, k: 1536, matrices: []benchMatrix{{8960, tensor.Q4_K}, {8960, tensor.Q4_K}}, norm: true, pair: true},
	{name: "1.5B down + residual", tokens: 1, k: 8960, matrices: []benchMatrix{{1536, tensor.Q6_K}}, residual: true},
	{name: "7B norm qkv", tokens: 1, k: 3584, matrices: []benchMatrix{{3584, tensor.Q4_K}, {512, tensor.Q4_K}, {512, tensor.Q6_K}}, norm: true},
	{name: "7B o + residual", tokens: 1, k: 3584, matrices: []benchMatrix{{3584, tensor.Q4_K}}, residual: true},
	{name: "7B norm gate up", tokens: 1, k: 3584, matrices: []benchMatrix{{18944, tensor.Q4_K}, {18944, tensor.Q4_K}}, norm: true, pair: true},
	{name: "7B down + residual", tokens: 1, k: 18944, matrices: []benchMatrix{{3584, tensor.Q6_K}}, residual: true},
}

// TestBenchMMA compares matvec_mma.h with matvec.h on the products of a layer.
func TestBenchMMA(t *testing.T) {
	b := newBench(t)
	defer func(least int) { mmaLeast = least }(mmaLeast)
	b.read = 4700
	products := slices.Clone(fusedProducts)
	if b.quick {
		products = products[1:2]
	}
	for _, least := range []int{3, 1} {
		mmaLeast = least
		fmt.Printf("-- matvec_mma.h from %d tokens\n", least)
		for _, p := range products {
			b.product(p)
		}
		if b.quick {
			continue
		}
		b.product(benchProduct{name: "7B logits", tokens: 1, k: 3584, matrices: []benchMatrix{{152064, tensor.Q6_K}}, norm: true})
		for _, next := range []int{4096} {
			for i, name := range []string{"1.5B", "7B"} {
				fmt.Printf("%s: the four products of a layer in turn, %d bytes a warp prefetched for the next: %.2f µs\n", name, next, b.layer(products[4*i:4*i+4], next))
			}
		}
	}
	for _, tokens := range []int{2, 4, 8} {
		for _, p := range products {
			p.tokens = min(tokens, matvecTokens(b.c.Device, tensor.Q6_K, 3584, p.k))
			p.rounded, p.norm = true, false
			p.name = fmt.Sprintf("%s T=%d", p.name, p.tokens)
			b.product(p)
		}
	}
}

// layer is the microseconds of one launch of each product, in turn, on other weights
// each time.
func (b *bench) layer(products []benchProduct, next int) float64 {
	var all [][]*kernelCall
	least := 1 << 30
	for _, p := range products {
		all = append(all, b.calls(p))
		least = min(least, len(all[len(all)-1]))
	}
	var chain []*kernelCall
	for i := range max(least, 12) {
		for _, calls := range all {
			chain = append(chain, calls[i%len(calls)])
		}
	}
	for i, k := range chain {
		k.prefetchNext(chain[(i+1)%len(chain)], next)
	}
	return float64(len(products)) * b.time(b.launchAll(chain), true)
}
