package kernels

import (
	"fmt"
	"math"
	"math/rand/v2"
	"strconv"
	"testing"

	"github.com/apr-engine/apr/backend/packed"
	"github.com/apr-engine/apr/driver/wgpu"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

func itoa(i int) string { return strconv.Itoa(i) }

// matrix is a random matrix as in a file, packed and as numbers.
type matrix struct {
	t      tensor.DType
	k, n   int
	raw    []byte
	packed []byte
	values []float32
}

// newMatrix makes n rows of k weights whose blocks have random bits: every level and
// every scale occurs, F16 scales of all magnitudes included, subnormal ones too, as
// long as they are finite.
func newMatrix(t testing.TB, typ tensor.DType, k, n int, seed uint64) *matrix {
	t.Helper()
	rng := rand.New(rand.NewPCG(seed, 7))
	size, err := typ.RowBytes(k)
	if err != nil {
		t.Fatal(err)
	}
	m := &matrix{t: typ, k: k, n: n, raw: make([]byte, size*n)}
	for i := range m.raw {
		m.raw[i] = byte(rng.Uint32())
	}
	m.tame(rng)
	l, err := packed.Of(typ, k)
	if err != nil {
		t.Fatal(err)
	}
	m.packed = make([]byte, l.RowBytes*n)
	if err := packed.Rows(m.packed, m.raw, typ, k, n); err != nil {
		t.Fatal(err)
	}
	m.values = make([]float32, k*n)
	if err := quant.Dequantize(typ, m.values, m.raw); err != nil {
		t.Fatal(err)
	}
	return m
}

// tame replaces scales by sensible ones: numbers of a few hundredths, some tiny.
func (m *matrix) tame(rng *rand.Rand) {
	l, _ := quant.LayoutOf(m.t)
	block := m.t.BlockBytes()
	scale := func(b []byte, c float64) {
		f := c * (0.5 + rng.Float64())
		if rng.IntN(16) == 0 {
			f *= 1e-4 // subnormal in F16
		}
		if rng.IntN(2) == 0 && len(l.Parts) > 1 || len(l.Parts) == 1 && rng.IntN(2) == 0 {
			f = -f
		}
		h := quant.F32ToF16(float32(f))
		b[0], b[1] = byte(h), byte(h>>8)
	}
	for at := 0; at < len(m.raw); at += block {
		b := m.raw[at : at+block]
		switch m.t {
		case tensor.F32:
			u := math.Float32bits(float32(rng.NormFloat64() * 0.05))
			b[0], b[1], b[2], b[3] = byte(u), byte(u>>8), byte(u>>16), byte(u>>24)
			continue
		case tensor.BF16:
			u := quant.F32ToBF16(float32(rng.NormFloat64() * 0.05))
			b[0], b[1] = byte(u), byte(u>>8)
			continue
		}
		for _, p := range l.Parts {
			if p.Scale {
				c := 0.004
				if m.t == tensor.F16 {
					c = 0.05
				}
				scale(b, c)
			}
			b = b[p.Size:]
		}
	}
}

// dequantKernel writes a whole matrix as numbers.
func dequantKernel(w Weight, n int) Kernel {
	return Kernel{
		Name: "dequant " + w.Kind(),
		WGSL: Helpers() + `
@group(0) @binding(0) var<storage, read> w: array<vec4<u32>>;
@group(0) @binding(1) var<storage, read_write> y: array<vec4<f32>>;
` + w.Functions() + fmt.Sprintf(`
@compute @workgroup_size(32) fn main(@builtin(global_invocation_id) id: vec3<u32>) {
  let row = id.x / %[1]du;
  let b = id.x %% %[1]du;
  if row >= %[2]du { return; }
  let o = w_dequant32(row, b);
  for (var i = 0u; i < 8u; i++) { y[id.x * 8u + i] = o[i]; }
}`, w.K/32, n),
		Bindings: []Binding{{"w", wgpu.ReadOnly}, {"y", wgpu.ReadWrite}},
		Grid:     [3]int{(n*w.K/32 + 31) / 32, 1, 1},
	}
}

// shortRow is the shortest row, of an odd number of blocks, that is interesting.
func shortRow(t tensor.DType) int {
	if t.BlockLen() == 256 {
		return 3 * 256
	}
	return 5 * 32
}

// TestDequant: shaders read every format as package quant defines it. Formats with an
// offset round s·q once or twice, as the device likes to fuse; the others are exact.
func TestDequant(t *testing.T) {
	r := newRig(t, wgpu.Features{})
	for _, f := range quant.Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			r := &rig{t, r.d}
			k, n := shortRow(f.Type), 7
			m := newMatrix(t, f.Type, k, n, 1)
			w, err := NewWeight("w", f.Type, k)
			if err != nil {
				t.Fatal(err)
			}
			y := r.empty(4 * k * n)
			r.run(r.bind(dequantKernel(w, n), true, buffer(r, m.packed), y))
			for i, got := range read[float32](r, y, k*n) {
				want := m.values[i]
				limit := 0.0
				if w.Offset() {
					limit = 0x1p-23 * 8 * math.Abs(float64(want))
					limit = max(limit, 0x1p-22) // s·q and m cancel
				}
				if d := math.Abs(float64(got - want)); !(d <= limit) {
					t.Fatalf("row %d, weight %d: %g, want %g", i/k, i%k, got, want)
				}
			}
		})
	}
}
