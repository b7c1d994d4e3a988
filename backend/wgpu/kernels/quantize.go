package kernels

import (
	"fmt"
	"strconv"

	"github.com/apr-engine/apr/driver/wgpu"
)

// Activations meet quantised weights as integers of 16 bits with a float32 scale for
// each 32: x ≈ s·(256·hi + lo), hi and lo signed bytes, so that both planes go through
// products of four bytes. The error is at most max|x|/65024 of the group
// (docs/adr/int16-products.md says why not 8 bits).
//
// A row of k numbers, nb = k/32 groups, is QuantWords(k) words:
//
//	hi of elements 0 … 15 of group b   words 4b … 4b+3
//	hi of elements 16 … 31             words 4(nb+b) …
//	lo, likewise                       words 4(2nb+b) …, 4(3nb+b) …
//	s, sum of s·(256·hi+lo) of group b words 16nb+2b, 16nb+2b+1 (float32)

// QuantWords is the length of a quantised row of k numbers in words of 4 bytes, a
// multiple of 4.
func QuantWords(k int) int {
	nb := k / 32
	return 16*nb + (2*nb+3)&^3
}

// Quantize turns float32 rows into quantised ones, after an RMSNorm if so wanted.
// A workgroup makes a row.
type Quantize struct {
	K int // a multiple of 32
	// Rows is how many are made.
	Rows int
	// Norm applies x/sqrt(mean(x²)+Eps)·w first.
	Norm bool
	Eps  float32
	// Wanted takes the rows whose logits are wanted, as the step lists them,
	// instead of the first ones.
	Wanted bool
}

// Kernel binds step (if Wanted), x (rows of K float32), w (if Norm: K float32),
// q (rows of QuantWords(K)).
func (o Quantize) Kernel(d Device) (Kernel, error) {
	if o.K <= 0 || o.K%32 != 0 {
		return Kernel{}, fmt.Errorf("quantise rows of %d: not a multiple of 32", o.K)
	}
	v := quantizeText{Quantize: o, Quads: o.K / 4, Groups: o.K / 32, RowWords: QuantWords(o.K), Step: o.Wanted}
	// A power of two for the tree; each thread has at most a few of the quads.
	v.Threads = 32
	for v.Threads < v.Quads && 2*v.Threads <= min(d.Invocations, 1024) {
		v.Threads *= 2
	}
	k := Kernel{Name: fmt.Sprintf("quantize/%d", o.K), Grid: [3]int{o.Rows, 1, 1}, Unchecked: true}
	if o.Wanted {
		k.Name += "/wanted"
		k.Bindings = append(k.Bindings, Binding{"step", wgpu.ReadOnly})
		// Rows come from a buffer.
		k.Unchecked = false
	}
	k.Bindings = append(k.Bindings, Binding{"x", wgpu.ReadOnly})
	if o.Norm {
		k.Name += "/norm" + v.EpsText()
		k.Bindings = append(k.Bindings, Binding{"w", wgpu.ReadOnly})
	}
	k.Bindings = append(k.Bindings, Binding{"q", wgpu.ReadWrite})
	v.bindings = k.Bindings
	k.WGSL = expand("quantize.wgsl", v)
	return k, nil
}

// quantizeText is what the template asks for.
type quantizeText struct {
	Quantize
	bindings
	Quads, Groups, RowWords, Threads int
	Step                             bool
}

// EpsText is Eps as WGSL.
func (o Quantize) EpsText() string { return float(o.Eps) }

// bindings finds the numbers of buffers by name.
type bindings []Binding

// At is the number of a binding.
func (b bindings) At(name string) int {
	for i, x := range b {
		if x.Name == name {
			return i
		}
	}
	return -1
}

// float is a float32 number as WGSL.
func float(f float32) string { return strconv.FormatFloat(float64(f), 'e', 9, 32) }
