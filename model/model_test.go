package model_test

import (
	"encoding/binary"
	"errors"
	"math"
	"strings"
	"testing"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/internal/golden"
	"github.com/apr-engine/apr/model"
	_ "github.com/apr-engine/apr/model/all"
	"github.com/apr-engine/apr/tensor"
)

// tensors is a set of weights that a test can change.
type tensors map[string]tensor.Tensor

func (ts tensors) Tensor(name string) (tensor.Tensor, bool) { t, ok := ts[name]; return t, ok }

// small is a copy of the smaller bundled model's metadata and tensors.
func small(t *testing.T) (*gguf.Metadata, tensors) {
	t.Helper()
	f, err := gguf.Open(golden.Path(t, "models", "tiny-coder-4m-q4_k_m.gguf"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close() })
	ts := tensors{}
	for _, x := range f.Tensors {
		ts[x.Name] = x
	}
	return f.Metadata.Clone(), ts
}

func TestBuild(t *testing.T) {
	md, ts := small(t)
	p, err := model.Build(md, ts)
	if err != nil {
		t.Fatal(err)
	}
	if p.Arch != "qwen2" || p.Hidden != 256 || p.Vocab != 4096 || p.Context != 1024 || len(p.Caches) != 4 {
		t.Errorf("program %s of width %d, %d tokens, context %d, %d layers", p.Arch, p.Hidden, p.Vocab, p.Context, len(p.Caches))
	}
	if c := p.Caches[0]; c.Heads != 2 || c.HeadDim != 64 || c.Window != 0 {
		t.Errorf("cache %+v, want 2 heads of 64 without a window", c)
	}
}

// Every contradiction is refused with a message that names what is wrong.
func TestBuildRefuses(t *testing.T) {
	set := func(key string, v any) func(*testing.T, *gguf.Metadata, tensors) {
		return func(t *testing.T, md *gguf.Metadata, _ tensors) {
			if err := md.Set(key, v); err != nil {
				t.Fatal(err)
			}
		}
	}
	for _, tt := range []struct {
		name   string
		change func(*testing.T, *gguf.Metadata, tensors)
		kind   error
		says   string
	}{
		{"no architecture", func(_ *testing.T, md *gguf.Metadata, _ tensors) { md.Delete("general.architecture") }, model.ErrConfig, "general.architecture"},
		{"unknown architecture", set("general.architecture", "abacus"), model.ErrArch, `"abacus"`},
		{"no layers", func(_ *testing.T, md *gguf.Metadata, _ tensors) { md.Delete("qwen2.block_count") }, model.ErrConfig, "qwen2.block_count"},
		{"zero layers", set("qwen2.block_count", uint32(0)), model.ErrConfig, "qwen2.block_count"},
		{"absurd layers", set("qwen2.block_count", uint32(1<<31)), model.ErrConfig, "qwen2.block_count"},
		{"more layers than tensors", set("qwen2.block_count", uint32(5)), graph.ErrInvalid, "blk.4."},
		{"heads that do not divide", set("qwen2.attention.head_count", uint32(3)), model.ErrConfig, "3 heads"},
		{"key/value heads that do not divide", set("qwen2.attention.head_count_kv", uint32(3)), model.ErrConfig, "3 key/value heads"},
		{"no epsilon", func(_ *testing.T, md *gguf.Metadata, _ tensors) {
			md.Delete("qwen2.attention.layer_norm_rms_epsilon")
		}, model.ErrConfig, "layer_norm_rms_epsilon"},
		{"NaN epsilon", set("qwen2.attention.layer_norm_rms_epsilon", float32(math.NaN())), model.ErrConfig, "layer_norm_rms_epsilon"},
		{"NaN rope base", set("qwen2.rope.freq_base", float32(math.NaN())), model.ErrConfig, "rope.freq_base"},
		{"negative rope base", set("qwen2.rope.freq_base", float32(-1)), model.ErrConfig, "rope.freq_base"},
		{"rope wider than a head", set("qwen2.rope.dimension_count", uint32(128)), model.ErrConfig, "rope.dimension_count"},
		{"odd rope", set("qwen2.rope.dimension_count", uint32(63)), model.ErrConfig, "rope.dimension_count"},
		{"unknown scaling", set("qwen2.rope.scaling.type", "longrope"), model.ErrConfig, "longrope"},
		{"other value width", func(t *testing.T, md *gguf.Metadata, ts tensors) {
			set("qwen2.attention.key_length", uint32(64))(t, md, ts)
			set("qwen2.attention.value_length", uint32(32))(t, md, ts)
		}, model.ErrConfig, "value length 32"},
		{"heads that differ between layers", func(t *testing.T, md *gguf.Metadata, ts tensors) {
			md.Delete("qwen2.attention.head_count_kv")
			set("qwen2.attention.head_count_kv", []uint32{2, 4, 2, 2})(t, md, ts)
		}, model.ErrConfig, "differs between layers"},
		{"unknown pairing", set("qwen2.rope.pairing", "diagonal"), model.ErrConfig, "diagonal"},
		{"missing tensor", func(_ *testing.T, _ *gguf.Metadata, ts tensors) { delete(ts, "blk.1.ffn_up.weight") }, graph.ErrInvalid, "blk.1.ffn_up.weight"},
		{"missing bias", func(_ *testing.T, _ *gguf.Metadata, ts tensors) { delete(ts, "blk.3.attn_k.bias") }, graph.ErrInvalid, "blk.3.attn_k.bias"},
		{"missing embedding", func(_ *testing.T, _ *gguf.Metadata, ts tensors) { delete(ts, "token_embd.weight") }, model.ErrConfig, "token_embd.weight"},
		{"wrong shape", func(_ *testing.T, _ *gguf.Metadata, ts tensors) {
			x := ts["blk.0.attn_q.weight"]
			x.Shape = []int{512, 128}
			ts["blk.0.attn_q.weight"] = x
		}, graph.ErrInvalid, "blk.0.attn_q.weight"},
		{"rope factors of the wrong length", func(_ *testing.T, _ *gguf.Metadata, ts tensors) {
			ts["rope_freqs.weight"] = tensor.Tensor{Name: "rope_freqs.weight", Type: tensor.F32, Shape: []int{3}, Data: make([]byte, 12)}
		}, model.ErrConfig, "rope_freqs.weight"},
		{"a rope factor of zero", func(_ *testing.T, _ *gguf.Metadata, ts tensors) {
			ts["rope_freqs.weight"] = factors(0)
		}, model.ErrConfig, "rope_freqs.weight"},
	} {
		t.Run(tt.name, func(t *testing.T) {
			md, ts := small(t)
			tt.change(t, md, ts)
			_, err := model.Build(md, ts)
			if !errors.Is(err, tt.kind) || !strings.Contains(err.Error(), tt.says) {
				t.Errorf("error %v, want %v that says %q", err, tt.kind, tt.says)
			}
			if err != nil && strings.Contains(err.Error(), "\n") {
				t.Errorf("error of several lines: %q", err)
			}
		})
	}
}

