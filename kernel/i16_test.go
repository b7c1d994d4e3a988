package kernel

import (
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unsafe"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// i16Types lists the types of the int16 path in numeric order.
func i16Types() []tensor.DType {
	var types []tensor.DType
	for d := range i16Formats {
		types = append(types, d)
	}
	slices.Sort(types)
	return types
}

// i16Matrix fills a matrix with random blocks. kind "random" has every bit of
// the blocks random, "ones" and "zeros" set all bits of levels and sub-scales,
// "low" gives Q6_K its most negative scale (0x80) and other types a mixture.
func i16Matrix(rng *rand.Rand, d tensor.DType, rows, cols int, kind string) tensor.Tensor {
	size, err := d.RowBytes(cols)
	if err != nil {
		panic(err)
	}
	// One byte past a multiple of 64 and odd: no kernel may assume alignment.
	data := aligned[byte](rows*size + 1)[1:]
	for i := range data {
		switch kind {
		case "ones":
			data[i] = 0xff
		case "zeros":
			data[i] = 0
		case "low":
			data[i] = 0x80
		default:
			data[i] = byte(rng.Uint32())
		}
	}
	for b := 0; b < len(data); b += d.BlockBytes() {
		for _, at := range i16Formats[d].halves {
			// Signed and over four powers of ten, subnormal included.
			h := quant.F32ToF16(float32(rng.NormFloat64() * math.Pow(10, -1-4*rng.Float64())))
			data[b+at], data[b+at+1] = byte(h), byte(h>>8)
		}
	}
	return tensor.Tensor{Name: "w", Type: d, Shape: []int{rows, cols}, Data: data}
}

// i16Rows makes activations: Gaussian, with outliers, all extreme, zeros.
func i16Rows(rng *rand.Rand, tokens, cols int) (*I16, [][]float32) {
	return i16RowsUpTo(i16Max, rng, tokens, cols)
}

func i16RowsUpTo(largest int, rng *rand.Rand, tokens, cols int) (*I16, [][]float32) {
	x := &I16{limit: largest}
	x.Resize(tokens, cols)
	rows := make([][]float32, tokens)
	for t := range rows {
		rows[t] = make([]float32, cols)
		for i := range rows[t] {
			v := float32(rng.NormFloat64())
			switch t % 5 {
			case 1:
				if i%97 == 0 {
					v *= 300
				}
			case 2:
				v = 1
			case 3:
				v = -1
				if i/16%2 == 0 {
					v = 1
				}
			case 4:
				if i/256%2 == 0 {
					v = 0
				}
			}
			rows[t][i] = v
		}
		QuantizeI16(x, t, rows[t])
	}
	return x, rows
}

// row returns token t as the numbers it stands for, exactly.
func (a *I16) row(t int) []float64 {
	out := make([]float64, a.Cols)
	for i := range out {
		at := i/i16Chunk*a.Tokens + t
		out[i] = float64(a.Q[at*i16Chunk+i%i16Chunk]) * float64(a.Scale[at])
	}
	return out
}

// i16Reference computes the product of each row with each token in float64 and
// the scale of its rounding errors: the sum of magnitudes, where a weight with a
// minimum counts both its parts.
func i16Reference(t testing.TB, w tensor.Tensor, x *I16) (want, size [][]float64) {
	for tok := range x.Tokens {
		xs := x.row(tok)
		a, b := make([]float64, w.Rows()), make([]float64, w.Rows())
		weights := make([]float32, w.Cols())
		for r := range a {
			if err := quant.Dequantize(w.Type, weights, w.Row(r)); err != nil {
				t.Fatal(err)
			}
			f := i16Formats[w.Type]
			var c i16Weights
			for k, v := range weights {
				if k%i16Chunk == 0 {
					row := w.Row(r)[k/i16Chunk*f.chunkBytes:]
					f.decode(&c, row[:min(len(row), f.chunkBytes)])
				}
				d := float64(c.d[0])
				if !f.folded {
					d = float64(c.d[k%i16Chunk/32])
				}
				parts := math.Abs(d*float64(c.w[k%i16Chunk])) + math.Abs(float64(c.min[k%i16Chunk/16]))
				a[r] += float64(v) * xs[k]
				b[r] += parts * math.Abs(xs[k])
			}
		}
		want, size = append(want, a), append(size, b)
	}
	return want, size
}

// i16Tolerance is relative to the sum of magnitudes. Integer sums are exact;
// what remains is the rounding (2^-24) of up to 17 float32 terms a chunk and 7
// chunks, which is correlated when all terms are alike: at most 2^-17.
const i16Tolerance = 0x1p-18

func i16Compare(t *testing.T, got []float32, stride int, want, size [][]float64) {
	t.Helper()
	worst := 0.0
	for tok := range want {
		for r, v := range want[tok] {
			diff := math.Abs(float64(got[tok*stride+r]) - v)
			if !(diff <= i16Tolerance*size[tok][r]+1e-30) {
				t.Fatalf("token %d row %d: got %v, want %v (sum of magnitudes %g)", tok, r, got[tok*stride+r], v, size[tok][r])
			}
			if size[tok][r] > 0 {
				worst = max(worst, diff/size[tok][r]/i16Tolerance)
			}
		}
	}
	t.Logf("%.0f %% of the tolerance used", 100*worst)
}

// i16ColumnsOf gives test widths: whole chunks, and for types with small
// blocks every kind of partial one.
func i16ColumnsOf(d tensor.DType) []int {
	if d.BlockLen() == 256 {
		return []int{256, 512, 1792}
	}
	return []int{32, 64, 256, 288, 480, 896}
}

func TestMatVecI16(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, kind := range []string{"random", "ones", "zeros", "low"} {
				for _, cols := range i16ColumnsOf(d) {
					t.Run(fmt.Sprintf("%s/%s/%d", d, kind, cols), func(t *testing.T) {
						rng := rand.New(rand.NewPCG(1, uint64(cols)))
						w := i16Matrix(rng, d, 7, cols, kind)
						x, _ := i16Rows(rng, 5, cols)
						want, size := i16Reference(t, w, x)
						got := make([]float32, 5*7)
						for tok := range x.Tokens {
							MatVecI16(got[7*tok:7*tok+7], w, 0, 7, x, tok)
						}
						i16Compare(t, got, 7, want, size)
					})
				}
			}
		}
	})
}

