package modelfile

import (
	"bytes"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/newfile"
	"github.com/apr-engine/apr/modelfile/names"
	"github.com/apr-engine/apr/tensor"
	"github.com/apr-engine/apr/tokenizer"
)

// Files of a Hugging Face folder that this package writes.
const (
	configFile     = "config.json"
	generationFile = "generation_config.json"
	tokenizerFile  = "tokenizer.json"
	tokenizerSetup = "tokenizer_config.json"
	weightsFile    = "model.safetensors"
)

// hfConfigOut is config.json as written: what hfConfig reads, in the order in
// which people look for it.
type hfConfigOut struct {
	Architectures []string   `json:"architectures"`
	ModelType     string     `json:"model_type"`
	Hidden        uint64     `json:"hidden_size"`
	FFN           uint64     `json:"intermediate_size"`
	Layers        uint64     `json:"num_hidden_layers"`
	Heads         uint64     `json:"num_attention_heads"`
	KVHeads       uint64     `json:"num_key_value_heads"`
	HeadDim       uint64     `json:"head_dim,omitempty"`
	Context       uint64     `json:"max_position_embeddings"`
	Vocab         int        `json:"vocab_size"`
	Act           string     `json:"hidden_act,omitempty"`
	Activation    string     `json:"hidden_activation,omitempty"`
	Eps           decimal    `json:"rms_norm_eps"`
	Theta         decimal    `json:"rope_theta"`
	LocalTheta    decimal    `json:"rope_local_base_freq,omitempty"`
	Scaling       *hfRopeOut `json:"rope_scaling,omitempty"`
	Window        *uint64    `json:"sliding_window,omitempty"`
	UseWindow     *bool      `json:"use_sliding_window,omitempty"`
	FullLayers    *uint64    `json:"max_window_layers,omitempty"`
	Pattern       uint64     `json:"sliding_window_pattern,omitempty"`
	QueryScalar   uint64     `json:"query_pre_attn_scalar,omitempty"`
	AttnBias      *bool      `json:"attention_bias,omitempty"`
	Tied          bool       `json:"tie_word_embeddings"`
	BOS           *int32     `json:"bos_token_id,omitempty"`
	EOS           *int32     `json:"eos_token_id,omitempty"`
	PAD           *int32     `json:"pad_token_id,omitempty"`
	DType         string     `json:"torch_dtype"`
}

type hfRopeOut struct {
	Type     string  `json:"rope_type"`
	Factor   decimal `json:"factor,omitempty"`
	Original uint64  `json:"original_max_position_embeddings,omitempty"`
	Low      decimal `json:"low_freq_factor,omitempty"`
	High     decimal `json:"high_freq_factor,omitempty"`
	BetaFast decimal `json:"beta_fast,omitempty"`
	BetaSlow decimal `json:"beta_slow,omitempty"`
	Attn     decimal `json:"attention_factor,omitempty"`
}

// decimal is a number that is written with a point or an exponent, as programs
// expect that take a whole number for an integer.
type decimal float64

// MarshalJSON writes the shortest form.
func (d decimal) MarshalJSON() ([]byte, error) {
	b, err := json.Marshal(float64(d))
	if err == nil && !bytes.ContainsAny(b, ".eE") {
		b = append(b, ".0"...)
	}
	return b, err
}

// classes are transformers' classes for model types.
var classes = map[string]string{
	"qwen2": "Qwen2ForCausalLM", "qwen3": "Qwen3ForCausalLM", "llama": "LlamaForCausalLM",
	"mistral": "MistralForCausalLM", "gemma3_text": "Gemma3ForCausalLM",
}

// folderSink is a Hugging Face folder in the making.
type folderSink struct {
	sink   // its weights
	folder *newfile.Folder
}

// Close gives the folder its name once the weights are complete.
func (f folderSink) Close() error {
	if err := f.sink.Close(); err != nil {
		return err
	}
	return f.folder.Commit()
}

// Abort removes what was written.
func (f folderSink) Abort() {
	f.sink.Abort()
	f.folder.Abort()
}

