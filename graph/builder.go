package graph

// Builder appends operations to a program. Each method names the value it makes.
type Builder struct{ p *Program }

// NewBuilder starts a program.
func NewBuilder(arch string, vocab, hidden, context int) *Builder {
	return &Builder{&Program{Arch: arch, Vocab: vocab, Hidden: hidden, Context: context}}
}

// Program returns the finished program after checking it.
func (b *Builder) Program() (*Program, error) {
	if err := b.p.Check(); err != nil {
		return nil, err
	}
	return b.p, nil
}

func (b *Builder) value(name string, width int) ID {
	b.p.Values = append(b.p.Values, Value{name, width})
	return ID(len(b.p.Values) - 1)
}

func (b *Builder) width(id ID) int { return b.p.Values[id].Width }

func (b *Builder) op(o Op) { b.p.Ops = append(b.p.Ops, o) }

// Embed looks tokens up in weight.
func (b *Builder) Embed(name, weight string) ID {
	out := b.value(name, b.p.Hidden)
	b.op(&Embed{out, weight})
	return out
}

// RMSNorm normalises segments of in of the given length.
func (b *Builder) RMSNorm(name string, in ID, weight string, segment int, eps float32) ID {
	out := b.value(name, b.width(in))
	b.op(&RMSNorm{in, out, weight, segment, eps})
	return out
}

// MatMul multiplies in by a weight with the given number of rows; bias may be empty.
func (b *Builder) MatMul(name string, in ID, weight, bias string, rows int) ID {
	out := b.value(name, rows)
	b.op(&MatMul{in, out, weight, bias})
	return out
}

// Rope rotates the heads of in; r supplies everything but In and Out.
func (b *Builder) Rope(name string, in ID, r Rope) ID {
	r.In, r.Out = in, b.value(name, b.width(in))
	b.op(&r)
	return r.Out
}

// KVCache adds a cache, stores k and v in it and returns its index.
func (b *Builder) KVCache(k, v ID, c Cache) int {
	b.p.Caches = append(b.p.Caches, c)
	layer := len(b.p.Caches) - 1
	b.op(&KVStore{k, v, layer})
	return layer
}

// Attention attends with q over the cache of layer.
func (b *Builder) Attention(name string, q ID, layer, heads int, scale, softCap float32) ID {
	out := b.value(name, b.width(q))
	b.op(&Attention{q, out, layer, heads, scale, softCap})
	return out
}

// GatedAct computes act(gate)·up.
func (b *Builder) GatedAct(name string, gate, up ID, act Activation) ID {
	out := b.value(name, b.width(gate))
	b.op(&GatedAct{gate, up, out, act})
	return out
}

// Add computes x + y.
func (b *Builder) Add(name string, x, y ID) ID {
	out := b.value(name, b.width(x))
	b.op(&Add{x, y, out})
	return out
}

// Scale computes factor·in.
func (b *Builder) Scale(name string, in ID, factor float32) ID {
	out := b.value(name, b.width(in))
	b.op(&Scale{in, out, factor})
	return out
}

// Logits ends the program.
func (b *Builder) Logits(name string, in ID, weight string, softCap float32) ID {
	out := b.value(name, b.p.Vocab)
	b.op(&Logits{in, out, weight, softCap})
	return out
}
