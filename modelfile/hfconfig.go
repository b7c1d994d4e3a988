package modelfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"strings"

	"github.com/apr-engine/apr/format/gguf"
)

// Errors by kind.
var (
	// ErrConfig marks a Hugging Face folder whose config.json or tensors are
	// broken or contradict each other.
	ErrConfig = errors.New("bad model folder")
	// ErrArch marks a folder of an architecture, or with an option of one, that
	// cannot be converted.
	ErrArch = errors.New("model cannot be converted")
)

// hfConfig is what is read of config.json.
type hfConfig struct {
	ModelType     string          `json:"model_type"`
	Architectures []string        `json:"architectures"`
	Text          json.RawMessage `json:"text_config"` // of models with vision
	Name          string          `json:"_name_or_path"`
	Hidden        uint32          `json:"hidden_size"`
	Layers        uint32          `json:"num_hidden_layers"`
	Heads         uint32          `json:"num_attention_heads"`
	KVHeads       uint32          `json:"num_key_value_heads"`
	HeadDim       uint32          `json:"head_dim"`
	FFN           uint32          `json:"intermediate_size"`
	Context       uint32          `json:"max_position_embeddings"`
	Vocab         uint32          `json:"vocab_size"`
	Eps           float64         `json:"rms_norm_eps"`
	Theta         float64         `json:"rope_theta"`
	Tied          *bool           `json:"tie_word_embeddings"`
	Act           string          `json:"hidden_act"`
	Activation    string          `json:"hidden_activation"`
	MLPBias       bool            `json:"mlp_bias"`
	Window        *uint32         `json:"sliding_window"`
	UseWindow     *bool           `json:"use_sliding_window"`
	FullLayers    *uint32         `json:"max_window_layers"` // the first ones, without a window
	QueryScalar   float64         `json:"query_pre_attn_scalar"`
	LocalTheta    float64         `json:"rope_local_base_freq"`
	Pattern       uint32          `json:"sliding_window_pattern"`
	Softcap       float64         `json:"final_logit_softcapping"`
	BOS           json.RawMessage `json:"bos_token_id"`
	EOS           json.RawMessage `json:"eos_token_id"`
	PAD           json.RawMessage `json:"pad_token_id"`
	Scaling       *hfRope         `json:"rope_scaling"`
	Rope          *hfRope         `json:"rope_parameters"` // the same since transformers 5
}

// hfRope is how rotary embeddings are stretched.
type hfRope struct {
	Type     string  `json:"rope_type"`
	OldType  string  `json:"type"`
	Theta    float64 `json:"rope_theta"`
	Factor   float64 `json:"factor"`
	Original uint32  `json:"original_max_position_embeddings"`
	Low      float64 `json:"low_freq_factor"`
	High     float64 `json:"high_freq_factor"`
	BetaFast float64 `json:"beta_fast"`
	BetaSlow float64 `json:"beta_slow"`
	MScale   float64 `json:"mscale"`
	Attn     float64 `json:"attention_factor"`
}

// parseConfig reads config.json.
func parseConfig(text []byte) (c hfConfig, arch string, err error) {
	if err := json.Unmarshal(text, &c); err != nil {
		return c, "", fmt.Errorf("%w: config.json: %s", ErrConfig, strings.ReplaceAll(err.Error(), "\n", " "))
	}
	name := c.ModelType
	if len(c.Text) > 0 && string(c.Text) != "null" {
		if err := json.Unmarshal(c.Text, &c); err != nil {
			return c, "", fmt.Errorf("%w: config.json: text_config: %s", ErrConfig, strings.ReplaceAll(err.Error(), "\n", " "))
		}
	}
	if name == "" && len(c.Architectures) > 0 {
		name = c.Architectures[0]
	}
	arch, ok := knownArch(name)
	if !ok {
		return c, "", fmt.Errorf("%w: config.json: model_type %q is not supported (qwen2, qwen3, llama, mistral, gemma3)", ErrArch, name)
	}
	if c.Scaling == nil {
		c.Scaling = c.Rope
	}
	if c.Theta == 0 && c.Scaling != nil {
		c.Theta = c.Scaling.Theta
	}
	c.fillIn(arch)
	return c, arch, c.check(arch)
}

// fillIn sets what transformers assumes for a key that is absent.
func (c *hfConfig) fillIn(arch string) {
	if c.KVHeads == 0 {
		c.KVHeads = c.Heads
	}
	if arch == "gemma3" {
		set := func(p *uint32, v uint32) {
			if *p == 0 {
				*p = v
			}
		}
		set(&c.HeadDim, 256)
		set(&c.Context, 131072)
		set(&c.Pattern, gemmaPattern)
		if c.Eps == 0 {
			c.Eps = 1e-6
		}
		if c.Theta == 0 {
			c.Theta = 1e6
		}
		if c.LocalTheta == 0 {
			c.LocalTheta = gemmaLocalTheta
		}
	}
	if c.HeadDim == 0 && c.Heads > 0 {
		c.HeadDim = c.Hidden / c.Heads
	}
	if c.Theta == 0 {
		c.Theta = 10000
	}
	if c.Eps == 0 {
		c.Eps = 1e-6
	}
}

