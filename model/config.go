package model

import (
	"fmt"
	"math"

	"github.com/apr-engine/apr/graph"
)

// Config is the shape of a decoder-only transformer, read from the
// "<architecture>." keys of GGUF metadata.
type Config struct {
	Arch    string
	Vocab   int // rows of the embedding matrix
	Hidden  int // width of the residual stream
	Layers  int
	Heads   int // query heads
	KVHeads int // key/value heads; Heads is a multiple
	HeadDim int // elements of a head
	FFN     int // width of the feed-forward network
	Context int // positions the model was trained for
	RMSEps  float32
	Window  int // sliding attention window; 0 for none
	Rotary  RopeConfig
}

// RopeConfig is the rotary embedding as the file describes it.
type RopeConfig struct {
	Dims    int // rotated elements of a head
	Base    float64
	Scaling string // "none", "linear", "yarn", "llama3"
	Factor  float64
	// OrigContext is the context before scaling (yarn, llama3).
	OrigContext int
	AttnFactor  float64 // extra magnitude of yarn
	// BetaFast and BetaSlow bound yarn's ramp, in rotations over OrigContext.
	BetaFast, BetaSlow float64
	// LowFreq and HighFreq bound llama3's ramp, as divisors of OrigContext.
	LowFreq, HighFreq float64
	// Factors divides each frequency (rope_freqs.weight); nil for none.
	Factors []float32
}

// Limits on what a file may claim, far above any published model. They keep
// products of sizes from overflowing and allocations in proportion.
const (
	maxLayers  = 1024
	maxWidth   = 1 << 20
	maxHeads   = 4096
	maxContext = 1 << 30
)

// configReader collects the first error, so that a config reads as a list.
type configReader struct {
	md   Metadata
	arch string
	err  error
}

func (r *configReader) fail(format string, args ...any) {
	if r.err == nil {
		r.err = fmt.Errorf("%w: %s", ErrConfig, fmt.Sprintf(format, args...))
	}
}

// count reads a positive integer; a missing key gives def, or an error if def is 0.
func (r *configReader) count(key string, def, limit int) int {
	key = r.arch + "." + key
	v, ok := r.md.Uint(key)
	if !ok {
		// Some files give one value a layer; only equal values are a count.
		if list, isList := r.md.Ints(key); isList && len(list) > 0 {
			for _, x := range list {
				if x != list[0] || x < 0 {
					r.fail("%s differs between layers, which is not supported", key)
					return 1
				}
			}
			v, ok = uint64(list[0]), true
		}
	}
	if !ok {
		if def == 0 {
			r.fail("%s is missing", key)
			return 1
		}
		return def
	}
	if v == 0 || v > uint64(limit) {
		r.fail("%s is %d, want 1 to %d", key, v, limit)
		return 1
	}
	return int(v)
}

func (r *configReader) float(key string, def float64) float64 {
	key = r.arch + "." + key
	v, ok := r.md.Float(key)
	if !ok {
		return def
	}
	if math.IsNaN(v) || math.IsInf(v, 0) {
		r.fail("%s is %v", key, v)
		return def
	}
	return v
}

// ReadConfig reads the keys that every dense decoder has. The vocabulary is the
// number of rows of the embedding matrix.
func ReadConfig(arch string, md Metadata, w graph.Weights) (Config, error) {
	r := &configReader{md: md, arch: arch}
	c := Config{Arch: arch}
	c.Hidden = r.count("embedding_length", 0, maxWidth)
	c.Layers = r.count("block_count", 0, maxLayers)
	c.Heads = r.count("attention.head_count", 0, maxHeads)
	c.KVHeads = r.count("attention.head_count_kv", c.Heads, maxHeads)
	c.FFN = r.count("feed_forward_length", 0, maxWidth)
	c.Context = r.count("context_length", 0, maxContext)
	c.RMSEps = float32(r.float("attention.layer_norm_rms_epsilon", 0))
	if r.err == nil && !(c.RMSEps > 0) {
		r.fail("%s.attention.layer_norm_rms_epsilon is missing or not positive", arch)
	}
	if v, ok := md.Uint(arch + ".attention.key_length"); ok {
		c.HeadDim = r.count("attention.key_length", 0, maxWidth)
		if vl, ok := md.Uint(arch + ".attention.value_length"); ok && vl != v {
			r.fail("attention key length %d and value length %d differ, which is not supported", v, vl)
		}
	} else if c.Hidden%c.Heads == 0 {
		c.HeadDim = c.Hidden / c.Heads
	} else {
		r.fail("embedding length %d is not a multiple of %d heads", c.Hidden, c.Heads)
	}
	if c.Heads%c.KVHeads != 0 {
		r.fail("%d heads are not a multiple of %d key/value heads", c.Heads, c.KVHeads)
	}
	if v, ok := md.Uint(arch + ".attention.sliding_window"); ok && v <= maxContext {
		c.Window = int(v)
	}
	c.Rotary = r.rope(c.HeadDim, c.Context)
	if t, ok := w.Tensor("rope_freqs.weight"); ok && r.err == nil {
		c.Rotary.Factors = r.ropeFactors(t, c.Rotary.Dims)
	}
	if t, ok := w.Tensor("token_embd.weight"); ok {
		c.Vocab = t.Rows()
	} else {
		r.fail("tensor token_embd.weight is missing")
	}
	return c, r.err
}