// Rows so wide that the activations of one token, of two or of four do not fit the
// first-level cache are multiplied in blocks of columns. That may not show: for
// any number of tokens the bits are those of one.
func TestMatVecI16Wide(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range []tensor.DType{tensor.Q4_0, tensor.Q5_0, tensor.Q5_1, tensor.Q8_0, tensor.Q4_K, tensor.Q5_K, tensor.Q6_K} {
			for _, chunks := range []int{15, 35, 57} {
				t.Run(fmt.Sprintf("%s/%d", d, chunks), func(t *testing.T) {
					rng := rand.New(rand.NewPCG(1, uint64(chunks)))
					const rows, tokens = 67, 7
					w := i16Matrix(rng, d, rows, chunks*256, "random")
					x, _ := i16Rows(rng, tokens, chunks*256)
					got := make([]float32, tokens*rows)
					MatVecsI16(got, rows, w, 0, rows, x, 0, tokens)
					want, size := i16Reference(t, w, x)
					i16Compare(t, got, rows, want, size)
					one := make([]float32, rows)
					for tok := range tokens {
						MatVecI16(one[:1], w, 0, 1, x, tok)
						MatVecI16(one[1:], w, 1, rows, x, tok)
						if !slices.Equal(one, got[tok*rows:(tok+1)*rows]) {
							t.Fatalf("token %d alone differs from token %d of %d", tok, tok, tokens)
						}
					}
				})
			}
		}
	})
}

// The result of a row may depend neither on the range nor on the batch.
func TestMatVecI16Partition(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, cols := range []int{768, 896, 480, 96} {
				if cols%d.BlockLen() == 0 {
					t.Run(fmt.Sprintf("%s/%d", d, cols), func(t *testing.T) { checkPartition(t, d, cols) })
				}
			}
		}
	})
}