// createFolder starts a folder for transformers: configuration and tokenizer at
// once, then the weights.
func (j *job) createFolder(out string, p *Plan) (sink, error) {
	files, err := j.hfFiles()
	if err != nil {
		return nil, fmt.Errorf("convert %s: %w", j.paths[0], err)
	}
	folder, err := newfile.CreateFolder(out)
	if err != nil {
		return nil, err
	}
	for _, name := range []string{configFile, generationFile, tokenizerFile, tokenizerSetup} {
		if err := folder.Write(name, files[name]); err != nil {
			folder.Abort()
			return nil, err
		}
	}
	w, err := j.createSafetensors(folder.File(weightsFile), p)
	if err != nil {
		folder.Abort()
		return nil, err
	}
	return folderSink{w, folder}, nil
}

// hfFiles are the files beside the weights, by name.
func (j *job) hfFiles() (map[string][]byte, error) {
	md := j.md
	arch, _ := md.String("general.architecture")
	c, err := j.hfConfig(arch)
	if err != nil {
		return nil, err
	}
	files := map[string][]byte{}
	if files[tokenizerFile], files[tokenizerSetup], err = tokenizer.ToHF(md, int(c.Context)); err != nil {
		return nil, fmt.Errorf("%w; a name that ends in .safetensors gets the weights alone", err)
	}
	t, err := tokenizer.FromMetadata(md)
	if err != nil {
		return nil, err
	}
	if t.Size() != c.Vocab {
		return nil, fmt.Errorf("%w: the vocabulary has %d tokens, the embedding matrix %d rows", ErrConfig, t.Size(), c.Vocab)
	}
	id := func(n int32) *int32 {
		if n == tokenizer.None {
			return nil
		}
		return &n
	}
	c.BOS, c.EOS, c.PAD = id(t.BOS()), id(t.EOS()), id(t.PAD())
	// All that ends an answer, the one that the file names first.
	ends := []int32{}
	if t.EOS() != tokenizer.None {
		ends = append(ends, t.EOS())
	}
	for _, n := range t.EOG() {
		if !slices.Contains(ends, n) {
			ends = append(ends, n)
		}
	}
	generation := struct {
		BOS  *int32  `json:"bos_token_id,omitempty"`
		EOS  []int32 `json:"eos_token_id,omitempty"`
		PAD  *int32  `json:"pad_token_id,omitempty"`
		Pick bool    `json:"do_sample"`
	}{c.BOS, ends, c.PAD, false}
	for name, v := range map[string]any{configFile: c, generationFile: generation} {
		var b bytes.Buffer
		e := json.NewEncoder(&b)
		e.SetIndent("", "  ")
		if err := e.Encode(v); err != nil {
			return nil, fmt.Errorf("%s: %w", name, err)
		}
		files[name] = b.Bytes()
	}
	return files, nil
}

