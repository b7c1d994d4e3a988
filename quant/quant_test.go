package quant

import (
	"encoding/binary"
	"errors"
	"math"
	"testing"

	"github.com/apr-engine/apr/tensor"
)

func TestErrors(t *testing.T) {
	inf, nan := float32(math.Inf(1)), float32(math.NaN())
	for _, f := range Formats() {
		size, length := f.Type.BlockBytes(), f.Type.BlockLen()
		t.Run(f.Type.String(), func(t *testing.T) {
			dst, src := make([]float32, 2*length), make([]byte, 2*size)
			for _, c := range []struct {
				name  string
				dst   []float32
				src   []byte
				fails bool
			}{
				{"fits", dst, src, false},
				{"nothing", nil, nil, false},
				{"a block too few", dst, src[size:], true},
				{"a byte too few", dst, src[1:], true},
				{"a block too many", dst[length:], src, true},
				{"an element too few", dst[1:], src, true},
				{"empty source", dst, nil, true},
				{"empty destination", nil, src, true},
			} {
				if err := Dequantize(f.Type, c.dst, c.src); (err != nil) != c.fails || c.fails && !errors.Is(err, ErrLength) {
					t.Errorf("dequantise, %s: got %v", c.name, err)
				}
				if err := Quantize(f.Type, c.src, c.dst, nil); (err != nil) != c.fails || c.fails && !errors.Is(err, ErrLength) {
					t.Errorf("quantise, %s: got %v", c.name, err)
				}
			}
			for _, c := range []struct {
				name    string
				weights []float32
				want    error
			}{
				{"no weights", []float32{}, ErrLength},
				{"too many", make([]float32, 3*length), ErrLength},
				{"NaN", fillWith(length, nan), ErrNotFinite},
				{"infinite", fillWith(length, inf), ErrNotFinite},
				{"negative", fillWith(length, -1), ErrNotFinite},
			} {
				if err := Quantize(f.Type, src, dst, c.weights); !errors.Is(err, c.want) {
					t.Errorf("weights, %s: got %v, want %v", c.name, err, c.want)
				}
			}
			for _, v := range []float32{nan, inf, -inf} {
				bad := make([]float32, 2*length)
				bad[2*length-1] = v
				err := Quantize(f.Type, src, bad, nil)
				if !errors.Is(err, ErrNotFinite) {
					t.Errorf("%v: got %v, want ErrNotFinite", v, err)
				}
			}
			if f.Type != tensor.F32 {
				if err := Quantize(f.Type, src, fillWith(2*length, math.MaxFloat32), nil); !errors.Is(err, ErrNotFinite) {
					t.Errorf("too large: got %v, want ErrNotFinite", err)
				}
			}
		})
	}
	for _, typ := range []tensor.DType{4, tensor.I32, 31, 32, 1 << 31, math.MaxUint32} {
		if _, ok := Lookup(typ); ok {
			t.Errorf("%s has a format", typ)
		}
		if err := Dequantize(typ, make([]float32, 32), make([]byte, 32)); !errors.Is(err, ErrType) {
			t.Errorf("dequantise %s: got %v, want ErrType", typ, err)
		}
		if err := Quantize(typ, make([]byte, 32), make([]float32, 32), nil); !errors.Is(err, ErrType) {
			t.Errorf("quantise %s: got %v, want ErrType", typ, err)
		}
		if _, ok := Validate(typ, nil); ok {
			t.Errorf("validate %s: passed", typ)
		}
		if v := Dot(typ, nil, nil); v == v {
			t.Errorf("dot %s: got %v, want NaN", typ, v)
		}
	}
}

func fillWith(n int, v float32) []float32 {
	x := make([]float32, n)
	for i := range x {
		x[i] = v
	}
	return x
}

