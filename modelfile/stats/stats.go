// Package stats computes statistics of tensors without holding more than a
// piece of a row in memory.
package stats

import (
	"context"
	"encoding/json"
	"fmt"
	"math"

	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/tensor"
)

// Number is a float64 that JSON can hold: NaN and infinities are written as
// strings with their names.
type Number float64

// MarshalJSON writes the number, or its name where JSON has no form for it.
func (n Number) MarshalJSON() ([]byte, error) {
	f := float64(n)
	if math.IsNaN(f) || math.IsInf(f, 0) {
		return json.Marshal(fmt.Sprint(f))
	}
	return json.Marshal(f)
}

// Stats describes the numbers of one tensor. Min, Max, Mean and Std are over the
// finite ones, and NaN if there are none; Std is that of the whole population.
type Stats struct {
	Elements int64  `json:"elements"`
	Min      Number `json:"min"`
	Max      Number `json:"max"`
	Mean     Number `json:"mean"`
	Std      Number `json:"std"`
	Zeros    int64  `json:"zeros"` // of either sign
	NaN      int64  `json:"nan"`
	Inf      int64  `json:"inf"`
	// DeadRows counts rows of which every number is zero; always 0 for vectors.
	DeadRows int64 `json:"dead_rows"`
}

// Finite is the number of elements that are neither NaN nor infinite.
func (s *Stats) Finite() int64 { return s.Elements - s.NaN - s.Inf }

// Tensors computes the statistics of each tensor. threads 0 means one for each
// processor; the result does not depend on it. A type that cannot be decoded is
// an error that names the tensor.
func Tensors(ctx context.Context, tensors []tensor.Tensor, threads int) ([]Stats, error) {
	chunks := scan.Chunks(tensors)
	parts := make([]sums, len(chunks))
	err := scan.Each(ctx, threads, len(chunks), func(i int) (err error) {
		t := tensors[chunks[i].Tensor]
		if scan.Exact(t.Type) {
			parts[i], err = sum[float32](t, chunks[i])
		} else {
			parts[i], err = sum[float64](t, chunks[i])
		}
		return err
	})
	if err != nil {
		return nil, err
	}
	totals := make([]sums, len(tensors))
	for i, c := range chunks {
		totals[c.Tensor].add(&parts[i])
	}
	list := make([]Stats, len(tensors))
	for i := range totals {
		list[i] = totals[i].stats()
	}
	return list, nil
}

// sums is what chunks are merged by: count, mean and sum of squared deviations
// (Chan, Golub & LeVeque 1983), which lose nothing where sums of squares would.
type sums struct {
	finite   int64
	mean, m2 float64
	min, max float64
	zeros    int64
	nan, inf int64
	dead     int64
}

func (s *sums) add(o *sums) {
	s.zeros += o.zeros
	s.nan += o.nan
	s.inf += o.inf
	s.dead += o.dead
	switch {
	case o.finite == 0:
		return
	case s.finite == 0:
		s.finite, s.mean, s.m2, s.min, s.max = o.finite, o.mean, o.m2, o.min, o.max
		return
	}
	n := float64(s.finite + o.finite)
	d := o.mean - s.mean
	s.m2 += o.m2 + d*d*float64(s.finite)/n*float64(o.finite)
	s.mean += d * float64(o.finite) / n
	s.finite += o.finite
	s.min, s.max = min(s.min, o.min), max(s.max, o.max)
}

func (s *sums) stats() Stats {
	out := Stats{
		Elements: s.finite + s.nan + s.inf,
		Min:      Number(s.min), Max: Number(s.max),
		Mean: Number(s.mean), Std: Number(math.Sqrt(s.m2 / float64(s.finite))),
		Zeros: s.zeros, NaN: s.nan, Inf: s.inf, DeadRows: s.dead,
	}
	if s.finite == 0 {
		none := Number(math.NaN())
		out.Min, out.Max, out.Mean, out.Std = none, none, none, none
	}
	return out
}

// sum goes over the rows of a chunk.
func sum[T scan.Number](t tensor.Tensor, c scan.Chunk) (sums, error) {
	var total sums
	buf := scan.Buffer[T](t)
	matrix := len(t.Shape) > 1
	for r := c.First; r < c.First+c.Rows; r++ {
		zeros := total.zeros
		if err := scan.Pieces(t, r, buf, func(_ int, x []T) {
			p := piece(x)
			total.add(&p)
		}); err != nil {
			return total, err
		}
		if matrix && total.zeros-zeros == int64(t.Cols()) {
			total.dead++
		}
	}
	return total, nil
}

// piece sums up numbers in two passes, the second about the mean; they are in
// the cache.
func piece[T scan.Number](x []T) sums {
	s := sums{min: math.Inf(1), max: math.Inf(-1)}
	var total float64
	for _, v := range x {
		f := float64(v)
		if f-f != 0 { // NaN or infinite
			if f != f {
				s.nan++
			} else {
				s.inf++
			}
			continue
		}
		if f == 0 {
			s.zeros++
		}
		total += f
		if f < s.min {
			s.min = f
		}
		if f > s.max {
			s.max = f
		}
	}
	s.finite = int64(len(x)) - s.nan - s.inf
	if s.finite == 0 {
		return s
	}
	s.mean = total / float64(s.finite)
	for _, v := range x {
		if d := float64(v) - s.mean; d-d == 0 {
			s.m2 += d * d
		}
	}
	return s
}