// hfConfig translates the architecture's keys: the reverse of hfConfig.metadata.
func (j *job) hfConfig(arch string) (*hfConfigOut, error) {
	md := j.md
	if known, ok := knownArch(arch); !ok || known != arch {
		return nil, fmt.Errorf("%w: architecture %q has no Hugging Face form here (qwen2, qwen3, llama, gemma3)", ErrArch, arch)
	}
	c := &hfConfigOut{ModelType: arch, Act: "silu", Tied: j.tied, DType: torchType(j.mainType())}
	number := func(key string, fallback uint64) uint64 {
		if n, ok := md.Uint(arch + "." + key); ok {
			return n
		}
		if list, ok := md.Ints(arch + "." + key); ok && len(list) > 0 && !slices.ContainsFunc(list, func(n int64) bool { return n != list[0] || n < 0 }) {
			return uint64(list[0])
		}
		return fallback
	}
	c.Hidden, c.FFN, c.Layers = number("embedding_length", 0), number("feed_forward_length", 0), number("block_count", 0)
	c.Heads, c.Context = number("attention.head_count", 0), number("context_length", 0)
	c.KVHeads = number("attention.head_count_kv", c.Heads)
	for key, n := range map[string]uint64{"embedding_length": c.Hidden, "feed_forward_length": c.FFN, "block_count": c.Layers,
		"attention.head_count": c.Heads, "context_length": c.Context} {
		if n == 0 {
			return nil, fmt.Errorf("%w: metadata key %s.%s is missing, or differs between layers", ErrConfig, arch, key)
		}
	}
	width := number("attention.key_length", c.Hidden/c.Heads)
	if width != c.Hidden/c.Heads || arch != "qwen2" {
		c.HeadDim = width
	}
	if n := number("rope.dimension_count", width); n != width {
		return nil, fmt.Errorf("%w: %d of a head's %d elements are rotated (%s.rope.dimension_count), which transformers' %s cannot do", ErrArch, n, width, arch, arch)
	}
	c.Eps, _ = shortFloat(md, arch+".attention.layer_norm_rms_epsilon")
	var ok bool
	if c.Theta, ok = shortFloat(md, arch+".rope.freq_base"); !ok {
		c.Theta = 10000
	}
	for _, it := range j.items {
		if it.Name == "token_embd.weight" {
			c.Vocab = it.Rows()
		}
	}
	if err := j.ropeScaling(c, arch); err != nil {
		return nil, err
	}
	c.window(arch, number("attention.sliding_window", 0))
	if err := j.attentionBias(c, arch); err != nil {
		return nil, err
	}
	if arch == "gemma3" {
		c.ModelType, c.Act, c.Activation = "gemma3_text", "", "gelu_pytorch_tanh"
		c.LocalTheta, c.Pattern, c.QueryScalar = gemmaLocalTheta, gemmaPattern, gemmaQueryScalar(c.Layers, c.Hidden, c.Heads, width)
	}
	c.Architectures = []string{classes[c.ModelType]}
	return c, nil
}

// shortFloat reads a number as the shortest decimal that gives the same float32:
// 1e-06, not 9.999999974752427e-07.
func shortFloat(md *gguf.Metadata, key string) (decimal, bool) {
	x, ok := md.Float(key)
	if !ok || float64(float32(x)) != x {
		return decimal(x), ok
	}
	var short decimal
	text, err := json.Marshal(float32(x))
	if err != nil || json.Unmarshal(text, &short) != nil {
		return decimal(x), ok // not finite; the encoder will say so
	}
	return short, ok
}

// window writes the sliding window. Mistral is the llama with one. Qwen's applies
// to the layers from max_window_layers on, the engine's to all.
func (c *hfConfigOut) window(arch string, n uint64) {
	yes, zero := true, uint64(0)
	if n == 0 {
		return
	}
	c.Window = &n
	switch arch {
	case "llama":
		c.ModelType = "mistral"
	case "qwen2", "qwen3":
		c.UseWindow, c.FullLayers = &yes, &zero
	}
}

// attentionBias says whether attention has biases. Qwen2's class has those of q, k
// and v without being asked; the others' need one at the output too.
func (j *job) attentionBias(c *hfConfigOut, arch string) error {
	count := map[string]int{}
	for _, it := range j.items {
		if n, ok := names.Parse(it.Name, false); ok && n.Layer >= 0 {
			count[n.Role.GGUF+"."+n.Suffix]++
		}
	}
	parts := []string{"attn_q.bias", "attn_k.bias", "attn_v.bias", "attn_output.bias"}
	some, all := 0, true
	for _, p := range parts {
		some += count[p]
		all = all && count[p] == int(c.Layers)
	}
	switch {
	case arch == "qwen2" && count["attn_output.bias"] == 0, some == 0:
		return nil
	case all && (arch == "llama" || arch == "qwen3"):
		c.AttnBias = &all
		return nil
	}
	return fmt.Errorf("%w: attention has biases that transformers' %s lacks, or lacks some that it has", ErrArch, arch)
}

