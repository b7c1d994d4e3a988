package quant

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"strconv"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

// golden is what gguf-py (llama.cpp, February 2025, numpy) gives for the inputs
// that goldenInput makes; see TestDequantizeGolden.
type golden struct {
	Dequantize map[string]struct {
		Chunks []string // SHA-256 (first 8 bytes) of each 4096 blocks' float32, little-endian
		Sample [][2]any // element, its bits in hexadecimal
	} `json:"dequantize"`
	ToF16  string `json:"to_f16"`
	ToBF16 string `json:"to_bf16"`
}

const (
	goldenBlocks = 65536
	goldenChunk  = 4096
)

func readGolden(t *testing.T) golden {
	t.Helper()
	raw, err := os.ReadFile("testdata/dequantize.json")
	if err != nil {
		t.Fatal(err)
	}
	var g golden
	if err := json.Unmarshal(raw, &g); err != nil {
		t.Fatal(err)
	}
	return g
}

// splitmix fills data with the SplitMix64 stream of a seed, words little-endian.
func splitmix(seed uint64, data []byte) {
	for i := 0; i < len(data); i += 8 {
		seed += 0x9E3779B97F4A7C15
		z := seed
		z = (z ^ z>>30) * 0xBF58476D1CE4E5B9
		z = (z ^ z>>27) * 0x94D049BB133111EB
		z ^= z >> 31
		var word [8]byte
		binary.LittleEndian.PutUint64(word[:], z)
		copy(data[i:], word[:])
	}
}

// halfOffsets are the places of the F16 scales in a block.
var halfOffsets = map[tensor.DType][]int{
	tensor.F32: nil, tensor.F16: {0}, tensor.BF16: {0},
	tensor.Q4_0: {0}, tensor.Q4_1: {0, 2}, tensor.Q5_0: {0}, tensor.Q5_1: {0, 2}, tensor.Q8_0: {0},
	tensor.Q2_K: {80, 82}, tensor.Q3_K: {108}, tensor.Q4_K: {0, 2}, tensor.Q5_K: {0, 2}, tensor.Q6_K: {208},
	tensor.IQ4_NL: {0}, tensor.IQ4_XS: {0},
}

// goldenInput makes 65536 blocks: SplitMix64 seeded with the type's number, and
// as scales every one of the 65536 bit patterns, so zero, subnormal, negative,
// infinite and NaN scales all occur. The second scale of a block takes them in
// another order (times 40503, modulo 65536).
func goldenInput(typ tensor.DType) []byte {
	size := typ.BlockBytes()
	data := make([]byte, goldenBlocks*size)
	splitmix(uint64(typ), data)
	for k, off := range halfOffsets[typ] {
		for i := range goldenBlocks {
			v := i * [2]int{1, 40503}[k]
			binary.LittleEndian.PutUint16(data[i*size+off:], uint16(v))
		}
	}
	return data
}

// canonicalBits are the bits of f with every NaN made the same: which NaN comes
// out of NaN·x depends on the order of the CPU's operands.
func canonicalBits(f float32) uint32 {
	if f != f {
		return 0x7fc00000
	}
	return math.Float32bits(f)
}

func digest(data []byte) string {
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:8])
}

// TestDequantizeGolden compares every type, bit for bit, with gguf-py.
func TestDequantizeGolden(t *testing.T) {
	g := readGolden(t)
	if len(g.Dequantize) != len(Formats()) {
		t.Errorf("golden file has %d types, the table %d", len(g.Dequantize), len(Formats()))
	}
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			want, ok := g.Dequantize[f.Type.String()]
			if !ok || len(want.Chunks) != goldenBlocks/goldenChunk || len(want.Sample) == 0 {
				t.Fatal("golden file is incomplete")
			}
			input := goldenInput(f.Type)
			length, size := f.Type.BlockLen(), f.Type.BlockBytes()
			dst := make([]float32, goldenBlocks*length)
			if err := Dequantize(f.Type, dst, input); err != nil {
				t.Fatal(err)
			}
			for _, s := range want.Sample {
				i := int(s[0].(float64))
				bits, err := strconv.ParseUint(s[1].(string), 16, 32)
				if err != nil {
					t.Fatal(err)
				}
				if got := canonicalBits(dst[i]); got != uint32(bits) {
					block := i / length
					t.Errorf("element %d: got %v (%08x), want %v (%08x); block %x", i, dst[i], got,
						math.Float32frombits(uint32(bits)), bits, input[block*size:(block+1)*size])
				}
			}
			buf := make([]byte, 4*goldenChunk*length)
			for c, hash := range want.Chunks {
				for i, v := range dst[c*goldenChunk*length : (c+1)*goldenChunk*length] {
					binary.LittleEndian.PutUint32(buf[4*i:], canonicalBits(v))
				}
				if got := digest(buf); got != hash {
					t.Errorf("blocks %d to %d: digest %s, want %s", c*goldenChunk, (c+1)*goldenChunk-1, got, hash)
				}
			}
		})
	}
}