func checkPartition(t *testing.T, d tensor.DType, cols int) {
	rng := rand.New(rand.NewPCG(2, 2))
	const rows, tokens = 11, 9
	w := i16Matrix(rng, d, rows, cols, "random")
	x, raw := i16Rows(rng, tokens, cols)
	whole := make([]float32, tokens*rows)
	for tok := range tokens {
		MatVecI16(whole[tok*rows:(tok+1)*rows], w, 0, rows, x, tok)
	}
	var single I16
	single.Resize(1, cols)
	for tok := range tokens {
		QuantizeI16(&single, 0, raw[tok])
		for r := range rows {
			var one [1]float32
			MatVecI16(one[:], w, r, r+1, &single, 0)
			if one[0] != whole[tok*rows+r] {
				t.Fatalf("row %d token %d alone gives %v, in a range %v", r, tok, one[0], whole[tok*rows+r])
			}
		}
	}
	for t0 := range tokens {
		for t1 := t0 + 1; t1 <= tokens; t1++ {
			got := make([]float32, (t1-t0)*(rows+3))
			MatVecsI16(got, rows+3, w, 0, rows, x, t0, t1)
			for tok := t0; tok < t1; tok++ {
				at := (tok - t0) * (rows + 3)
				if !slices.Equal(got[at:at+rows], whole[tok*rows:(tok+1)*rows]) {
					t.Fatalf("tokens %d to %d: token %d differs from the single product", t0, t1, tok)
				}
			}
		}
	}
}

func TestMatMulI16(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, kind := range []string{"random", "ones", "zeros", "low"} {
				for _, cols := range i16ColumnsOf(d) {
					t.Run(fmt.Sprintf("%s/%s/%d", d, kind, cols), func(t *testing.T) {
						rng := rand.New(rand.NewPCG(3, uint64(cols)))
						const rows, tokens = 39, 27
						w := i16Matrix(rng, d, rows, cols, kind)
						x, _ := i16RowsUpTo(I16Largest(d), rng, tokens, cols)
						want, size := i16Reference(t, w, x)
						got := make([]float32, tokens*rows)
						var ws Workspace
						MatMulI16(got, rows, w, 0, rows, x, 0, tokens, &ws)
						i16Compare(t, got, rows, want, size)
					})
				}
			}
		}
	})
}

// What an earlier product has left in the workspace, here all bits set (NaN, −1), must
// not be seen by one with fewer rows and columns.
func TestMatMulI16Stale(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, cols := range i16ColumnsOf(d) {
				rng := rand.New(rand.NewPCG(5, uint64(cols)))
				const rows, tokens = 135, 13
				w := i16Matrix(rng, d, rows, cols, "random")
				x, _ := i16RowsUpTo(I16Largest(d), rng, tokens, cols)
				want, got := make([]float32, tokens*rows), make([]float32, tokens*rows)
				var ws Workspace
				MatMulI16(want, rows, w, 0, rows, x, 0, tokens, &ws)
				for _, p := range ws.panels {
					stale := unsafe.Slice((*byte)(unsafe.Pointer(p)), unsafe.Offsetof(p.cols))
					for i := range stale {
						stale[i] = 0xff
					}
				}
				for i := range ws.tiles {
					ws.tiles[i] = float32(math.NaN())
				}
				MatMulI16(got, rows, w, 0, rows, x, 0, tokens, &ws)
				if !slices.Equal(got, want) {
					t.Errorf("%s, %d columns: other results in a used workspace", d, cols)
				}
			}
		}
	})
}

// Every range of rows and tokens gives the same numbers, whatever tile they
// fall in, and nothing outside the range is written.
func TestMatMulI16Partition(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			t.Run(d.String(), func(t *testing.T) {
				rng := rand.New(rand.NewPCG(4, 4))
				// More rows than a band, and in some ranges more tokens than it takes at a time.
				const rows, cols, tokens = 170, 512, 160
				w := i16Matrix(rng, d, rows, cols, "random")
				x, _ := i16RowsUpTo(I16Largest(d), rng, tokens, cols)
				whole := make([]float32, tokens*rows)
				var ws Workspace
				MatMulI16(whole, rows, w, 0, rows, x, 0, tokens, &ws)
				got := make([]float32, tokens*rows)
				for n := 1; n < tokens; n += 1 + n/7 {
					t0 := rng.IntN(tokens - n)
					r0 := rng.IntN(rows)
					r1 := r0 + 1 + rng.IntN(rows-r0)
					for i := range got {
						got[i] = -12345
					}
					MatMulI16(got, rows, w, r0, r1, x, t0, t0+n+1, &ws)
					for i, v := range got {
						tok, r := i/rows, i%rows
						want := float32(-12345)
						if tok >= t0 && tok <= t0+n && r >= r0 && r < r1 {
							want = whole[i]
						}
						if v != want {
							t.Fatalf("rows %d to %d, tokens %d to %d: token %d row %d is %v, want %v", r0, r1, t0, t0+n+1, tok, r, v, want)
						}
					}
				}
			})
		}
	})
}

