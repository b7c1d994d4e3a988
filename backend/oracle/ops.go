package oracle

import (
	"fmt"
	"math"
	"sync"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

func (s *step) run(op graph.Op) error {
	switch o := op.(type) {
	case *graph.Logits:
		return s.computeLogits(o)
	case *graph.Output:
		return s.output(o)
	}
	if out := op.Output(); out >= 0 {
		s.alloc(out)
	}
	switch o := op.(type) {
	case *graph.Embed:
		return s.embed(o)
	case *graph.Input:
		copy(s.values[o.Out], s.input)
	case *graph.RMSNorm:
		return s.rmsNorm(o)
	case *graph.MatMul:
		return s.matMul(o)
	case *graph.Rope:
		s.rope(o, s.pos)
	case *graph.KVStore:
		s.kvStore(o, s.pos)
	case *graph.Attention:
		s.attention(o, s.pos)
	case *graph.GatedAct:
		s.gatedAct(o)
	case *graph.Add:
		for i, a := range s.values[o.A] {
			s.values[o.Out][i] = a + s.values[o.B][i]
		}
	case *graph.Scale:
		for i, x := range s.values[o.In] {
			s.values[o.Out][i] = o.Factor * x
		}
	case *graph.Tamper:
		for i, pos := range s.pos {
			backend.Spoil(o, s.row(o.Out, i), s.row(o.In, i), s.row(o.Alt, i), pos, len(s.tokens))
		}
	case *graph.Misplace:
		return s.misplace(o)
	default:
		return fmt.Errorf("%w: operation %T", backend.ErrUnsupported, op)
	}
	return nil
}

// misplace runs an operation with positions that are wrong on purpose.
func (s *step) misplace(o *graph.Misplace) error {
	pos := make([]int, len(s.pos))
	for i, p := range s.pos {
		pos[i] = o.Position(p, p-s.seqs[i].length, len(s.tokens))
	}
	switch op := o.Op.(type) {
	case *graph.Rope:
		s.rope(op, pos)
	case *graph.KVStore:
		s.kvStore(op, pos)
	case *graph.Attention:
		s.attention(op, pos)
	default:
		return fmt.Errorf("%w: misplaced operation %T", backend.ErrUnsupported, op)
	}
	return nil
}

// vector dequantises a tensor of one row.
func (s *step) vector(name string) ([]float32, error) {
	t, _ := s.w.Tensor(name)
	v := make([]float32, t.Elements())
	return v, quant.Dequantize(t.Type, v, t.Data)
}

func (s *step) embed(o *graph.Embed) error {
	t, _ := s.w.Tensor(o.Weight)
	for i, tok := range s.tokens {
		if err := quant.Dequantize(t.Type, s.row(o.Out, i), t.Row(int(tok))); err != nil {
			return err
		}
	}
	return nil
}

func (s *step) rmsNorm(o *graph.RMSNorm) error {
	w, err := s.vector(o.Weight)
	if err != nil {
		return err
	}
	in, out := s.values[o.In], s.values[o.Out]
	for at := 0; at < len(in); at += o.Segment {
		x, y := in[at:at+o.Segment], out[at:at+o.Segment]
		sum := 0.0
		for _, v := range x {
			sum += float64(v) * float64(v)
		}
		inv := 1 / math.Sqrt(sum/float64(o.Segment)+float64(o.Eps))
		for i, v := range x {
			y[i] = float32(float64(v) * inv * float64(w[i]))
		}
	}
	return nil
}

func (s *step) matMul(o *graph.MatMul) error {
	t, _ := s.w.Tensor(o.Weight)
	var bias []float32
	if o.Bias != "" {
		var err error
		if bias, err = s.vector(o.Bias); err != nil {
			return err
		}
	}
	rows := make([]int, len(s.tokens))
	for i := range rows {
		rows[i] = i
	}
	return s.multiply(t, o.In, rows, func(i, r int, sum float64) {
		if bias != nil {
			sum += float64(bias[r])
		}
		s.row(o.Out, i)[r] = float32(sum)
	})
}

// multiply computes W·x for the given rows of a value and passes each sum to
// store. The rows of W are shared out between goroutines.
func (s *step) multiply(t tensor.Tensor, in graph.ID, rows []int, store func(i, r int, sum float64)) error {
	errs := make([]error, s.opts.Threads)
	var wg sync.WaitGroup
	for worker := range errs {
		wg.Go(func() {
			w := make([]float32, t.Cols())
			for r := worker; r < t.Rows(); r += len(errs) {
				if err := quant.Dequantize(t.Type, w, t.Row(r)); err != nil {
					errs[worker] = fmt.Errorf("tensor %s, row %d: %w", t.Name, r, err)
					return
				}
				for i, row := range rows {
					sum := 0.0
					for j, x := range s.row(in, row) {
						sum += float64(w[j]) * float64(x)
					}
					store(i, r, sum)
				}
			}
		})
	}
	wg.Wait()
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func (s *step) rope(o *graph.Rope, positions []int) {
	copy(s.values[o.Out], s.values[o.In])
	n := len(o.InvFreq)
	for i, pos := range positions {
		row := s.row(o.Out, i)
		for head := 0; head < len(row); head += o.HeadDim {
			for j, f := range o.InvFreq {
				a, b := head+j, head+j+n
				if o.Pairing == graph.Interleaved {
					a, b = head+2*j, head+2*j+1
				}
				sin, cos := math.Sincos(float64(pos) * f)
				x, y := float64(row[a]), float64(row[b])
				row[a] = float32((x*cos - y*sin) * o.Magnitude)
				row[b] = float32((x*sin + y*cos) * o.Magnitude)
			}
		}
	}
}

func (s *step) kvStore(o *graph.KVStore, positions []int) {
	for i, seq := range s.seqs {
		if p := positions[i]; p >= 0 && p < seq.capacity {
			seq.keys[o.Layer] = put(seq.keys[o.Layer], p, s.row(o.K, i))
			seq.values[o.Layer] = put(seq.values[o.Layer], p, s.row(o.V, i))
		}
	}
}

// put stores row p of a cache; rows that were left out before it are zero.
func put(cache []float32, p int, row []float32) []float32 {
	if missing := (p+1)*len(row) - len(cache); missing > 0 {
		cache = append(cache, make([]float32, missing)...)
	}
	copy(cache[p*len(row):], row)
	return cache
}

func (s *step) attention(o *graph.Attention, positions []int) {
	c := s.p.Caches[o.Layer]
	width := c.Heads * c.HeadDim
	for i, seq := range s.seqs {
		end := min(max(positions[i]+1, 1), len(seq.keys[o.Layer])/width)
		first := 0
		if c.Window > 0 {
			first = max(0, end-c.Window)
		}
		scores := make([]float64, end-first)
		for h := range o.Heads {
			q := s.row(o.Q, i)[h*c.HeadDim : (h+1)*c.HeadDim]
			out := s.row(o.Out, i)[h*c.HeadDim : (h+1)*c.HeadDim]
			kv := h / (o.Heads / c.Heads) * c.HeadDim // of the head in a cache row
			for j := range scores {
				k := seq.keys[o.Layer][(first+j)*width+kv:]
				dot := 0.0
				for d, x := range q {
					dot += float64(x) * float64(k[d])
				}
				scores[j] = softCap(dot*float64(o.Scale), o.SoftCap)
			}
			softmax(scores)
			sums := make([]float64, c.HeadDim)
			for j, p := range scores {
				v := seq.values[o.Layer][(first+j)*width+kv:]
				for d := range sums {
					sums[d] += p * float64(v[d])
				}
			}
			for d, x := range sums {
				out[d] = float32(x)
			}
		}
	}
}

// softCap bounds x to ±c smoothly; c = 0 leaves it alone.
func softCap(x float64, c float32) float64 {
	if c == 0 {
		return x
	}
	return float64(c) * math.Tanh(x/float64(c))
}

func softmax(x []float64) {
	top := math.Inf(-1)
	for _, v := range x {
		top = math.Max(top, v)
	}
	sum := 0.0
	for i, v := range x {
		x[i] = math.Exp(v - top)
		sum += x[i]
	}
	for i := range x {
		x[i] /= sum
	}
}

func (s *step) gatedAct(o *graph.GatedAct) {
	up, out := s.values[o.Up], s.values[o.Out]
	for i, g := range s.values[o.Gate] {
		x := float64(g)
		var act float64
		switch o.Act {
		case graph.SiLU:
			act = x / (1 + math.Exp(-x))
		case graph.GELU:
			act = 0.5 * x * (1 + math.Tanh(math.Sqrt(2/math.Pi)*(x+0.044715*x*x*x)))
		}
		out[i] = float32(act * float64(up[i]))
	}
}

// output gives the rows asked for as they are.
func (s *step) output(o *graph.Output) error {
	s.logits.Resize(len(s.wanted), s.p.OutWidth())
	for i, row := range s.wanted {
		copy(s.logits.Row(i), s.row(o.In, row))
	}
	return nil
}

func (s *step) computeLogits(o *graph.Logits) error {
	t, _ := s.w.Tensor(o.Weight)
	s.logits.Resize(len(s.wanted), s.p.Vocab)
	err := s.multiply(t, o.In, s.wanted, func(i, r int, sum float64) {
		s.logits.Row(i)[r] = float32(softCap(sum, o.SoftCap))
	})
	s.values[o.Out] = s.logits.Data
	return err
}
