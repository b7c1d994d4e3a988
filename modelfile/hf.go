package modelfile

import (
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"math"
	"os"
	"path/filepath"
	"regexp"
	"strings"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
	"github.com/apr-engine/apr/tokenizer"
)

// maxText bounds the JSON files of a folder. tokenizer.json of 260,000 tokens
// takes about 35 MB.
const maxText = 256 << 20

// readText reads a file of a folder; missing is nil without an error.
func readText(path string) ([]byte, error) {
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	text, err := io.ReadAll(io.LimitReader(f, maxText+1))
	if err != nil {
		return nil, err
	}
	if len(text) > maxText {
		return nil, fmt.Errorf("%s: %w: it is too large", path, ErrConfig)
	}
	return text, nil
}

// openHF opens a Hugging Face folder: config.json, safetensors and the tokenizer.
func openHF(dir string) (*source, error) {
	text, err := readText(filepath.Join(dir, "config.json"))
	if err != nil {
		return nil, err
	}
	if text == nil {
		return nil, fmt.Errorf("%s: no config.json, which a Hugging Face model folder has: %w", dir, fs.ErrNotExist)
	}
	c, arch, err := parseConfig(text)
	if err != nil {
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	w, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, err
	}
	s, err := c.source(dir, arch, w)
	if err != nil {
		w.Close()
		return nil, fmt.Errorf("%s: %w", dir, err)
	}
	return s, nil
}

// source puts a folder's parts together.
func (c *hfConfig) source(dir, arch string, w *safetensors.File) (*source, error) {
	name := filepath.Base(dir)
	if abs, err := filepath.Abs(dir); err == nil {
		name = filepath.Base(abs)
	}
	md, err := c.metadata(arch, name)
	if err != nil {
		return nil, err
	}
	s := &source{format: "safetensors", origin: "safetensors", md: md, paths: w.Paths(), size: w.Size(), close: w.Close}
	if err := s.addHF(c, arch, w); err != nil {
		return nil, err
	}
	if err := s.addTokenizer(dir, c); err != nil {
		return nil, err
	}
	return s, nil
}

// ignored are tensors that are no weights of the language model.
var ignored = regexp.MustCompile(`rotary_emb\.inv_freq$|^(model\.)?(vision_tower|visual|multi_modal_projector|vision_model)\.`)

// addHF takes over the tensors, under GGUF names.
func (s *source) addHF(c *hfConfig, arch string, w *safetensors.File) error {
	tied := c.Tied != nil && *c.Tied || c.Tied == nil && arch == "gemma3"
	skipped := 0
	have := map[string]bool{}
	for _, t := range w.Tensors {
		name, known := GGUFName(arch, t.Name)
		switch {
		case ignored.MatchString(t.Name):
			skipped++
			continue
		case !known:
			return fmt.Errorf("%w: tensor %s belongs to no part of %s that is supported", ErrArch, t, arch)
		case name == "output.weight" && tied:
			continue // transformers uses the embedding whatever is stored here
		case have[name]:
			return fmt.Errorf("%w: two tensors are %s", ErrConfig, name)
		}
		have[name] = true
		it := item{Tensor: t}
		it.Name = name
		var err error
		if pairsNeighbours(arch) {
			if it, err = reorder(it, s.md, arch, true); err != nil {
				return err
			}
		}
		// Vectors are F32 in GGUF, which is what every runtime reads.
		if len(it.Shape) == 1 {
			shift := float32(0)
			if arch == "gemma3" && strings.HasSuffix(name, "norm.weight") {
				shift = 1 // stored as the distance from 1
			}
			if err := it.toF32(shift); err != nil {
				return fmt.Errorf("%w: tensor %s: %w", ErrConfig, t, err)
			}
		}
		s.items = append(s.items, it)
	}
	s.tied = !have["output.weight"]
	if skipped > 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%d tensors of other parts, such as vision, are left out", skipped))
	}
	if c.Scaling != nil && c.Scaling.kind() == "llama3" {
		s.items = append(s.items, item{Tensor: c.ropeFactors()})
	}
	return complete(arch, int(c.Layers), have)
}

