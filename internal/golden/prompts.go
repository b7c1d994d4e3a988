package golden

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"math"
	"os"
	"slices"
	"strings"
	"testing"
)

// Prompt is one reference prompt with what another runtime computed for it.
type Prompt struct {
	Name   string
	IDs    []int32
	Logits []float32 // after the last token, (vocab)
	// Hidden is for the last token: row 0 the embedding, row i the residual
	// stream after block i-1, the last row after the final norm. Not every file
	// has it.
	Hidden      [][]float32
	Greedy      []int32   // continuation
	GreedyGap   []float32 // best logit less the second best, at each step
	NegativeLog []float32 // loss at each prompt token but the first
}

// Prompts reads a reference file: safetensors with the tensors NAME.ids,
// NAME.logits and so on.
func Prompts(t testing.TB, path string) []Prompt {
	t.Helper()
	f, err := readSafetensors(path)
	if err != nil {
		t.Fatal(err)
	}
	var out []Prompt
	for key := range f.tensors {
		name, ok := strings.CutSuffix(key, ".ids")
		if !ok {
			continue
		}
		p := Prompt{
			Name:        name,
			IDs:         f.ints(name + ".ids"),
			Logits:      f.floats(name + ".logits"),
			Greedy:      f.ints(name + ".greedy"),
			GreedyGap:   f.floats(name + ".greedy_margin"),
			NegativeLog: f.floats(name + ".nll"),
		}
		if hidden := f.floats(name + ".hidden"); hidden != nil {
			p.Hidden = slices.Collect(slices.Chunk(hidden, f.tensors[name+".hidden"].Shape[1]))
		}
		if len(p.IDs) == 0 || len(p.Logits) == 0 || len(p.Greedy) == 0 {
			t.Fatalf("%s: prompt %s is incomplete", path, name)
		}
		out = append(out, p)
	}
	if len(out) == 0 {
		t.Fatalf("%s: no prompts", path)
	}
	slices.SortFunc(out, func(a, b Prompt) int { return len(a.IDs) - len(b.IDs) })
	return out
}

type safetensors struct {
	tensors map[string]safetensor
	data    []byte
}

type safetensor struct {
	DType   string `json:"dtype"`
	Shape   []int  `json:"shape"`
	Offsets [2]int `json:"data_offsets"`
}

func readSafetensors(path string) (*safetensors, error) {
	raw, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	n := binary.LittleEndian.Uint64(raw)
	var header map[string]json.RawMessage
	if err := json.Unmarshal(raw[8:8+n], &header); err != nil {
		return nil, fmt.Errorf("%s: %w", path, err)
	}
	f := &safetensors{map[string]safetensor{}, raw[8+n:]}
	for name, raw := range header {
		if name == "__metadata__" {
			continue
		}
		var t safetensor
		if err := json.Unmarshal(raw, &t); err != nil {
			return nil, fmt.Errorf("%s: %s: %w", path, name, err)
		}
		f.tensors[name] = t
	}
	return f, nil
}

func (f *safetensors) words(name, dtype string) []uint32 {
	t, ok := f.tensors[name]
	if !ok || t.DType != dtype {
		return nil
	}
	b := f.data[t.Offsets[0]:t.Offsets[1]]
	w := make([]uint32, len(b)/4)
	for i := range w {
		w[i] = binary.LittleEndian.Uint32(b[4*i:])
	}
	return w
}

func (f *safetensors) ints(name string) []int32 {
	var out []int32
	for _, w := range f.words(name, "I32") {
		out = append(out, int32(w))
	}
	return out
}

func (f *safetensors) floats(name string) []float32 {
	var out []float32
	for _, w := range f.words(name, "F32") {
		out = append(out, math.Float32frombits(w))
	}
	return out
}

// RelativeRMS is the root mean square of got − want over that of want. It is
// NaN if any number is.
func RelativeRMS(got, want []float32) float64 {
	if len(got) != len(want) {
		return math.NaN()
	}
	var diff, ref float64
	for i, w := range want {
		d := float64(got[i]) - float64(w)
		diff += d * d
		ref += float64(w) * float64(w)
	}
	return math.Sqrt(diff / ref)
}
