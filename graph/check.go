package graph

import (
	"errors"
	"fmt"

	"github.com/apr-engine/apr/tensor"
)

// ErrInvalid marks a program that no backend could run, or weights that do not
// fit it.
var ErrInvalid = errors.New("invalid program")

// Weights gives access to a model's tensors by name.
type Weights interface {
	Tensor(name string) (tensor.Tensor, bool)
}

// Check verifies that every value is written once before it is read, that
// widths agree, that rows from outside come first and that the program ends in
// logits or an output.
func (p *Program) Check() error {
	written, ends := make([]bool, len(p.Values)), false
	for i, op := range p.Ops {
		for _, in := range op.Inputs() {
			if in < 0 || int(in) >= len(p.Values) || !written[in] {
				return fmt.Errorf("%w: operation %d (%s) reads a value that is not there yet", ErrInvalid, i, op.Kind())
			}
		}
		if out := op.Output(); out >= 0 {
			if int(out) >= len(p.Values) || written[out] {
				return fmt.Errorf("%w: operation %d (%s) writes a value twice", ErrInvalid, i, op.Kind())
			}
			written[out] = true
		}
		if err := p.checkWidths(op); err != nil {
			return fmt.Errorf("%w: operation %d (%s): %v", ErrInvalid, i, op.Kind(), err)
		}
		switch op.(type) {
		case *Input:
			if i > 0 {
				return fmt.Errorf("%w: operation %d (input) is not the first", ErrInvalid, i)
			}
		case *Logits, *Output:
			if i < len(p.Ops)-1 {
				return fmt.Errorf("%w: operation %d (%s) is not the last", ErrInvalid, i, op.Kind())
			}
			ends = true
		}
	}
	if !ends {
		return fmt.Errorf("%w: it does not end in logits", ErrInvalid)
	}
	return nil
}

func (p *Program) checkWidths(op Op) error {
	w := func(id ID) int { return p.Values[id].Width }
	ok := true
	switch o := op.(type) {
	case *Embed:
		ok = w(o.Out) == p.Hidden
	case *RMSNorm:
		ok = w(o.In) == w(o.Out) && o.Segment > 0 && w(o.In)%o.Segment == 0
	case *MatMul, *Input, *Output:
	case *Rope:
		ok = w(o.In) == w(o.Out) && o.HeadDim > 0 && w(o.In)%o.HeadDim == 0 && 2*len(o.InvFreq) <= o.HeadDim
	case *KVStore:
		if o.Layer < 0 || o.Layer >= len(p.Caches) {
			return fmt.Errorf("no cache %d", o.Layer)
		}
		c := p.Caches[o.Layer]
		ok = w(o.K) == c.Heads*c.HeadDim && w(o.V) == w(o.K)
	case *Attention:
		if o.Layer < 0 || o.Layer >= len(p.Caches) {
			return fmt.Errorf("no cache %d", o.Layer)
		}
		c := p.Caches[o.Layer]
		ok = w(o.Q) == o.Heads*c.HeadDim && w(o.Out) == w(o.Q) && o.Heads%c.Heads == 0
	case *GatedAct:
		ok = w(o.Gate) == w(o.Up) && w(o.Up) == w(o.Out)
	case *Add:
		ok = w(o.A) == w(o.B) && w(o.B) == w(o.Out)
	case *Scale:
		ok = w(o.In) == w(o.Out)
	case *Logits:
		ok = w(o.Out) == p.Vocab
	case *Tamper:
		ok = o.check(w)
	case *Misplace:
		switch o.Op.(type) {
		case *Rope, *KVStore, *Attention:
			return p.checkWidths(o.Op)
		}
		return fmt.Errorf("%s has no position", o.Op.Kind())
	default:
		return fmt.Errorf("unknown operation %T", op)
	}
	if !ok {
		return errors.New("widths do not agree")
	}
	return nil
}

// CheckWeights verifies that every tensor the program reads is present with the
// right shape. The error names the tensor.
func (p *Program) CheckWeights(w Weights) error {
	for _, problem := range p.WeightProblems(w, 1) {
		return fmt.Errorf("%w: tensor %s %s", ErrInvalid, problem.Tensor, problem.Text)
	}
	return nil
}

// WeightProblem is what is wrong with a tensor that a program reads.
type WeightProblem struct {
	Tensor  string
	Missing bool
	Text    string // "is missing", "has shape [2, 3], want [3, 2]"
}

// WeightProblems lists up to limit tensors that are missing or have another shape
// than the program needs, in the order of computation; limit 0 lists all.
func (p *Program) WeightProblems(w Weights, limit int) []WeightProblem {
	var list []WeightProblem
	for _, op := range p.Ops {
		for _, req := range p.requirements(op) {
			t, ok := w.Tensor(req.name)
			switch {
			case !ok:
				list = append(list, WeightProblem{req.name, true, "is missing"})
			case t.Rows() != req.rows || t.Cols() != req.cols:
				list = append(list, WeightProblem{req.name, false, fmt.Sprintf("has shape %v, want [%d, %d]", t.Shape, req.rows, req.cols)})
			}
			if limit > 0 && len(list) == limit {
				return list
			}
		}
	}
	return list
}

type requirement struct {
	name       string
	rows, cols int
}

func (p *Program) requirements(op Op) []requirement {
	w := func(id ID) int { return p.Values[id].Width }
	switch o := op.(type) {
	case *Embed:
		return []requirement{{o.Weight, p.Vocab, w(o.Out)}}
	case *RMSNorm:
		return []requirement{{o.Weight, 1, o.Segment}}
	case *MatMul:
		r := []requirement{{o.Weight, w(o.Out), w(o.In)}}
		if o.Bias != "" {
			r = append(r, requirement{o.Bias, 1, w(o.Out)})
		}
		return r
	case *Logits:
		return []requirement{{o.Weight, p.Vocab, w(o.In)}}
	}
	return nil
}