// complete checks that all tensors of an architecture are there.
func complete(arch string, layers int, have map[string]bool) error {
	want := []string{"token_embd.weight", "output_norm.weight"}
	parts := []string{"attn_norm", "attn_q", "attn_k", "attn_v", "attn_output", "ffn_norm", "ffn_gate", "ffn_up", "ffn_down"}
	var biases []string
	switch arch {
	case "qwen2":
		biases = []string{"attn_q", "attn_k", "attn_v"}
	case "qwen3":
		parts = append(parts, "attn_q_norm", "attn_k_norm")
	case "gemma3":
		parts = append(parts, "attn_q_norm", "attn_k_norm", "post_attention_norm", "post_ffw_norm")
	}
	for i := range layers {
		for _, p := range parts {
			want = append(want, fmt.Sprintf("blk.%d.%s.weight", i, p))
		}
		for _, p := range biases {
			want = append(want, fmt.Sprintf("blk.%d.%s.bias", i, p))
		}
	}
	for _, name := range want {
		if !have[name] {
			hf, _ := HFName(arch, name)
			return fmt.Errorf("%w: tensor %s is missing", ErrConfig, hf)
		}
	}
	return nil
}

// toF32 stores a vector as F32, with a number added.
func (it *item) toF32(shift float32) error {
	if it.Type == tensor.F32 && shift == 0 {
		return nil
	}
	x := make([]float32, it.Elements())
	if err := quant.Dequantize(it.Type, x, it.Data); err != nil {
		return err
	}
	if it.stored == "" {
		it.stored = it.Type.String()
	}
	it.Type, it.Data = tensor.F32, floats(len(x), func(i int) float32 { return x[i] + shift })
	return nil
}

// ropeFactors is the tensor that divides each rotary frequency in Llama 3.1:
// long wavelengths by the whole factor, short ones by 1, those between blended.
func (c *hfConfig) ropeFactors() tensor.Tensor {
	r := c.Scaling
	orDefault := func(v, d float64) float64 {
		if v == 0 {
			return d
		}
		return v
	}
	factor, low, high := orDefault(r.Factor, 8), orDefault(r.Low, 1), orDefault(r.High, 4)
	original := orDefault(float64(r.Original), 8192)
	t := tensor.Tensor{Name: "rope_freqs.weight", Type: tensor.F32, Shape: []int{int(c.HeadDim / 2)}}
	for i := range int(c.HeadDim / 2) {
		wavelength := 2 * math.Pi * math.Pow(c.Theta, 2*float64(i)/float64(c.HeadDim))
		f := factor
		switch {
		case wavelength < original/high:
			f = 1
		case wavelength <= original/low:
			smooth := (original/wavelength - low) / (high - low)
			f = 1 / ((1-smooth)/factor + smooth)
		}
		t.Data = binary.LittleEndian.AppendUint32(t.Data, math.Float32bits(float32(f)))
	}
	return t
}

// addTokenizer reads the folder's tokenizer.
func (s *source) addTokenizer(dir string, c *hfConfig) error {
	text, err := readText(filepath.Join(dir, "tokenizer.json"))
	if err != nil {
		return err
	}
	if text == nil {
		return fmt.Errorf("%s: %w; other tokenizer files are not read", filepath.Join(dir, "tokenizer.json"), fs.ErrNotExist)
	}
	config, err := readText(filepath.Join(dir, "tokenizer_config.json"))
	if err != nil {
		return err
	}
	rows := 0
	for _, it := range s.items {
		if it.Name == "token_embd.weight" {
			rows = it.Rows()
		}
	}
	spec, err := tokenizer.FromHF(text, config, rows)
	if err != nil {
		return err
	}
	if rows != len(spec.Tokens) {
		return fmt.Errorf("%w: tokenizer.json has %d tokens, the embedding matrix %d rows", ErrConfig, len(spec.Tokens), rows)
	}
	for id, raw := range map[*int32]json.RawMessage{&spec.BOS: c.BOS, &spec.EOS: c.EOS, &spec.PAD: c.PAD} {
		if *id == tokenizer.None {
			*id = firstID(raw, len(spec.Tokens))
		}
	}
	if err := setTokenizer(s.md, spec); err != nil {
		return err
	}
	return setTemplate(s.md, dir, config)
}