// factors is a rope_freqs.weight for heads of 64, all of one value.
func factors(v float32) tensor.Tensor {
	data := make([]byte, 4*32)
	for i := range 32 {
		binary.LittleEndian.PutUint32(data[4*i:], math.Float32bits(v))
	}
	return tensor.Tensor{Name: "rope_freqs.weight", Type: tensor.F32, Shape: []int{32}, Data: data}
}

func TestFrequencies(t *testing.T) {
	plain := model.RopeConfig{Dims: 8, Base: 10000, Scaling: "none", Factor: 1}
	inv, magnitude := plain.Frequencies()
	for i, want := range []float64{1, 0.1, 0.01, 0.001} {
		if math.Abs(inv[i]-want) > 1e-15 {
			t.Errorf("pair %d: %v, want %v", i, inv[i], want)
		}
	}
	if magnitude != 1 {
		t.Errorf("magnitude %v, want 1", magnitude)
	}
	linear := plain
	linear.Scaling, linear.Factor = "linear", 4
	if inv, _ := linear.Frequencies(); inv[0] != 0.25 {
		t.Errorf("linear scaling by 4 gives %v, want 0.25", inv[0])
	}
	// llama3: a pair that turns often within the original context is kept, one
	// that turns less than once is stretched by the whole factor.
	llama3 := model.RopeConfig{Dims: 8, Base: 10000, Scaling: "llama3", Factor: 8, OrigContext: 1000, LowFreq: 1, HighFreq: 4}
	inv, _ = llama3.Frequencies()
	if inv[0] != 1 || math.Abs(inv[3]-0.001/8) > 1e-18 {
		t.Errorf("llama3 gives %v", inv)
	}
	// The given factors divide, whatever the scaling.
	given := plain
	given.Factors = []float32{1, 2, 4, 8}
	if inv, _ := given.Frequencies(); math.Abs(inv[3]-0.001/8) > 1e-18 {
		t.Errorf("factors give %v", inv)
	}
	yarn := model.RopeConfig{Dims: 8, Base: 10000, Scaling: "yarn", Factor: 4, OrigContext: 1000, AttnFactor: 1, BetaFast: 32, BetaSlow: 1}
	if _, magnitude := yarn.Frequencies(); math.Abs(magnitude-(1+0.1*math.Log(4))) > 1e-15 {
		t.Errorf("yarn's magnitude %v", magnitude)
	}
}

func TestArchitectures(t *testing.T) {
	if got := strings.Join(model.Architectures(), " "); got != "gemma3 llama qwen2 qwen3" {
		t.Errorf("architectures %q", got)
	}
}