func TestQuantizeI16(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, cols := range []int{32, 64, 224, 256, 288, 1536} {
			rng := rand.New(rand.NewPCG(5, uint64(cols)))
			const tokens = 5
			x, rows := i16Rows(rng, tokens, cols)
			var plain I16
			plain.Resize(tokens, cols)
			for tok, row := range rows {
				quantizeI16Generic(&plain, tok, row)
				for i, v := range x.row(tok) {
					// Half a step, and the rounding of scale and inverse.
					step := float64(x.Scale[i/i16Chunk*tokens+tok])
					if diff := math.Abs(v - float64(row[i])); !(diff <= step*0.504) {
						t.Fatalf("%d columns: token %d element %d is %v, want %v", cols, tok, i, v, row[i])
					}
				}
			}
			if !slices.Equal(plain.Q, x.Q) || !slices.Equal(plain.Scale, x.Scale) ||
				!slices.Equal(plain.Sum, x.Sum) || !slices.Equal(plain.Sum32, x.Sum32) {
				t.Fatalf("%d columns: differs from plain Go", cols)
			}
			if quantizeI16Slot.Active() == cpufeat.AVX512 && !(slices.Equal(plain.Planes, x.Planes) && slices.Equal(plain.BlockPlanes, x.BlockPlanes) && slices.Equal(plain.Halves, x.Halves) && slices.Equal(plain.Pairs, x.Pairs)) {
				t.Fatalf("%d columns: planes differ from plain Go", cols)
			}
		}
	})
}

// Chunks that are quantised one by one, in any order, are those of the whole.
func TestQuantizeI16Parts(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, cols := range []int{32, 224, 256, 288, 896, 1536} {
			for _, tokens := range []int{1, 2, 5, planesTokens} {
				want, rows := i16Rows(rand.New(rand.NewPCG(6, uint64(cols))), tokens, cols)
				var got, part I16
				got.Resize(tokens, cols)
				for c := got.Chunks() - 1; c >= 0; c-- {
					got.Part(&part, c, c+1)
					for tok, row := range rows {
						QuantizeI16(&part, tok, row[c*I16Chunk:min((c+1)*I16Chunk, cols)])
					}
				}
				if !slices.Equal(got.Q, want.Q) || !slices.Equal(got.Scale, want.Scale) || !slices.Equal(got.Sum, want.Sum) || !slices.Equal(got.Sum32, want.Sum32) {
					t.Fatalf("%d columns, %d tokens: parts differ from the whole", cols, tokens)
				}
				if !slices.Equal(got.Planes, want.Planes) || !slices.Equal(got.BlockPlanes, want.BlockPlanes) || !slices.Equal(got.Halves, want.Halves) || !slices.Equal(got.Pairs, want.Pairs) {
					t.Fatalf("%d columns, %d tokens: planes of parts differ from those of the whole", cols, tokens)
				}
			}
		}
	})
}

// Whatever is not a number must reach the result; what is tiny is zero.
func TestQuantizeI16Special(t *testing.T) {
	inf := float32(math.Inf(1))
	nan := float32(math.NaN())
	eachLevel(t, func(t *testing.T) {
		for _, tc := range []struct {
			name  string
			value float32
			at    int
			bad   bool
		}{
			{"NaN first", nan, 0, true},
			{"NaN last", nan, 319, true},
			{"NaN middle", nan, 77, true},
			{"infinity", inf, 300, true},
			{"minus infinity", -inf, 131, true},
			{"largest", math.MaxFloat32, 5, false},
			{"tiny", 0x1p-126, 5, false},
			{"subnormal", 0x1p-149, 5, false},
			{"smallest kept", 0x1p-100, 5, false},
		} {
			t.Run(tc.name, func(t *testing.T) {
				row := make([]float32, 320)
				row[tc.at] = tc.value
				var x I16
				x.Resize(1, 320)
				for i := range x.Q {
					x.Q[i] = -1
				}
				QuantizeI16(&x, 0, row)
				scale, want := x.Scale[tc.at/256], float32(0)
				if v := float32(math.Abs(float64(tc.value))); v >= 0x1p-100 {
					want = v / 32639
				}
				if isNaN := scale != scale; isNaN != tc.bad || !tc.bad && scale != want {
					t.Fatalf("scale is %v, want %v (not a number: %v)", scale, want, tc.bad)
				}
				w := i16Matrix(rand.New(rand.NewPCG(6, 6)), tensor.Q8_0, 3, 320, "random")
				var out [3]float32
				MatVecI16(out[:], w, 0, 3, &x, 0)
				var ws Workspace
				var outs [3]float32
				MatMulI16(outs[:], 3, w, 0, 3, &x, 0, 1, &ws)
				for i := range out {
					if (out[i] != out[i]) != tc.bad || (outs[i] != outs[i]) != tc.bad {
						t.Errorf("row %d is %v and %v", i, out[i], outs[i])
					}
				}
			})
		}
	})
}

