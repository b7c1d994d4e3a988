package main

import (
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"

	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/synth"
)

// subject is a model with prompts.
type subject struct {
	name    string
	model   *engine.Model
	prompts [][]int32
	long    []int32 // for generations that go past position 500
}

// synthetic are the shapes that are written for a run, with and without outlier
// channels.
var synthetic = []synth.Options{
	{Preset: "tiny-qwen2.5-1.5b", Quant: "q4_k_m"},
	{Preset: "tiny-qwen2.5-1.5b", Quant: "q4_k_m", OutlierChannels: 2},
	{Preset: "tiny-qwen2.5-0.5b", Quant: "q4_0"},
	{Preset: "tiny-llama-3.1-8b", Quant: "q4_k_m"},
	{Preset: "tiny-llama-3.1-8b", Quant: "q5_k_m", OutlierChannels: 2},
	{Preset: "tiny-qwen3-0.6b", Quant: "q4_k_m"},
	{Preset: "tiny-qwen3-0.6b", Quant: "q8_0", OutlierChannels: 2},
	{Preset: "tiny-gemma3-1b", Quant: "q4_1"},
	{Preset: "tiny-qwen2.5-0.5b", Quant: "q4_0", VocabSize: 140_000}, // judged in pieces, for memory
}

// largeVocab is a vocabulary whose logits are judged in pieces.
const largeVocab = 100_000

// bundled are the models of the repository.
var bundled = []string{"tiny-coder-4m-q4_k_m", "tiny-coder-28m-q4_k_m"}

func synthName(o synth.Options) string {
	name := o.Preset + "-" + o.Quant
	if o.OutlierChannels > 0 {
		name += ", outliers"
	}
	if o.VocabSize > 0 {
		name += fmt.Sprintf(", vocabulary of %d", o.VocabSize)
	}
	return name
}

// open opens the bundled models under root and writes the synthetic ones to dir,
// those whose names are wanted.
func open(root, dir string, wanted func(name string) bool) ([]subject, error) {
	var all []subject
	for _, name := range bundled {
		if !wanted(name) {
			continue
		}
		s, err := openSubject(name, filepath.Join(root, "models", name+".gguf"), root)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	for i, o := range synthetic {
		if !wanted(synthName(o)) {
			continue
		}
		path := filepath.Join(dir, fmt.Sprintf("%d.gguf", i))
		if err := synth.Write(path, o); err != nil {
			return nil, err
		}
		s, err := openSubject(synthName(o), path, root)
		if err != nil {
			return nil, err
		}
		all = append(all, s)
	}
	return all, nil
}

// texts are prompts of different kinds; files are cut to promptTokens.
var texts = []string{
	"What is 2+2?",
	"package main\n\nimport (\n\t\"fmt\"\n\t\"os\"\n)\n\nfunc main() {\n\tfor i, a := range os.Args {\n\t\tfmt.Println(i, a)\n\t}\n}\n",
	"The quick brown fox jumps over the lazy dog. Zwölf Boxkämpfer jagen Viktor quer über den großen Sylter Deich. 1234567890",
}

// promptTokens is the length of long prompts: more than the 64 positions that
// attention sums in one block, and more than one batch in most configurations.
const promptTokens = 96

func openSubject(name, path, root string) (subject, error) {
	m, err := engine.LoadModel(path)
	if err != nil {
		return subject{}, err
	}
	s := subject{name: name, model: m}
	for _, text := range texts {
		s.prompts = append(s.prompts, cut(m.TextPrompt(text)))
	}
	// Long texts of the repository that do not change.
	var long []byte
	for _, name := range []string{"LICENSE", "models/GO-LICENSE"} {
		text, err := os.ReadFile(filepath.Join(root, name))
		if err != nil {
			return subject{}, err
		}
		long = append(long, text...)
	}
	if s.long = m.TextPrompt(string(long)); len(s.long) < latePrompt {
		return subject{}, fmt.Errorf("%s: the long prompt has %d tokens, want %d", name, len(s.long), latePrompt)
	}
	s.prompts = append(s.prompts, cut(s.long))
	// Tokens that no text has in this order: rare ones, and the special ones.
	rng := rand.New(rand.NewPCG(3, 1))
	random := make([]int32, promptTokens)
	for i := range random {
		random[i] = int32(rng.IntN(m.Program.Vocab))
	}
	s.prompts = append(s.prompts, random)
	return s, nil
}

func cut(tokens []int32) []int32 { return tokens[:min(len(tokens), promptTokens)] }

func (s subject) calibration() parity.CalibrationModel {
	return parity.CalibrationModel{Name: s.name, Program: s.model.Program, Weights: s.model.File, Prompts: s.prompts}
}
