package kernel

import (
	"errors"
	"math"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/apr-engine/apr/internal/cpufeat"
	"github.com/apr-engine/apr/tensor"
)

func TestSelfTestPasses(t *testing.T) {
	eachLevel(t, func(t *testing.T) {
		for _, f := range SelfTest() {
			t.Error(f)
		}
	})
}

// TestSelfTestCoversEveryKernel: each kernel with assembly has a check,
// and each check a kernel. The peak primitives compute nothing that is used.
func TestSelfTestCoversEveryKernel(t *testing.T) {
	for _, s := range slots {
		family, _, _ := strings.Cut(s.Name(), "/")
		if !slices.Contains([]string{"f32", "f16", "dequant", "matvec", "matmul", "unpack", "quantize"}, family) {
			continue
		}
		has := slices.ContainsFunc(selfTests, func(c selfTest) bool { return c.kernel == s.Name() })
		if !has && len(s.Levels()) > 1 && s != switchable(slotPeak) {
			t.Errorf("%s has no self-test", s.Name())
		}
	}
	for _, c := range selfTests {
		if slotNamed(c.kernel) == nil {
			t.Errorf("self-test of %s, which does not exist", c.kernel)
		}
	}
}

// TestSelfTestReplacesBroken breaks one kernel after another on purpose and
// watches the self-test name it and run plain Go from then on.
func TestSelfTestReplacesBroken(t *testing.T) {
	if slotAdd.Active() == cpufeat.Generic {
		t.Skip("no variants: built without assembly, or not on this machine, or not under this APR_CPU")
	}
	broken := []struct {
		name string
		s    switchable
		with func() (restore func())
	}{
		{"a wrong term", slotAdd, func() func() {
			return spoil(slotAdd, func(good func(dst, a, b []float32)) func(dst, a, b []float32) {
				return func(dst, a, b []float32) {
					good(dst, a, b)
					dst[len(dst)-1]++
				}
			})
		}},
		{"a NaN", slotDotF32, func() func() {
			return spoil(slotDotF32, func(func(a, b []float32) float32) func(a, b []float32) float32 {
				return func(a, b []float32) float32 { return float32(math.NaN()) }
			})
		}},
		{"last token of a tile dropped", slotTile, func() func() {
			return spoil(slotTile, func(good tileSignature) tileSignature {
				return func(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int) {
					good(acc, accStride, w, wStride, rows, x, xStride, tokens-tokens/6, n)
				}
			})
		}},
		{"one bit of a weight", dequantSlots[12], func() func() {
			return spoil(dequantSlots[12], func(good func([]float32, []byte)) func([]float32, []byte) {
				return func(dst []float32, src []byte) {
					src = slices.Clone(src)
					src[20] ^= 1
					good(dst, src)
				}
			})
		}},
		{"the last blocks of a row dropped, where they are no chunk", i16Formats[tensor.Q8_0].matVec, func() func() {
			return spoil(i16Formats[tensor.Q8_0].matVec, func(good matVecI16Func) matVecI16Func {
				return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
					w = slices.Clone(w)
					for i := range rows {
						row := w[i*rowBytes : (i+1)*rowBytes]
						clear(row[rowBytes/272*272:]) // 8 blocks of 34 bytes
					}
					good(out, stride, w, rowBytes, rows, x, t0, t1)
				}
			})
		}},
		{"the last of an odd number of rows dropped", i16Formats[tensor.Q4_K].matVec, func() func() {
			return spoil(i16Formats[tensor.Q4_K].matVec, func(good matVecI16Func) matVecI16Func {
				return func(out []float32, stride int, w []byte, rowBytes, rows int, x *I16, t0, t1 int) {
					good(out, stride, w, rowBytes, max(1, rows&^1), x, t0, t1)
				}
			})
		}},
		{"the last block of a chunk with fewer not unpacked", i16Formats[tensor.Q5_0].unpack, func() func() {
			return spoil(i16Formats[tensor.Q5_0].unpack, func(good unpackI16Func) unpackI16Func {
				return func(p *i16Panel, w []byte, rowBytes, rows, blocks int) {
					good(p, w, rowBytes, rows, blocks&^3)
				}
			})
		}},
		{"the last columns of a chunk with fewer not multiplied", matMulI16Grouped, func() func() {
			return spoil(matMulI16Grouped, func(good matMulI16Func) matMulI16Func {
				return func(to []float32, toStep int, from []float32, fromStep int, p *i16Panel, q []int16, scale, sum []float32, cross []int32, ahead *int16, tokens, flush, mins int) {
					cols := p.cols
					p.cols &^= 127
					good(to, toStep, from, fromStep, p, q, scale, sum, cross, ahead, tokens, flush, mins)
					p.cols = cols
				}
			})
		}},
	}
	for _, b := range broken {
		t.Run(b.name, func(t *testing.T) {
			defer b.with()()
			before := b.s.Active()
			failures := SelfTest()
			if len(failures) != 1 || failures[0].Kernel != b.s.Name() || failures[0].Level != before {
				t.Fatalf("failures %v, want one, of %s at %s", failures, b.s.Name(), before)
			}
			if errors.Unwrap(failures[0]) == nil {
				t.Error("failure has no cause")
			}
			if b.s.Active() != cpufeat.Generic {
				t.Errorf("still runs %s", b.s.Active())
			}
			Use(cpufeat.Hardware())()
			if b.s.Active() != cpufeat.Generic {
				t.Errorf("Use brought %s back", b.s.Active())
			}
			if again := SelfTest(); len(again) != 0 {
				t.Errorf("second run fails: %v", again)
			}
		})
	}
}

type tileSignature = func(acc []float32, accStride int, w []float32, wStride, rows int, x []float32, xStride, tokens, n int)

// spoil replaces the active implementation and returns a function that puts the
// slot back as it was, out of quarantine.
func spoil[F any](s *slot[F], with func(F) F) (restore func()) {
	before := s.level
	s.active = with(s.active)
	return func() {
		s.barred = false
		s.use(before)
	}
}

func TestQuarantine(t *testing.T) {
	before := slotAdd.level
	defer func() { slotAdd.barred = false; slotAdd.use(before) }()
	if !Quarantine("f32/add") || slotAdd.Active() != cpufeat.Generic {
		t.Errorf("f32/add runs %s", slotAdd.Active())
	}
	if Quarantine("no such kernel") {
		t.Error("quarantined a kernel that does not exist")
	}
}

func TestSelfTestNamesMissingKernel(t *testing.T) {
	saved := selfTests
	defer func() { selfTests = saved }()
	selfTests = nil
	registerSelfTest("no such kernel", func() error { return nil })
	if f := SelfTest(); len(f) != 1 || f[0].Kernel != "no such kernel" {
		t.Errorf("failures %v", f)
	}
}

// TestSelfTestIsShort reports the time; its limit of 5 ms is not asserted, for
// the machine may be busy.
func TestSelfTestIsShort(t *testing.T) {
	best := time.Hour
	for range 5 {
		start := time.Now()
		SelfTest()
		best = min(best, time.Since(start))
	}
	t.Logf("%d checks in %v", len(selfTests), best)
}

// BenchmarkSelfTest is what every process pays at its first load.
func BenchmarkSelfTest(b *testing.B) {
	for b.Loop() {
		if failures := SelfTest(); len(failures) > 0 {
			b.Fatal(failures)
		}
	}
}