// firstID reads a token id or the first of a list.
func firstID(raw json.RawMessage, limit int) int32 {
	var list []int32
	var one int32
	if json.Unmarshal(raw, &one) == nil && len(raw) > 0 && string(raw) != "null" {
		list = []int32{one}
	} else if json.Unmarshal(raw, &list) != nil {
		return tokenizer.None
	}
	if len(list) == 0 || list[0] < 0 || int(list[0]) >= limit {
		return tokenizer.None
	}
	return list[0]
}

// setTokenizer writes a tokenizer's GGUF keys.
func setTokenizer(md *gguf.Metadata, s tokenizer.Spec) error {
	kinds := make([]int32, len(s.Kinds))
	for i, k := range s.Kinds {
		kinds[i] = int32(k)
	}
	var errs []error
	set := func(key string, v any) { errs = append(errs, md.Set("tokenizer.ggml."+key, v)) }
	set("model", s.Model)
	if s.Pre != "" {
		set("pre", s.Pre)
	}
	set("tokens", s.Tokens)
	if s.Scores != nil {
		set("scores", s.Scores)
	}
	set("token_type", kinds)
	if s.Merges != nil {
		set("merges", s.Merges)
	}
	id := func(key string, id int32) {
		if id != tokenizer.None {
			set(key, uint32(id))
		}
	}
	id("bos_token_id", s.BOS)
	id("eos_token_id", s.EOS)
	id("unknown_token_id", s.UNK)
	id("padding_token_id", s.PAD)
	set("add_bos_token", s.AddBOS)
	if s.AddEOS {
		set("add_eos_token", true)
	}
	if s.Model == "llama" {
		set("add_space_prefix", s.AddSpacePrefix)
	}
	return errors.Join(errs...)
}

// setTemplate finds the chat template: in a file of its own, or within
// tokenizer_config.json as a text or as one of several with names.
func setTemplate(md *gguf.Metadata, dir string, config []byte) error {
	text, err := readText(filepath.Join(dir, "chat_template.jinja"))
	if err != nil {
		return err
	}
	template := string(text)
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if template == "" && config != nil && json.Unmarshal(config, &c) == nil && len(c.Template) > 0 {
		var named []struct{ Name, Template string }
		if json.Unmarshal(c.Template, &template) != nil && json.Unmarshal(c.Template, &named) == nil {
			for _, t := range named {
				if t.Name == "default" {
					template = t.Template
				}
			}
		}
	}
	if template == "" {
		return nil
	}
	return md.Set("tokenizer.chat_template", template)
}

// siblingTokenizer takes the tokenizer of an .apr file without one from a file
// beside it: <stem>.tokenizer.json or tokenizer.json. It returns why there is none.
func (f *File) siblingTokenizer(dir, path string) error {
	stem := strings.TrimSuffix(filepath.Base(path), ".apr")
	names := []string{stem + ".tokenizer.json", "tokenizer.json"}
	for _, name := range names {
		text, err := readText(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if text == nil {
			continue
		}
		config, err := readText(filepath.Join(dir, "tokenizer_config.json"))
		if err != nil {
			return err
		}
		rows := 0
		if t, ok := f.Tensor("token_embd.weight"); ok {
			rows = t.Rows()
		}
		spec, err := tokenizer.FromHF(text, config, rows)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		return setTokenizer(f.Metadata, spec)
	}
	return fmt.Errorf("no tokenizer is embedded, and neither %s nor %s is beside the file", names[0], names[1])
}
