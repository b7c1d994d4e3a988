package fault

import (
	"math"

	"github.com/apr-engine/apr/graph"
)

// ZeroRows is how many rows of zeros "cache-zero-rows" leaves before the first
// token: the wgpu probe's number for three steps.
const ZeroRows = 4

// stateFaults are bugs in caches, positions and number formats, made with the
// two operations that only fault programs hold.
var stateFaults = []Fault{
	{
		Name:    "mask-future",
		Summary: "each query also sees the key after its own",
		Report:  "issue of the gate: causal mask off by one",
		change:  misplaceAttention(graph.Misplace{By: 1}),
	},
	{
		Name:    "mask-self",
		Summary: "no query but the first sees its own key",
		Report:  "issue of the gate: causal mask off by one",
		change:  misplaceAttention(graph.Misplace{By: -1}),
	},
	{
		Name:    "kv-slot-late",
		Summary: "keys and values are stored one slot late, so slot 0 stays empty and no query sees its own",
		Report:  "issue of the gate: KV slot off by one",
		change: func(e *editor) error {
			edit(e, func(o *graph.KVStore, _ string) []graph.Op {
				return []graph.Op{&graph.Misplace{Op: o, By: 1}}
			})
			return nil
		},
	},
	{
		Name:    "cache-zero-rows",
		Summary: "the cache begins with four rows of zeros that every query attends to",
		Report:  "parity-gate.md §5.2: probe and generation created caches full of zeros, cosine 0.955376 on every device",
		change: func(e *editor) error {
			edit(e, func(o *graph.KVStore, _ string) []graph.Op {
				return []graph.Op{&graph.Misplace{Op: o, By: ZeroRows}}
			})
			return misplaceAttention(graph.Misplace{By: ZeroRows})(e)
		},
	},
	{
		Name:    "kv-drift",
		Summary: "stored values are off by 0.5 % a position",
		Report:  "parity-gate.md §4: growth with position means the cache; users.md 25: first answer right, later garbage",
		change: func(e *editor) error {
			return e.storedValues(graph.Tamper{How: graph.Drift, Amount: 0.005})
		},
	},
	{
		Name:    "after-500",
		Summary: "from position 500 on, one layer's attention gives zeros",
		Report:  "users.md 16: generation degrades after some tokens; DESIGN §4: garbage after 500 tokens",
		Late:    true,
		change: func(e *editor) error {
			done := false
			edit(e, func(op *graph.Attention, _ string) []graph.Op {
				if done {
					return nil
				}
				done = e.layer < 0
				sound, out := redirect(e, op)
				return []graph.Op{op, &graph.Tamper{In: sound, Alt: sound, Out: out, How: graph.Multiply, Rows: graph.Rows{From: 500}}}
			})
			return nil
		},
	},
	{
		Name:    "half-overflow",
		Summary: "sums of 8-bit products pass through half precision before they are scaled, so large ones become infinite",
		Report:  "parity-gate.md §4: FP16 overflow of the product, 85807 > 65504 (#3602); users.md 3",
		change:  overflowHalf,
	},
	{
		Name:    "int8-coarse-scale",
		Summary: "activations are rounded to 8 bits with one scale for 256 of them, on a model with outlier channels",
		Report:  "parity-gate.md R3: one scale a 256, neuron 2908 off by 12.7 %, logits' cosine 0.9508 (#2971)",
		change:  coarseInt8,
	},
}

// outlierMultiple is how far above the root mean square of a normalisation's
// weights the largest must lie for its channel to spoil the others' rounding:
// with one scale a group of 256, 8 bits leave the others 127/8 ≈ 16 steps.
const outlierMultiple = 8

func misplaceAttention(m graph.Misplace) func(*editor) error {
	return func(e *editor) error {
		edit(e, func(o *graph.Attention, _ string) []graph.Op {
			wrong := m
			wrong.Op = o
			return []graph.Op{&wrong}
		})
		return nil
	}
}

// storedValues spoils the values that go into the cache.
func (e *editor) storedValues(t graph.Tamper) error {
	edit(e, func(o *graph.KVStore, _ string) []graph.Op {
		spoiled := t
		spoiled.In, spoiled.Alt = o.V, o.V
		spoiled.Out = e.value(e.name(o.V)+" (stored)", e.program.Values[o.V].Width)
		o.V = spoiled.Out
		return []graph.Op{&spoiled, o}
	})
	return nil
}

// coarseInt8 rounds the normalised activations that layers multiply with. A
// model without outlier channels loses so little by it that other runtimes do
// it on purpose; there it is no fault.
func coarseInt8(e *editor) error {
	edit(e, func(o *graph.RMSNorm, name string) []graph.Op {
		if s := suffix(name); s != "attn_norm" && s != "ffn_norm" {
			return nil
		}
		t, ok := e.weights.Tensor(o.Weight)
		if !ok {
			return nil
		}
		w, err := floats(t)
		if err != nil || !outlying(w, math.Min(outlierMultiple, math.Sqrt(float64(len(w)))/2)) {
			return nil
		}
		sound, out := redirect(e, o)
		return []graph.Op{o, &graph.Tamper{In: sound, Alt: sound, Out: out, How: graph.Int8, Group: 256}}
	})
	return nil
}

// typicalStep is the root mean square of numbers stored in 8 bits whose largest
// is 127 steps, for blocks of a normal distribution.
const typicalStep = 40

// overflowHalf spoils the up projection of one layer. Its input is normalised,
// so the typical size of both factors is known, and with it how much larger an
// unscaled sum of 8-bit products is than its result.
func overflowHalf(e *editor) error {
	norms := map[graph.ID]string{} // weights of normalisations, by value
	edit(e, func(o *graph.RMSNorm, _ string) []graph.Op { norms[o.Out] = o.Weight; return nil })
	done := false
	var failed error
	edit(e, func(o *graph.MatMul, name string) []graph.Op {
		norm, normed := norms[o.In]
		if done || suffix(name) != "ffn_up" || !normed {
			return nil
		}
		done = e.layer < 0
		weight, err := e.typical(o.Weight)
		if err != nil {
			failed = err
			return nil
		}
		input, err := e.typical(norm)
		if err != nil {
			failed = err
			return nil
		}
		sound, out := redirect(e, o)
		return []graph.Op{o, &graph.Tamper{
			In: sound, Alt: sound, Out: out, How: graph.Half,
			Amount: float32(typicalStep / weight * typicalStep / input),
		}}
	})
	return failed
}

// typical is the root mean square of a tensor.
func (e *editor) typical(name string) (float64, error) {
	t, _ := e.weights.Tensor(name)
	v, err := floats(t)
	sum := 0.0
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum / float64(max(len(v), 1))), err
}
