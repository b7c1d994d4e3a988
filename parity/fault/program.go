package fault

import (
	"math"

	"github.com/apr-engine/apr/graph"
)

// programFaults are bugs in what is computed: a missing operation, a wrong
// constant, a wrong operand.
var programFaults = []Fault{
	{
		Name:    "qkv-bias-missing",
		Summary: "the biases of the query, key and value projections are not added",
		Report:  "users.md 24: qkv of zeros after import; Qwen2 is the family with these biases",
		change: func(e *editor) error {
			edit(e, func(o *graph.MatMul, name string) []graph.Op {
				if o.Bias == "" || !isQKV(name) {
					return nil
				}
				o.Bias = ""
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "qk-norm-missing",
		Summary: "query and key heads are not normalised",
		Report:  "parity-gate.md A5: QK-norm never recorded in the replayed graph, cosine 0.4021 at position 1 (#3413 A)",
		change: func(e *editor) error {
			edit(e, func(o *graph.RMSNorm, name string) []graph.Op {
				if !isQKNorm(name) {
					return nil
				}
				return []graph.Op{&graph.Scale{In: o.In, Out: o.Out, Factor: 1}}
			})
			return nil
		},
	},
	{
		Name:    "batch-qk-norm-missing",
		Summary: "the kernels for several tokens do not normalise query and key heads; those for one token do",
		Report:  "parity-gate.md A4: guard passed on decode kernels, batched prefill without QK-norm served garbage (#3413)",
		change: func(e *editor) error {
			edit(e, func(o *graph.RMSNorm, name string) []graph.Op {
				if !isQKNorm(name) {
					return nil
				}
				return e.skip(o, o.In, graph.Rows{Steps: graph.BatchSteps})
			})
			return nil
		},
	},
	{
		Name:    "rope-pairing",
		Summary: "rotary embedding pairs neighbours instead of halves, or halves instead of neighbours",
		Report:  "parity-gate.md §5.6: one pairing for every architecture; #2079 NORM-RoPE",
		change:  eachRope(func(r *graph.Rope) { r.Pairing = 1 - r.Pairing }),
	},
	{
		Name:    "rope-first-head-only",
		Summary: "only the first head of queries and keys is rotated",
		Report:  "parity-gate.md A13: NORM-RoPE launched a flat grid, cosine 0.954 (#2079)",
		change: func(e *editor) error {
			edit(e, func(o *graph.Rope, name string) []graph.Op {
				if e.program.Values[o.In].Width == o.HeadDim {
					return nil // there is one head only
				}
				return e.firstHeadOnly(o)
			})
			return nil
		},
	},
	{
		Name:    "rope-base",
		Summary: "rotary angles use the base 10000 whatever the model says",
		Report:  "parity-gate.md §5.6: RoPE base fixed",
		change: eachRope(func(r *graph.Rope) {
			inv := make([]float64, len(r.InvFreq))
			for i := range inv {
				inv[i] = math.Pow(10000, -float64(i)/float64(len(inv)))
			}
			r.InvFreq = inv
		}),
	},
	{
		Name:    "rope-scaling-ignored",
		Summary: "the scaling of rotary frequencies for long contexts is not applied",
		Report:  "users.md 10: Metal without YaRN, perplexity 24.7 instead of 4.2 and plausible text (llama.cpp #4219)",
		change:  ignoreRopeScaling,
	},
	{
		Name:    "rope-query-late",
		Summary: "queries are rotated as if they stood one position later",
		Report:  "issue of the gate: position off by one; position 0 hides it (parity-gate.md §4)",
		change:  misplaceRope(graph.Misplace{By: 1}, "attn_q_rope"),
	},
	{
		Name:    "rope-decode-late",
		Summary: "while decoding, queries and keys are rotated one position late; prefill is right",
		Report:  "parity-gate.md A4, A5: prefill and decode are different kernels",
		change:  misplaceRope(graph.Misplace{By: 1, Rows: graph.Rows{Steps: graph.DecodeSteps}}, "attn_q_rope", "attn_k_rope"),
	},
	{
		Name:    "prefill-positions-restart",
		Summary: "each batch of the prompt counts its positions from zero",
		Report:  "issue of the gate: positions reset in the second prefill chunk",
		Late:    true,
		change:  misplaceRope(graph.Misplace{Restart: true, Rows: graph.Rows{Steps: graph.BatchSteps}}, "attn_q_rope", "attn_k_rope"),
	},
	{
		Name:    "gqa-head-map",
		Summary: "query head h reads key head h mod n instead of h div group",
		Report:  "issue of the gate: GQA head map wrong; users.md 2: one kernel variant",
		change:  wrongHeadMap,
	},
	{
		Name:    "softmax-scale-missing",
		Summary: "attention scores are not divided by the square root of the head's width",
		Report:  "users.md 3: unscaled K·Q (ollama #4890, llama.cpp #8412)",
		change: func(e *editor) error {
			edit(e, func(o *graph.Attention, _ string) []graph.Op {
				if o.Scale == 1 {
					return nil
				}
				o.Scale = 1
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "window-ignored",
		Summary: "layers with a sliding window attend to everything",
		Report:  "users.md 10: a property of the architecture that one backend leaves out",
		Late:    true,
		change: func(e *editor) error {
			edit(e, func(o *graph.Attention, _ string) []graph.Op {
				c := &e.program.Caches[o.Layer]
				if c.Window == 0 {
					return nil
				}
				c.Window = 0
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "rms-epsilon",
		Summary: "normalisation uses an epsilon a thousand times too large",
		Report:  "parity-gate.md §5.6: RMS epsilon fixed",
		change: func(e *editor) error {
			edit(e, func(o *graph.RMSNorm, _ string) []graph.Op {
				o.Eps *= 1000
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "residual-twice",
		Summary: "the residual stream is added twice after one feed-forward network",
		Report:  "issue of the gate: residual added twice",
		change: func(e *editor) error {
			done := false
			edit(e, func(o *graph.Add, name string) []graph.Op {
				if done || suffix(name) != "l_out" {
					return nil
				}
				done = e.layer < 0
				sound, out := redirect(e, o)
				return []graph.Op{o, &graph.Add{A: o.A, B: sound, Out: out}}
			})
			return nil
		},
	},
	{
		Name:    "operation-dropped",
		Summary: "the output of the last layer's feed-forward network is never added",
		Report:  "parity-gate.md A5: 451 of 619 kernels recorded, cosine 0.5336 (PMAT-886a)",
		change:  dropLast(graph.AllSteps),
	},
	{
		Name:    "replay-operation-dropped",
		Summary: "steps of one token leave out the last layer's feed-forward network; prefill is right",
		Report:  "parity-gate.md A5: eager capture right, replay wrong",
		change:  dropLast(graph.DecodeSteps),
	},
	{
		Name:    "stale-activations",
		Summary: "layers after the first multiply the normalised activations of the first",
		Report:  "parity-gate.md §4: activation cache keyed by pointer and count, cosine 0.4153 at position 1 for every prompt (#3602)",
		change: func(e *editor) error {
			first, ok := e.find("blk.0.attn_norm")
			if !ok {
				return nil
			}
			edit(e, func(o *graph.MatMul, name string) []graph.Op {
				if !isQKV(name) || o.In == first {
					return nil
				}
				o.In = first
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "silu-quick-gelu",
		Summary: "the activation is x·sigmoid(1.702 x) instead of x·sigmoid(x)",
		Report:  "issue of the gate: a subtly wrong SiLU",
		change:  steepSiLU(1.702),
	},
	{
		Name:    "silu-steep",
		Summary: "the activation's exponential is 10 % too steep: x·sigmoid(1.1 x)",
		Report:  "issue of the gate: a subtly wrong SiLU; users.md 4: a compiler that miscompiles",
		change:  steepSiLU(1.1),
	},
	{
		Name:    "gelu-for-silu",
		Summary: "the activation is GELU instead of SiLU, or SiLU instead of GELU",
		Report:  "parity-gate.md §5.6: one function for every architecture",
		change: func(e *editor) error {
			edit(e, func(o *graph.GatedAct, _ string) []graph.Op {
				o.Act = graph.GELU - o.Act
				return []graph.Op{o}
			})
			return nil
		},
	},
	{
		Name:    "gate-up-exchanged",
		Summary: "the activation is applied to the wrong half of the feed-forward network",
		Report:  "users.md 24: importer mixes up tensors",
		change: func(e *editor) error {
			edit(e, func(o *graph.GatedAct, _ string) []graph.Op {
				o.Gate, o.Up = o.Up, o.Gate
				return []graph.Op{o}
			})
			return nil
		},
	},
}

func isQKV(name string) bool {
	s := suffix(name)
	return s == "attn_q" || s == "attn_k" || s == "attn_v"
}

func isQKNorm(name string) bool {
	s := suffix(name)
	return s == "attn_q_normed" || s == "attn_k_normed"
}

// skip makes an operation's value that of bypass where rows are touched.
func (e *editor) skip(op graph.Op, bypass graph.ID, rows graph.Rows) []graph.Op {
	sound, out := redirect(e, op)
	return []graph.Op{op, &graph.Tamper{In: sound, Alt: bypass, Out: out, How: graph.Replace, Rows: rows}}
}

// eachRope changes every rotary embedding that change makes different.
func eachRope(change func(*graph.Rope)) func(*editor) error {
	return func(e *editor) error {
		edit(e, func(o *graph.Rope, _ string) []graph.Op {
			before := *o
			if change(o); o.Pairing == before.Pairing && sameFrequencies(o.InvFreq, before.InvFreq) {
				return nil
			}
			return []graph.Op{o}
		})
		return nil
	}
}

// sameFrequencies allows for the rounding of two ways to compute a power.
func sameFrequencies(a, b []float64) bool {
	for i := range a {
		if !(math.Abs(a[i]-b[i]) <= 1e-9*math.Abs(b[i])) {
			return false
		}
	}
	return len(a) == len(b)
}

// firstHeadOnly takes the whole row for one head, of which a rotation touches
// the first 2·len(InvFreq) elements: the first head. Partners stay partners,
// because both pairings count from the start of the head.
func (e *editor) firstHeadOnly(o *graph.Rope) []graph.Op {
	o.HeadDim = e.program.Values[o.In].Width
	return []graph.Op{o}
}

// ignoreRopeScaling restores the geometric series that the highest two
// frequencies begin. Scalings change the low frequencies and leave the high
// ones; linear scaling, which changes all, is undone by the first being 1.
func ignoreRopeScaling(e *editor) error {
	return eachRope(func(r *graph.Rope) {
		if len(r.InvFreq) < 2 || r.InvFreq[0] == 0 {
			return
		}
		ratio := r.InvFreq[1] / r.InvFreq[0]
		inv := make([]float64, len(r.InvFreq))
		for i := range inv {
			inv[i] = math.Pow(ratio, float64(i))
		}
		r.InvFreq, r.Magnitude = inv, 1
	})(e)
}

func misplaceRope(m graph.Misplace, suffixes ...string) func(*editor) error {
	return func(e *editor) error {
		edit(e, func(o *graph.Rope, name string) []graph.Op {
			for _, s := range suffixes {
				if s == suffix(name) {
					wrong := m
					wrong.Op = o
					return []graph.Op{&wrong}
				}
			}
			return nil
		})
		return nil
	}
}

// wrongHeadMap reorders query heads before attention so that each meets the
// wrong key head, and puts the results back in order.
func wrongHeadMap(e *editor) error {
	edit(e, func(o *graph.Attention, _ string) []graph.Op {
		c := e.program.Caches[o.Layer]
		group := o.Heads / c.Heads
		if c.Heads == 1 || group == 1 {
			return nil // both maps are the same
		}
		// Slot s of the reordered queries reads key head s/group.
		order, back := make([]int, o.Heads), make([]int, o.Heads)
		for h := range o.Heads {
			slot := h%c.Heads*group + h/c.Heads
			order[slot], back[h] = h, slot
		}
		queries := e.value(e.name(o.Q)+" (reordered)", e.program.Values[o.Q].Width)
		first := &graph.Tamper{In: o.Q, Alt: o.Q, Out: queries, How: graph.Heads, Group: c.HeadDim, Order: order}
		o.Q = queries
		sound, out := redirect(e, o)
		return []graph.Op{first, o, &graph.Tamper{In: sound, Alt: sound, Out: out, How: graph.Heads, Group: c.HeadDim, Order: back}}
	})
	return nil
}

// dropLast leaves out the last layer's feed-forward network.
func dropLast(steps graph.Steps) func(*editor) error {
	return func(e *editor) error {
		last := graph.ID(-1)
		edit(e, func(o *graph.Add, name string) []graph.Op {
			if suffix(name) == "l_out" {
				last = o.Out
			}
			return nil
		})
		edit(e, func(o *graph.Add, _ string) []graph.Op {
			if o.Out != last {
				return nil
			}
			return e.skip(o, o.A, graph.Rows{Steps: steps})
		})
		return nil
	}
}

// steepSiLU computes x·sigmoid(βx)·up as silu(βx)·up/β.
func steepSiLU(beta float32) func(*editor) error {
	return func(e *editor) error {
		edit(e, func(o *graph.GatedAct, name string) []graph.Op {
			if o.Act != graph.SiLU {
				return nil
			}
			width := e.program.Values[o.Gate].Width
			steep := e.value(name+" (steep gate)", width)
			ops := []graph.Op{&graph.Scale{In: o.Gate, Out: steep, Factor: beta}}
			o.Gate = steep
			sound, out := redirect(e, o)
			return append(ops, o, &graph.Scale{In: sound, Out: out, Factor: 1 / beta})
		})
		return nil
	}
}