// ropeScaling translates how rotary embeddings are stretched.
func (j *job) ropeScaling(c *hfConfigOut, arch string) error {
	prefix := arch + ".rope.scaling."
	kind, _ := j.md.String(prefix + "type")
	factor, _ := shortFloat(j.md, prefix+"factor")
	if old, ok := shortFloat(j.md, arch+".rope.scale_linear"); ok && factor == 0 {
		factor = old
	}
	if kind == "" && factor > 0 && factor != 1 {
		kind = "linear"
	}
	r := &hfRopeOut{Type: kind, Factor: factor}
	if j.factors != nil {
		if kind != "" && kind != "none" && kind != "llama3" {
			return fmt.Errorf("%w: rope_freqs.weight together with rope.scaling.type %q", ErrArch, kind)
		}
		var err error
		c.Scaling, err = llama3Scaling(j.factors, float64(c.Theta))
		return err
	}
	switch kind {
	case "", "none":
		return nil
	case "linear":
	case "yarn", "llama3":
		r.Original, _ = j.md.Uint(prefix + "original_context_length")
		r.Attn, _ = shortFloat(j.md, prefix+"attn_factor")
		r.BetaFast, _ = shortFloat(j.md, prefix+"yarn_beta_fast")
		r.BetaSlow, _ = shortFloat(j.md, prefix+"yarn_beta_slow")
		r.Low, _ = shortFloat(j.md, prefix+"low_freq_factor")
		r.High, _ = shortFloat(j.md, prefix+"high_freq_factor")
		if kind == "llama3" { // transformers wants all four
			r.Low, r.High = orDefault(r.Low, 1), orDefault(r.High, 4)
			if r.Original == 0 {
				r.Original = c.Context
			}
		}
	default:
		return fmt.Errorf("%w: rope.scaling.type %q is not known to transformers", ErrArch, kind)
	}
	c.Scaling = r
	return nil
}

// llama3Scaling finds the numbers that rope_freqs.weight was made of: GGUF keeps
// the result alone. The factor is its largest element; the ramp's bounds are 1 and
// 4 in every published model; the original context is a power of two.
func llama3Scaling(factors []byte, theta float64) (*hfRopeOut, error) {
	n := len(factors) / 4
	if n == 0 {
		return nil, fmt.Errorf("%w: rope_freqs.weight is empty", ErrConfig)
	}
	largest := float32(0)
	for i := range n {
		largest = max(largest, math.Float32frombits(binary.LittleEndian.Uint32(factors[4*i:])))
	}
	c := hfConfig{HeadDim: uint32(2 * n), Theta: theta, Scaling: &hfRope{Factor: float64(largest), Low: 1, High: 4}}
	for original := uint32(1 << 20); original >= 16; original /= 2 {
		c.Scaling.Original = original
		if sameFactors(c.ropeFactors().Data, factors) {
			return &hfRopeOut{Type: "llama3", Factor: decimal(largest), Original: uint64(original), Low: 1, High: 4}, nil
		}
	}
	return nil, fmt.Errorf("%w: rope_freqs.weight is not what Llama 3's rule gives for any factor and context, and config.json has no place for it", ErrArch)
}

// sameFactors compares up to the rounding of one computed in float32.
func sameFactors(a, b []byte) bool {
	if len(a) != len(b) {
		return false
	}
	for i := 0; i < len(a); i += 4 {
		x := float64(math.Float32frombits(binary.LittleEndian.Uint32(a[i:])))
		y := float64(math.Float32frombits(binary.LittleEndian.Uint32(b[i:])))
		if !(math.Abs(x-y) <= 1e-5*y) {
			return false
		}
	}
	return true
}

// mainType is the type that most elements are going to have.
func (j *job) mainType() tensor.DType {
	count := map[tensor.DType]int{}
	best := tensor.F32
	for i, t := range j.items {
		count[j.types[i]] += t.Elements()
		if count[j.types[i]] > count[best] {
			best = j.types[i]
		}
	}
	return best
}

// torchType is PyTorch's name of a type.
func torchType(t tensor.DType) string {
	switch t {
	case tensor.F16:
		return "float16"
	case tensor.BF16:
		return "bfloat16"
	}
	return "float32"
}