// TestValidate puts an infinity and a NaN at each scale of each block in turn.
func TestValidate(t *testing.T) {
	const n = 9 // an odd number, so that words of 8 bytes do not fit
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			size := f.Type.BlockBytes()
			clean := make([]byte, n*size)
			splitmix(3, clean)
			type scale struct {
				off  int
				bad  []byte
				good []byte
			}
			var scales []scale
			for _, off := range halfOffsets[f.Type] {
				scales = append(scales, scale{off, []byte{0, 0x7c}, []byte{0xff, 0x7b}}, scale{off, []byte{1, 0xfe}, []byte{0xff, 0xfb}})
			}
			switch f.Type {
			case tensor.F32:
				scales = []scale{{0, []byte{0, 0, 0x80, 0x7f}, []byte{0xff, 0xff, 0x7f, 0x7f}}, {0, []byte{1, 0, 0xc0, 0xff}, []byte{0, 0, 0, 0}}}
			case tensor.BF16:
				scales = []scale{{0, []byte{0x80, 0x7f}, []byte{0x7f, 0x7f}}, {0, []byte{0xc0, 0xff}, []byte{0x7f, 0xff}}}
			}
			for b := range n {
				for _, s := range scales {
					copy(clean[b*size+s.off:], s.good)
				}
			}
			if b, ok := Validate(f.Type, clean); !ok || b != 0 {
				t.Fatalf("clean data: block %d, %v", b, ok)
			}
			if len(scales) == 0 {
				t.Fatal("nothing to break")
			}
			for b := range n {
				for _, s := range scales {
					data := append([]byte(nil), clean...)
					copy(data[b*size+s.off:], s.bad)
					if got, ok := Validate(f.Type, data); ok || got != b {
						t.Errorf("% x at byte %d of block %d: got block %d, %v", s.bad, s.off, b, got, ok)
					}
				}
			}
			if size > 1 {
				if got, ok := Validate(f.Type, clean[:n*size-1]); ok || got != n-1 {
					t.Errorf("cut short: got block %d, %v", got, ok)
				}
			}
			if _, ok := Validate(f.Type, nil); !ok {
				t.Error("no data: refused")
			}
		})
	}
}

// TestDot compares with a sum over dequantised numbers, over several chunks.
func TestDot(t *testing.T) {
	for _, f := range Formats() {
		t.Run(f.Type.String(), func(t *testing.T) {
			n := 3*256 + f.Type.BlockLen()
			row, err := f.Type.RowBytes(n)
			if err != nil {
				t.Fatal(err)
			}
			data, w, x := make([]byte, row), make([]float32, n), normal(2, n, 1)
			if err := Quantize(f.Type, data, normal(1, n, 1), nil); err != nil {
				t.Fatal(err)
			}
			if err := Dequantize(f.Type, w, data); err != nil {
				t.Fatal(err)
			}
			want := 0.0
			for i := range w {
				want += float64(w[i]) * float64(x[i])
			}
			if got := Dot(f.Type, data, x); got != want {
				t.Errorf("got %v, want %v", got, want)
			}
			if got := Dot(f.Type, data[1:], x); got == got {
				t.Errorf("a byte too few: got %v, want NaN", got)
			}
		})
	}
}

// TestLayouts: the blocks have the sizes that the tensor types promise.
func TestLayouts(t *testing.T) {
	for _, f := range Formats() {
		got, ok := Lookup(f.Type)
		if !ok || got.Type != f.Type {
			t.Errorf("%s is not found by its number", f.Type)
		}
		// blocks() with a wrong size would leave the last block untouched.
		n := 3 * f.Type.BlockLen()
		dst := fillWith(n, float32(math.NaN()))
		f.Dequantize(dst, make([]byte, 3*f.Type.BlockBytes()))
		for i, v := range dst {
			if v != 0 {
				t.Errorf("%s: element %d of zeroed blocks is %v", f.Type, i, v)
				break
			}
		}
	}
}

// FuzzDequantize: any bytes and any destination give numbers or an error.
func FuzzDequantize(f *testing.F) {
	f.Add(uint32(tensor.Q4_K), make([]byte, 144), 256)
	f.Add(uint32(tensor.Q8_0), make([]byte, 33), 32)
	f.Add(uint32(99), []byte{}, 0)
	f.Fuzz(func(t *testing.T, typ uint32, data []byte, n int) {
		if n < 0 || n > 1<<16 {
			return
		}
		d := tensor.DType(typ)
		dst := make([]float32, n)
		if err := Dequantize(d, dst, data); err == nil {
			size, err := d.RowBytes(n)
			if err != nil || size != len(data) {
				t.Fatalf("%s: %d elements from %d bytes accepted", d, n, len(data))
			}
		}
		Validate(d, data)
		Dot(d, data, dst)
	})
}

// FuzzQuantize: whatever floats come in, the result is finite or refused.
func FuzzQuantize(f *testing.F) {
	f.Add(uint8(3), make([]byte, 1024))
	f.Fuzz(func(t *testing.T, row uint8, data []byte) {
		typ := formats[int(row)%len(formats)].Type
		x := make([]float32, superBlock)
		for i := range x {
			if 4*i+4 <= len(data) {
				x[i] = math.Float32frombits(binary.LittleEndian.Uint32(data[4*i:]))
			}
		}
		size, err := typ.RowBytes(len(x))
		if err != nil {
			t.Fatal(err)
		}
		dst := make([]byte, size)
		if err := Quantize(typ, dst, x, nil); err != nil {
			if !errors.Is(err, ErrNotFinite) {
				t.Fatal(err)
			}
			return
		}
		if i, ok := Validate(typ, dst); !ok {
			t.Fatalf("%s: block %d is not finite", typ, i)
		}
	})
}
