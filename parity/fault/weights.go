package fault

import (
	"fmt"
	"slices"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// The offsets below are those of the blocks in ggml's ggml-common.h, as
// documented beside the formats in package quant. Each function rewrites a
// block so that a right decoder reads what a wrong one would have read from
// the original.

// weightFaults are bugs in reading stored weights.
var weightFaults = []Fault{
	{
		Name:    "nibble-order",
		Summary: "the two 4-bit halves of each byte are exchanged",
		Report:  "parity-gate.md §4: Q4_1 nibbles interleaved instead of consecutive (PMAT-782)",
		change: func(e *editor) error {
			swap := func(from int) func([]byte) {
				return func(b []byte) {
					for i, q := range b[from:] {
						b[from+i] = q<<4 | q>>4
					}
				}
			}
			return e.blocks(map[tensor.DType]func([]byte){
				tensor.Q4_0: swap(2), tensor.Q4_1: swap(4), tensor.Q5_0: swap(6), tensor.Q5_1: swap(8),
				tensor.Q4_K: swap(16), tensor.Q5_K: swap(48),
			})
		},
	},
	{
		Name:    "scale-high-bits",
		Summary: "the 6-bit scales and minimums of groups 4 to 7 lose their upper two bits",
		Report:  "issue of the gate: 6-bit scale unpacking wrong for j ≥ 4; users.md 2: Q4_K wrong in one kernel variant",
		change: func(e *editor) error {
			drop := func(b []byte) {
				for i := range 8 {
					b[4+i] &= 63
				}
			}
			return e.blocks(map[tensor.DType]func([]byte){tensor.Q4_K: drop, tensor.Q5_K: drop})
		},
	},
	{
		Name:    "minimum-dropped",
		Summary: "the blocks' minimums (dmin) are not subtracted",
		Report:  "issue of the gate: dmin dropped; users.md 2",
		change: func(e *editor) error {
			drop := func(b []byte) { b[2], b[3] = 0, 0 }
			return e.blocks(map[tensor.DType]func([]byte){
				tensor.Q4_K: drop, tensor.Q5_K: drop, tensor.Q4_1: drop, tensor.Q5_1: drop,
			})
		},
	},
	{
		Name:    "q6k-high-bits",
		Summary: "the upper two bits of each Q6_K number are taken from the neighbouring pair",
		Report:  "issue of the gate: Q6_K high bits shifted; parity-gate.md §5.6: types not looked at",
		change: func(e *editor) error {
			return e.blocks(map[tensor.DType]func([]byte){tensor.Q6_K: func(b []byte) {
				for i, h := range b[128:192] {
					b[128+i] = h>>2 | h<<6
				}
			}})
		},
	},
	{
		Name:    "type-misread",
		Summary: "a matrix of another type is read as Q4_K",
		Report:  "parity-gate.md A6: unknown types defaulted to Q4_K (PMAT-783)",
		change:  misreadType,
	},
	{
		Name:    "matrix-transposed",
		Summary: "a layer's attention output matrix is read column by column",
		Report:  "users.md 24: importer transposes; 0 of 139 checks passed",
		change:  transpose,
	},
	{
		Name:    "stale-row-block",
		Summary: "rows 32 to 63 of a matrix give the results of rows 0 to 31",
		Report:  "users.md 1: out-of-bounds reads in one block of the quantised matrix multiply",
		change: func(e *editor) error {
			for _, t := range e.matrices() {
				if suffix(t.Name) != "ffn_down.weight" || t.Rows() < 64 {
					continue
				}
				e.replace(t.Name, func() (tensor.Tensor, error) {
					t.Data = slices.Clone(t.Data)
					n := 32 * len(t.Data) / t.Rows()
					copy(t.Data[n:2*n], t.Data[:n])
					return t, nil
				})
				if e.layer < 0 {
					return nil // one matrix of one layer
				}
			}
			return nil
		},
	},
	{
		Name:    "vocabulary-tile",
		Summary: "the last 64 tokens of the vocabulary have logits of zero",
		Report:  "issue of the gate: last vocabulary tile missing; users.md 1: out-of-bounds tiles",
		change:  dropVocabularyTile,
	},
	{
		Name:    "vocabulary-tail",
		Summary: "the last 8 tokens of the vocabulary repeat the logits of the 8 before",
		Report:  "fak #4267 in users.md §2: a cosine hides local faults",
		change: func(e *editor) error {
			return e.output(func(t tensor.Tensor) {
				n := len(t.Data) / t.Rows()
				copy(t.Data[len(t.Data)-8*n:], t.Data[len(t.Data)-16*n:len(t.Data)-8*n])
			})
		},
	},
}

// misreadType relabels the first matrix of a type whose rows are longer than
// Q4_K's; the bytes stay as they are.
func misreadType(e *editor) error {
	for _, t := range e.matrices() {
		if t.Type == tensor.Q4_K || t.Cols()%tensor.Q4_K.BlockLen() != 0 {
			continue
		}
		size, err := tensor.Bytes(tensor.Q4_K, t.Shape)
		if err != nil || size > len(t.Data) {
			continue
		}
		e.replace(t.Name, func() (tensor.Tensor, error) {
			t.Type, t.Data = tensor.Q4_K, t.Data[:size]
			return t, nil
		})
		return nil
	}
	return nil
}

// transpose stores the first attention output matrix column by column.
func transpose(e *editor) error {
	for _, t := range e.matrices() {
		if suffix(t.Name) != "attn_output.weight" {
			continue
		}
		e.replace(t.Name, func() (tensor.Tensor, error) {
			v, err := floats(t)
			if err != nil {
				return t, err
			}
			rows, cols := t.Rows(), t.Cols()
			flipped := make([]float32, len(v))
			for i := range v {
				// Element i of the file is taken for row i%rows, column i/rows.
				flipped[i%rows*cols+i/rows] = v[i]
			}
			t.Data = make([]byte, len(t.Data))
			if err := quant.Quantize(t.Type, t.Data, flipped, nil); err != nil {
				return t, fmt.Errorf("tensor %s: %w", t.Name, err)
			}
			return t, nil
		})
		return nil
	}
	return nil
}

// output gives the logits a matrix of their own, because a tied one is also the
// embedding, and changes a copy of its bytes.
func (e *editor) output(change func(t tensor.Tensor)) error {
	edit(e, func(o *graph.Logits, _ string) []graph.Op {
		t, ok := e.weights.Tensor(o.Weight)
		if !ok {
			return nil
		}
		o.Weight = "output.weight (spoiled)"
		e.replace(o.Weight, func() (tensor.Tensor, error) {
			t.Name, t.Data = o.Weight, slices.Clone(t.Data)
			change(t)
			return t, nil
		})
		return []graph.Op{o}
	})
	return nil
}

// dropVocabularyTile: all bytes zero is the number zero in every format.
func dropVocabularyTile(e *editor) error {
	return e.output(func(t tensor.Tensor) { clear(t.Data[len(t.Data)-64*len(t.Data)/t.Rows():]) })
}