// A NaN scale in the file must be seen in its row, and only there.
func TestI16BadScale(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, d := range i16Types() {
			for _, at := range i16Formats[d].halves {
				rng := rand.New(rand.NewPCG(7, 7))
				w := i16Matrix(rng, d, 5, 512, "random")
				row := w.Row(3)
				row[at], row[at+1] = 0xff, 0x7f
				x, _ := i16Rows(rng, 1, 512)
				out, outs := make([]float32, 5), make([]float32, 5)
				var ws Workspace
				MatVecI16(out, w, 0, 5, x, 0)
				MatMulI16(outs, 5, w, 0, 5, x, 0, 1, &ws)
				for r := range 5 {
					if (out[r] != out[r]) != (r == 3) || (outs[r] != outs[r]) != (r == 3) {
						t.Errorf("%s: row %d is %v and %v", d, r, out[r], outs[r])
					}
				}
			}
		}
	})
}

func TestI16Allocations(t *testing.T) {
	rng := rand.New(rand.NewPCG(8, 8))
	w := i16Matrix(rng, tensor.Q4_K, 40, 512, "random")
	x, rows := i16Rows(rng, 14, 512)
	out := make([]float32, 14*40)
	var ws Workspace
	if n := testing.AllocsPerRun(5, func() {
		x.Resize(13, 512)
		QuantizeI16(x, 3, rows[3])
		MatVecI16(out, w, 0, 40, x, 3)
		MatMulI16(out, 40, w, 0, 40, x, 0, 13, &ws)
	}); n != 0 {
		t.Errorf("%v allocations in steady state", n)
	}
}

func TestI16Misuse(t *testing.T) {
	w := i16Matrix(rand.New(rand.NewPCG(9, 9)), tensor.Q4_K, 4, 256, "random")
	var x, narrow I16
	x.Resize(2, 256)
	narrow.Resize(2, 512)
	out := make([]float32, 8)
	f32 := tensor.Tensor{Name: "f", Type: tensor.F32, Shape: []int{4, 256}, Data: make([]byte, 4096)}
	for _, tc := range []struct {
		name string
		call func()
		want string
	}{
		{"type", func() { MatVecI16(out, f32, 0, 4, &x, 0) }, "no int16 product for f F32 [4, 256]"},
		{"columns", func() { MatVecI16(out, w, 0, 4, &narrow, 0) }, "does not fit 512 columns"},
		{"rows", func() { MatVecI16(out, w, 0, 5, &x, 0) }, "rows 0 to 5"},
		{"token", func() { MatVecI16(out, w, 0, 4, &x, 2) }, "tokens 2 to 3"},
		{"short output", func() { MatVecI16(out[:3], w, 0, 4, &x, 0) }, "too short"},
		{"short batch output", func() { MatMulI16(out[:7], 4, w, 0, 4, &x, 0, 2, new(Workspace)) }, "too short"},
		{"odd width", func() { x.Resize(1, 48) }, "multiple of 32"},
		{"quantise", func() { QuantizeI16(&x, 0, make([]float32, 255)) }, "255 of 256 columns"},
	} {
		t.Run(tc.name, func(t *testing.T) {
			defer func() {
				if got := fmt.Sprint(recover()); !strings.Contains(got, tc.want) {
					t.Errorf("panic %q, want it to contain %q", got, tc.want)
				}
			}()
			tc.call()
		})
	}
}
