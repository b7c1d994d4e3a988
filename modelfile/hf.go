package modelfile

import (
	"encoding/binary"
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
	s, problems, err := readFolder(dir)
	if err != nil {
		return nil, err
	}
	if len(problems) == 0 {
		if err := s.incomplete(); err != nil {
			problems = []FolderProblem{{Err: err}}
		}
	}
	if len(problems) > 0 {
		s.close()
		return nil, fmt.Errorf("%s: %w", dir, problems[0].Err)
	}
	return s, nil
}

// readFolder reads as much of a folder as can be read.
func readFolder(dir string) (*source, []FolderProblem, error) {
	none := &source{format: "safetensors", origin: "safetensors", close: func() error { return nil }}
	inConfig := func(err error) []FolderProblem { return []FolderProblem{{File: configFile, Err: err}} }
	text, err := readText(filepath.Join(dir, configFile))
	if err != nil {
		return nil, nil, err
	}
	if text == nil {
		return none, inConfig(fmt.Errorf("no config.json, which a Hugging Face model folder has: %w", fs.ErrNotExist)), nil
	}
	c, arch, err := parseConfig(text)
	if err != nil {
		return none, inConfig(err), nil
	}
	name := filepath.Base(dir)
	if abs, err := filepath.Abs(dir); err == nil {
		name = filepath.Base(abs)
	}
	md, err := c.metadata(arch, name)
	if err != nil {
		return none, inConfig(err), nil
	}
	w, err := safetensors.OpenFolder(dir)
	if err != nil {
		return nil, nil, err
	}
	s := &source{format: "safetensors", origin: "safetensors", md: md, paths: w.Paths(), size: w.Size(), close: w.Close}
	problems := s.addHF(&c, arch, w)
	return s, append(problems, s.addTokenizer(dir, &c)...), nil
}

// ignored are tensors that are no weights of the language model.
var ignored = regexp.MustCompile(`rotary_emb\.inv_freq$|^(model\.)?(vision_tower|visual|multi_modal_projector|vision_model)\.`)

// addHF takes over the tensors, under GGUF names, and returns what is wrong with
// them.
func (s *source) addHF(c *hfConfig, arch string, w *safetensors.File) (problems []FolderProblem) {
	tied := c.Tied != nil && *c.Tied || c.Tied == nil && arch == "gemma3"
	skipped := 0
	have := map[string]bool{}
	for _, t := range w.Tensors {
		bad := func(format string, args ...any) {
			problems = append(problems, FolderProblem{Tensor: t.Name, Err: fmt.Errorf(format, args...)})
		}
		name, known := GGUFName(arch, t.Name)
		switch {
		case ignored.MatchString(t.Name):
			skipped++
			continue
		case !known:
			bad("%w: tensor %s belongs to no part of %s that is supported", ErrArch, t, arch)
			continue
		case name == "output.weight" && tied:
			continue // transformers uses the embedding whatever is stored here
		case have[name]:
			bad("%w: two tensors are %s", ErrConfig, name)
			continue
		}
		have[name] = true
		it := item{Tensor: t}
		it.Name = name
		if err := it.fromHF(s.md, arch); err != nil {
			bad("%w", err)
		}
		s.items = append(s.items, it)
		if name == "token_embd.weight" && c.Vocab != 0 && int(c.Vocab) != t.Rows() {
			bad("%w: config.json has vocab_size %d, the embedding matrix %d rows", ErrConfig, c.Vocab, t.Rows())
		}
	}
	s.tied = !have["output.weight"]
	if skipped > 0 {
		s.warnings = append(s.warnings, fmt.Sprintf("%d tensors of other parts, such as vision, are left out", skipped))
	}
	if c.Scaling != nil && c.Scaling.kind() == "llama3" {
		s.items = append(s.items, item{Tensor: c.ropeFactors()})
	}
	return problems
}

// fromHF gives a tensor the order of rows and the numbers that GGUF files have.
func (it *item) fromHF(md *gguf.Metadata, arch string) (err error) {
	before := it.Tensor
	if pairsNeighbours(arch) {
		if *it, err = reorder(*it, md, arch, true); err != nil {
			return err
		}
	}
	// Vectors are F32 in GGUF, which is what every runtime reads.
	if len(it.Shape) == 1 {
		shift := float32(0)
		if arch == "gemma3" && strings.HasSuffix(it.Name, "norm.weight") {
			shift = 1 // stored as the distance from 1
		}
		if err := it.toF32(shift); err != nil {
			return fmt.Errorf("%w: tensor %s: %w", ErrConfig, before, err)
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

func orDefault[T float64 | decimal](v, d T) T {
	if v == 0 {
		return d
	}
	return v
}
