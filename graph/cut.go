package graph

import (
	"errors"
	"fmt"
	"reflect"
	"slices"
	"strings"
)

// A program can be cut between two layers into two programs, so that each half can
// run on another device. What passes from one to the other is the residual stream:
// the first half ends in Output, the second begins with Input.

// Input begins a program whose tokens have been through other operations already:
// it copies the rows (T, Width) that the caller gives with the tokens. It is the
// first operation and there is only one.
type Input struct{ Out ID }

// Output ends a program in place of Logits: its rows of In are the result, for the
// tokens that the caller asked for.
type Output struct{ In ID }

func (o *Input) Inputs() []ID      { return nil }
func (o *Input) Output() ID        { return o.Out }
func (o *Input) Weights() []string { return nil }
func (o *Input) Kind() string      { return "input" }

func (o *Output) Inputs() []ID      { return []ID{o.In} }
func (o *Output) Output() ID        { return -1 }
func (o *Output) Weights() []string { return nil }
func (o *Output) Kind() string      { return "output" }

// InWidth is the length of the rows that a program begins with; 0 for one that
// begins with tokens alone.
func (p *Program) InWidth() int {
	if len(p.Ops) > 0 {
		if in, ok := p.Ops[0].(*Input); ok {
			return p.Values[in.Out].Width
		}
	}
	return 0
}

// OutWidth is the length of a row of the result: the vocabulary, or the residual
// stream for a program that ends in Output.
func (p *Program) OutWidth() int {
	if n := len(p.Ops); n > 0 {
		if out, ok := p.Ops[n-1].(*Output); ok {
			return p.Values[out.In].Width
		}
	}
	return p.Vocab
}

// Layers is the number of layers that attend.
func (p *Program) Layers() int { return len(p.Caches) }

// ErrCut marks a program that cannot be cut where it was asked for.
var ErrCut = errors.New("the program cannot be cut")

// Cut divides a program after so many layers, at least one and not all. The halves
// compute together what the program does: the rows that first gives for all tokens
// are what rest begins with. Layers are told apart by their caches alone. A program
// of which more than one value, or a cache, is needed on both sides is refused with
// ErrCut.
func (p *Program) Cut(layers int) (first, rest *Program, err error) {
	if layers < 1 || layers >= p.Layers() {
		return nil, nil, fmt.Errorf("%w after %d of %d layers", ErrCut, layers, p.Layers())
	}
	at, across, err := p.seam(layers)
	if err != nil {
		return nil, nil, err
	}
	first = p.part(0, layers)
	head := &cutter{from: p, to: first, moved: map[ID]ID{}}
	for _, op := range p.Ops[:at] {
		head.add(op, 0)
	}
	first.Ops = append(first.Ops, &Output{head.id(across)})

	rest = p.part(layers, p.Layers())
	tail := &cutter{from: p, to: rest, moved: map[ID]ID{}}
	rest.Ops = append(rest.Ops, &Input{tail.id(across)})
	for _, op := range p.Ops[at:] {
		tail.add(op, layers)
	}
	for _, half := range []*Program{first, rest} {
		if err := half.Check(); err != nil {
			return nil, nil, fmt.Errorf("%w after layer %d: %w", ErrCut, layers, err)
		}
	}
	return first, rest, nil
}

// part is an empty program with the caches of some layers.
func (p *Program) part(from, to int) *Program {
	return &Program{Arch: p.Arch, Caches: slices.Clone(p.Caches[from:to]), Vocab: p.Vocab, Hidden: p.Hidden, Context: p.Context}
}

// seam finds the operation before which to cut and the value that crosses: the
// last place between the layers where only one does, which is before the next
// layer's norm and not after it.
func (p *Program) seam(layers int) (at int, across ID, err error) {
	from, to := 0, len(p.Ops)
	made, last := make([]int, len(p.Values)), make([]int, len(p.Values))
	for i, op := range p.Ops {
		switch layer := cacheOf(op); {
		case layer >= layers:
			to = min(to, i)
		case layer >= 0:
			from = i + 1
		}
		for _, id := range op.Inputs() {
			last[id] = i
		}
		if id := op.Output(); id >= 0 {
			made[id], last[id] = i, i
		}
	}
	if from > to {
		return 0, 0, fmt.Errorf("%w after layer %d: a later one reads the cache of an earlier one", ErrCut, layers)
	}
	var fewest []ID
	for at = to; at >= from; at-- {
		var crossing []ID
		for id := range p.Values {
			if made[id] < at && last[id] >= at {
				crossing = append(crossing, ID(id))
			}
		}
		if len(crossing) == 1 {
			return at, crossing[0], nil
		}
		if fewest == nil || len(crossing) < len(fewest) {
			fewest = crossing
		}
	}
	names := make([]string, len(fewest))
	for i, id := range fewest {
		names[i] = p.Values[id].Name
	}
	return 0, 0, fmt.Errorf("%w after layer %d: %s are needed on both sides", ErrCut, layers, strings.Join(names, ", "))
}

// cacheOf is the cache that an operation reads or writes, -1 for none.
func cacheOf(op Op) int {
	switch o := op.(type) {
	case *KVStore:
		return o.Layer
	case *Attention:
		return o.Layer
	case *Misplace:
		return cacheOf(o.Op)
	}
	return -1
}

// cutter copies operations into another program.
type cutter struct {
	from, to *Program
	moved    map[ID]ID
}

// id is a value's place in the other program, which gets it if it has not yet.
func (c *cutter) id(old ID) ID {
	if id, ok := c.moved[old]; ok {
		return id
	}
	c.to.Values = append(c.to.Values, c.from.Values[old])
	c.moved[old] = ID(len(c.to.Values) - 1)
	return c.moved[old]
}

// add copies an operation; its cache moves down by so many layers.
func (c *cutter) add(op Op, layers int) {
	for _, in := range op.Inputs() {
		c.id(in) // in order of use
	}
	c.to.Ops = append(c.to.Ops, c.copy(op, layers))
}

// copy goes through the fields, so that it holds for operations to come.
func (c *cutter) copy(op Op, layers int) Op {
	from := reflect.ValueOf(op).Elem()
	to := reflect.New(from.Type())
	to.Elem().Set(from)
	for i := range from.NumField() {
		switch field := to.Elem().Field(i); v := field.Interface().(type) {
		case ID:
			field.SetInt(int64(c.id(v)))
		case Op:
			field.Set(reflect.ValueOf(c.copy(v, layers)))
		case int:
			if from.Type().Field(i).Name == "Layer" {
				field.SetInt(int64(v - layers))
			}
		}
	}
	return to.Interface().(Op)
}