// conversionInputs are float32 bit patterns at, between and beside all F16
// numbers, and a million random ones; each with both signs.
func conversionInputs() []uint32 {
	var exact, mid, below, above []uint32
	for h := range uint16(0x7c00) {
		a, b := F16ToF32(h), F16ToF32(h+1)
		if h == 0x7bff {
			b = 65536 // where the next number would be
		}
		m := math.Float32bits(float32((float64(a) + float64(b)) / 2))
		exact = append(exact, math.Float32bits(a))
		mid = append(mid, m)
		below = append(below, m-1)
		above = append(above, m+1)
	}
	random := make([]byte, 4<<20)
	splitmix(99, random)
	all := append(exact, below...)
	all = append(append(all, mid...), above...)
	for i := 0; i < len(random); i += 4 {
		all = append(all, binary.LittleEndian.Uint32(random[i:]))
	}
	for _, v := range all[:len(all):len(all)] {
		all = append(all, v^0x80000000)
	}
	return all
}

// TestConversions compares the rounding of F32 to F16 with numpy's and to BF16
// with gguf-py's, by digest; NaN of any payload counts as the same NaN.
func TestConversions(t *testing.T) {
	g := readGolden(t)
	in := conversionInputs()
	f16, bf16 := make([]byte, 2*len(in)), make([]byte, 2*len(in))
	for i, bits := range in {
		f := math.Float32frombits(bits)
		h, b := F32ToF16(f), F32ToBF16(f)
		if f != f {
			if v := F16ToF32(h); v == v {
				t.Fatalf("F32ToF16 turned NaN %08x into %v", bits, v)
			}
			if v := BF16ToF32(b); v == v {
				t.Fatalf("F32ToBF16 turned NaN %08x into %v", bits, v)
			}
			h, b = 0x7e00, 0x7fc0
		}
		binary.LittleEndian.PutUint16(f16[2*i:], h)
		binary.LittleEndian.PutUint16(bf16[2*i:], b)
	}
	if got := digest(f16); got != g.ToF16 {
		t.Errorf("F32ToF16: digest %s, want %s", got, g.ToF16)
	}
	if got := digest(bf16); got != g.ToBF16 {
		t.Errorf("F32ToBF16: digest %s, want %s", got, g.ToBF16)
	}
}

func TestConversionCases(t *testing.T) {
	inf := float32(math.Inf(1))
	for _, c := range []struct {
		name string
		f    float32
		f16  uint16
		bf16 uint16
	}{
		{"zero", 0, 0, 0},
		{"minus zero", float32(math.Copysign(0, -1)), 0x8000, 0x8000},
		{"one", 1, 0x3c00, 0x3f80},
		{"largest F16", 65504, 0x7bff, 0x4780},
		{"just below the overflow of F16", 65519.996, 0x7bff, 0x4780},
		{"overflow of F16", 65520, 0x7c00, 0x4780},
		{"infinity", inf, 0x7c00, 0x7f80},
		{"minus infinity", -inf, 0xfc00, 0xff80},
		{"largest F32", math.MaxFloat32, 0x7c00, 0x7f80},
		{"smallest normal F16", 0x1p-14, 0x0400, 0x3880},
		{"smallest subnormal F16", 0x1p-24, 0x0001, 0x3380},
		{"half of it: tie to even", 0x1p-25, 0, 0x3300},
		{"above half of it", 0x1.000002p-25, 1, 0x3300},
		{"tie to odd neighbour's even", 3 * 0x1p-25, 2, 0x33c0},
		{"smallest F32", math.SmallestNonzeroFloat32, 0, 0},
	} {
		t.Run(c.name, func(t *testing.T) {
			if got := F32ToF16(c.f); got != c.f16 {
				t.Errorf("F32ToF16(%v) = %04x, want %04x", c.f, got, c.f16)
			}
			if got := F32ToBF16(c.f); got != c.bf16 {
				t.Errorf("F32ToBF16(%v) = %04x, want %04x", c.f, got, c.bf16)
			}
		})
	}
}

// TestF16RoundTrip: every F16 and BF16 number survives the way through float32.
func TestF16RoundTrip(t *testing.T) {
	for i := range 65536 {
		h := uint16(i)
		want := h
		if h&0x7fff > 0x7c00 {
			want |= 0x200 // signalling NaN becomes quiet
		}
		if got := F32ToF16(F16ToF32(h)); got != want {
			t.Fatalf("F16 %04x came back as %04x", h, got)
		}
		want = h
		if h&0x7fff > 0x7f80 {
			want |= 0x40
		}
		if got := F32ToBF16(BF16ToF32(h)); got != want {
			t.Fatalf("BF16 %04x came back as %04x", h, got)
		}
	}
}

func BenchmarkDequantize(b *testing.B) {
	for _, f := range Formats() {
		b.Run(f.Type.String(), func(b *testing.B) {
			const n = 1 << 16
			size, err := f.Type.RowBytes(n)
			if err != nil {
				b.Fatal(err)
			}
			src, dst := make([]byte, size), make([]float32, n)
			splitmix(1, src)
			b.SetBytes(int64(size))
			for b.Loop() {
				f.Dequantize(dst, src)
			}
			b.ReportMetric(float64(b.N)*n/b.Elapsed().Seconds()/1e6, "Melem/s")
		})
	}
}

func BenchmarkValidate(b *testing.B) {
	for _, f := range Formats() {
		b.Run(f.Type.String(), func(b *testing.B) {
			size, err := f.Type.RowBytes(1 << 20)
			if err != nil {
				b.Fatal(err)
			}
			data := make([]byte, size)
			b.SetBytes(int64(size))
			for b.Loop() {
				if i, ok := Validate(f.Type, data); !ok {
					b.Fatal(fmt.Sprint("bad block ", i))
				}
			}
		})
	}
}
