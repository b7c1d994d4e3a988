package main

import (
	"fmt"
	"math/rand/v2"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/tensor"
)

// soundSet is the sound runs of one way to run a model.
type soundSet struct {
	KV       string `json:"kv"`
	Batch    int    `json:"batch"` // tokens in a step
	Runs     int    `json:"runs"`
	Rejected int    `json:"rejected"`
	// Positions were compared in all runs; Flips are those of them where another token
	// was the best, all near ties or the run would have been rejected.
	Positions int `json:"positions"`
	Flips     int `json:"flips"`
	// MinTokens and MaxTokens are the lengths of the prompts.
	MinTokens int `json:"min_tokens"`
	MaxTokens int `json:"max_tokens"`
	// The worst position of all runs; errors in standard deviations of the
	// reference's logits.
	MinCosine float64 `json:"min_cosine"`
	MaxP99    float64 `json:"max_p99"`
	MaxError  float64 `json:"max_error"`
}

// soundBatches are the chunkings of sound runs: a few tokens, a usual batch, one
// that no kernel's tile divides, and the default.
var soundBatches = []int{5, 32, 100, backend.DefaultMaxBatch}

// maxSoundPrompt is the longest prompt of a sound run: beyond the positions that
// the policy judges one by one.
const maxSoundPrompt = 300

// soundPrompt is the prompt of a seed: a piece of text or random tokens, mostly short.
func (s subject) soundPrompt(seed int) []int32 {
	rng := rand.New(rand.NewPCG(uint64(seed), 1000))
	n := 1 + rng.IntN(maxSoundPrompt)
	if rng.IntN(2) == 0 {
		n = 1 + n/8
	}
	if rng.IntN(3) > 0 {
		n = min(n, len(s.long)-1)
		from := rng.IntN(len(s.long) - n)
		return s.long[from : from+n]
	}
	tokens := make([]int32, n)
	for i := range tokens {
		tokens[i] = int32(rng.IntN(s.model.Program.Vocab))
	}
	return tokens
}

// soundRuns probes sound executors, with both types of cache and steps of several
// sizes, on as many prompts as make at least n runs. show is called now and then.
func (s *scoring) soundRuns(m *modelScore, n int, show func()) error {
	defer show()
	var ways []backend.Options
	for _, kv := range []tensor.DType{tensor.F16, tensor.F32} {
		for _, size := range soundBatches {
			ways = append(ways, backend.Options{KV: kv, MaxBatch: size, Threads: s.threads})
			m.Sound = append(m.Sound, soundSet{KV: kv.String(), Batch: size, MinTokens: maxSoundPrompt, MinCosine: 1})
		}
	}
	seeds := (n + len(ways) - 1) / len(ways)
	for i, o := range ways {
		for seed := range seeds {
			if err := s.ctx.Err(); err != nil {
				return err
			}
			if err := s.soundOnce(&m.Sound[i], m, s.soundPrompt(seed), seed, o); err != nil {
				return err
			}
		}
		show()
		s.sound.end() // an executor of each kind for every model would take much memory
	}
	return nil
}

// alive probes the executor that faults surround without one.
func (s *scoring) alive() error {
	var set soundSet
	var m modelScore
	err := s.soundOnce(&set, &m, s.prompts[0], -1, backend.Options{KV: tensor.F16, MaxBatch: s.batch(), Threads: s.threads})
	if err == nil && len(m.Broken) > 0 {
		err = fmt.Errorf("after the faults: %s", m.Broken[0])
	}
	return err
}

// soundOnce is one of them.
func (s *scoring) soundOnce(set *soundSet, m *modelScore, prompt []int32, seed int, o backend.Options) error {
	exec, err := s.sound.Load(s.model.Program, s.model.File, o)
	if err != nil {
		return err
	}
	v := parity.Probe(s.ctx, s.ref, opened(candidate, exec), s.parityCase(prompt, o.MaxBatch), parity.Standard())
	if v.Status == parity.NotMeasured {
		return fmt.Errorf("seed %d, cache %s, steps of %d: %w", seed, o.KV, o.MaxBatch, v.Err())
	}
	set.add(v, len(prompt))
	if !v.Passed() {
		m.Broken = append(m.Broken, fmt.Sprintf("%s, seed %d, cache %s, steps of %d, prompt of %d tokens: %s", s.name, seed, o.KV, o.MaxBatch, len(prompt), v.Reason))
	}
	return nil
}

func (set *soundSet) add(v parity.Verdict, tokens int) {
	set.Runs++
	if !v.Passed() {
		set.Rejected++
	}
	set.MinTokens, set.MaxTokens = min(set.MinTokens, tokens), max(set.MaxTokens, tokens)
	set.Positions += len(v.Positions)
	for _, p := range v.Positions {
		set.MinCosine, set.MaxP99, set.MaxError = min(set.MinCosine, p.Cosine), max(set.MaxP99, p.P99), max(set.MaxError, p.Peak)
		if p.ReferenceArgmax != p.CandidateArgmax {
			set.Flips++
		}
	}
}