// check refuses what is missing and what the programs of an architecture do not do.
func (c *hfConfig) check(arch string) error {
	for _, n := range []struct {
		key   string
		value uint32
	}{
		{"hidden_size", c.Hidden}, {"num_hidden_layers", c.Layers}, {"num_attention_heads", c.Heads},
		{"intermediate_size", c.FFN}, {"max_position_embeddings", c.Context}, {"head_dim", c.HeadDim},
	} {
		if n.value == 0 || n.value > 1<<30 {
			return fmt.Errorf("%w: config.json: %s is missing or out of range", ErrConfig, n.key)
		}
	}
	act, want := c.Act, "silu"
	if arch == "gemma3" {
		want = "gelu_pytorch_tanh"
		if c.Activation != "" {
			act = c.Activation
		}
	}
	option := ""
	switch {
	case act != "" && act != want:
		option = "hidden_act " + act
	case c.MLPBias:
		option = "mlp_bias"
	case c.Softcap != 0:
		option = "final_logit_softcapping"
	case c.QueryScalar != 0 && c.QueryScalar != float64(gemmaQueryScalar(uint64(c.Layers), uint64(c.Hidden), uint64(c.Heads), uint64(c.HeadDim))):
		option = fmt.Sprintf("query_pre_attn_scalar %g", c.QueryScalar)
	case arch == "gemma3" && (c.Pattern != gemmaPattern || c.LocalTheta != gemmaLocalTheta):
		option = "sliding_window_pattern or rope_local_base_freq"
	case c.windowed(arch) && strings.HasPrefix(arch, "qwen") && (c.FullLayers == nil || *c.FullLayers > 0):
		option = "a sliding window for some of the layers (max_window_layers)"
	}
	if option != "" {
		return fmt.Errorf("%w: config.json: %s is not supported for %s", ErrArch, option, arch)
	}
	return nil
}

// What config.json says of Gemma 3 and GGUF does not: the program of the
// architecture has these numbers.
const (
	gemmaPattern    = 6     // every sixth layer attends to everything
	gemmaLocalTheta = 10000 // RoPE base of the others
)

// gemmaQueryScalar is the d in Gemma 3's attention scale 1/√d: the head's width,
// but hidden/heads in 27B, the only one of 62 layers.
func gemmaQueryScalar(layers, hidden, heads, width uint64) uint64 {
	if layers == 62 && heads > 0 {
		return hidden / heads
	}
	return width
}

// windowed reports whether layers have a sliding window. Qwen's configs name one
// that is not used unless they say so, and then not by the first layers.
func (c *hfConfig) windowed(arch string) bool {
	if c.Window == nil || *c.Window == 0 || c.FullLayers != nil && *c.FullLayers >= c.Layers {
		return false
	}
	return arch == "gemma3" || c.ModelType == "mistral" || c.UseWindow != nil && *c.UseWindow
}

// metadata writes the architecture's keys in the order of llama.cpp's converter.
func (c *hfConfig) metadata(arch, name string) (*gguf.Metadata, error) {
	md := gguf.NewMetadata()
	var errs []error
	set := func(key string, v any) { errs = append(errs, md.Set(key, v)) }
	own := func(key string, v any) { set(arch+"."+key, v) }
	set("general.architecture", arch)
	set("general.type", "model")
	set("general.name", name)
	own("block_count", c.Layers)
	own("context_length", c.Context)
	own("embedding_length", c.Hidden)
	own("feed_forward_length", c.FFN)
	own("attention.head_count", c.Heads)
	own("attention.head_count_kv", c.KVHeads)
	own("rope.freq_base", float32(c.Theta))
	own("attention.layer_norm_rms_epsilon", float32(c.Eps))
	if c.HeadDim != c.Hidden/c.Heads || arch == "gemma3" || arch == "qwen3" {
		own("attention.key_length", c.HeadDim)
		own("attention.value_length", c.HeadDim)
	}
	if arch == "llama" {
		own("rope.dimension_count", c.HeadDim)
	}
	if c.windowed(arch) {
		own("attention.sliding_window", *c.Window)
	}
	errs = append(errs, c.Scaling.metadata(arch, md))
	return md, errors.Join(errs...)
}

// metadata writes the keys of a stretched rotary embedding. Llama 3's needs none:
// its factors are a tensor.
func (r *hfRope) metadata(arch string, md *gguf.Metadata) error {
	if r == nil {
		return nil
	}
	kind := r.kind()
	prefix := arch + ".rope.scaling."
	var errs []error
	set := func(key string, v float64) {
		if v != 0 {
			errs = append(errs, md.Set(prefix+key, float32(v)))
		}
	}
	switch kind {
	case "", "default", "llama3":
		return nil
	case "linear":
	case "yarn":
		if r.Original > 0 {
			errs = append(errs, md.Set(prefix+"original_context_length", r.Original))
		}
		set("attn_factor", r.Attn)
		set("yarn_beta_fast", r.BetaFast)
		set("yarn_beta_slow", r.BetaSlow)
	default:
		return fmt.Errorf("%w: config.json: rope_scaling of type %q is not supported", ErrArch, kind)
	}
	errs = append(errs, md.Set(prefix+"type", kind))
	set("factor", r.Factor)
	return errors.Join(errs...)
}

func (r *hfRope) kind() string {
	if r.Type != "" {
		return r.Type
	}
	return r.OldType
}
