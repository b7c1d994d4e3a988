// Package synth writes GGUF models of the shape of well-known ones with random
// weights, for benchmarks and tests where the weights' meaning does not matter
// but sizes, types, tokenizer and the range of values do. Quantised tensors are
// made of random blocks, not by quantising floats, so that 7B parameters take
// seconds.
package synth

import (
	"fmt"
	"hash/fnv"
	"io"
	"math"
	"runtime"
	"sync"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// Options says what to write. The zero values of all but Preset and Quant are
// good defaults.
type Options struct {
	Preset string // see Presets
	Quant  string // a name of quant.FindRecipe
	Seed   uint64 // the same options give the same file, byte for byte
	// OutlierChannels is how many channels of the hidden state reach the matrices
	// of attention and feed-forward OutlierScale times larger (26 if 0) than the
	// RMS of the others, in every layer: the case that breaks activations
	// quantised with one scale. The norms' weights do it.
	OutlierChannels int
	OutlierScale    float64
	Layers          int // instead of the preset's
	VocabSize       int // instead of the preset's
}

// plannedTensor is one tensor with what fills it: random blocks, or values.
type plannedTensor struct {
	gguf.TensorInfo
	sigma  float64   // of the random blocks
	values []float32 // for norms, biases and rotary factors
}

// Write writes the model to path. An existing file is replaced only on success.
func Write(path string, o Options) error {
	s, err := o.resolve()
	if err != nil {
		return fmt.Errorf("synthetic model: %w", err)
	}
	recipe, err := quant.FindRecipe(o.Quant)
	if err != nil {
		return fmt.Errorf("synthetic model: %w", err)
	}
	if o.OutlierScale == 0 {
		o.OutlierScale = 26
	}
	md, err := metadata(o, s, recipe)
	if err != nil {
		return fmt.Errorf("synthetic model: %w", err)
	}
	b := &builder{o: o, s: s, recipe: recipe, outliers: outliers(o.hash("outliers"), s.hidden, o.OutlierChannels)}
	b.model()
	infos := make([]gguf.TensorInfo, len(b.tensors))
	for i, t := range b.tensors {
		infos[i] = t.TensorInfo
	}
	w, err := gguf.Create(path, md, infos)
	if err != nil {
		return fmt.Errorf("synthetic model: %w", err)
	}
	defer w.Abort()
	for _, t := range b.tensors {
		if err := t.write(w, o); err != nil {
			return fmt.Errorf("synthetic model: %w", err)
		}
	}
	if err := w.Close(); err != nil {
		return fmt.Errorf("synthetic model: %w", err)
	}
	return nil
}

// hash derives a seed for the named part of the model.
func (o Options) hash(name string) uint64 {
	h := fnv.New64a()
	fmt.Fprintf(h, "%d/%s", o.Seed, name)
	return h.Sum64()
}

// write sends the tensor's bytes to w.
func (t plannedTensor) write(w *gguf.Writer, o Options) error {
	if t.values != nil {
		data := make([]byte, 0, 4*len(t.values))
		for _, v := range t.values {
			data = appendFloat(data, v)
		}
		return w.WriteTensor(data)
	}
	out, err := w.NextTensor()
	if err != nil {
		return err
	}
	f, err := newFiller(t.Type, t.sigma)
	if err != nil {
		return err
	}
	return t.writeRows(out, f, o.hash(t.Name))
}

// writeRows fills rows in chunks, with all processors, and writes them in order.
// A row's numbers depend on the seed and its index only.
func (t plannedTensor) writeRows(out io.Writer, f *filler, seed uint64) error {
	const chunk = 8 << 20 // bytes; large enough to share out, small beside any model
	rows, cols := t.Shape[0], t.Shape[1]
	rowBytes, err := t.Type.RowBytes(cols)
	if err != nil {
		return err
	}
	perChunk := min(rows, max(1, chunk/rowBytes))
	buf := make([]byte, perChunk*rowBytes)
	workers := runtime.GOMAXPROCS(0)
	for first := 0; first < rows; first += perChunk {
		n := min(perChunk, rows-first)
		var wg sync.WaitGroup
		for worker := range workers {
			wg.Go(func() {
				for i := worker; i < n; i += workers {
					start := rng(seed + uint64(first+i))
					f.row(buf[i*rowBytes:(i+1)*rowBytes], start.next())
				}
			})
		}
		wg.Wait()
		if _, err := out.Write(buf[:n*rowBytes]); err != nil {
			return err
		}
	}
	return nil
}

// builder lists the tensors of a model in file order.
type builder struct {
	o        Options
	s        shape
	recipe   quant.Recipe
	outliers []int
	tensors  []plannedTensor
}

// matrix adds a (rows, cols) matrix with values of standard deviation sigma.
func (b *builder) matrix(name string, layer, rows, cols int, sigma float64) {
	info := gguf.TensorInfo{Name: name, Shape: []int{rows, cols}}
	info.Type = b.recipe.TypeFor(quant.TensorRef{
		Name: name, Type: tensor.F32, Shape: info.Shape, Layer: layer, Layers: b.s.layers,
		Tied: b.s.tied, GQA: b.s.heads / b.s.kvHeads, Arch: b.s.arch,
	})
	b.tensors = append(b.tensors, plannedTensor{TensorInfo: info, sigma: sigma})
}

// vector adds n float32 values: mean plus random ones of standard deviation
// sigma, with the given channels multiplied by the outlier scale. It returns them.
func (b *builder) vector(name string, n int, mean, sigma float32, channels []int) []float32 {
	r := rng(b.o.hash(name))
	values := make([]float32, n)
	for i := range values {
		values[i] = mean + sigma*r.normal()
	}
	for _, c := range channels {
		values[c] *= float32(b.o.OutlierScale)
	}
	b.values(name, values)
	return values
}

func (b *builder) values(name string, values []float32) {
	info := gguf.TensorInfo{Name: name, Type: tensor.F32, Shape: []int{len(values)}}
	b.tensors = append(b.tensors, plannedTensor{TensorInfo: info, values: values})
}

// model adds all tensors. Standard deviations keep every layer's values near 1:
// a matrix of n columns gets 1/sqrt(n), counting a large norm weight as many
// columns, and what is added to the residual stream is as small as the number
// of additions asks (as in GPT-2). Logits come out with a standard deviation of about 2.
func (b *builder) model() {
	s := b.s
	const spread = 2 // of the logits
	root := math.Sqrt(float64(s.hidden))
	embedding, norm := spread/root, 1.0
	if s.tied {
		// The last token's own embedding is still in the final hidden state and
		// would make it the next token for ever. A small embedding drowns in what
		// the layers add; the last norm makes up for it.
		embedding = 0.5 / root
		if s.arch == "gemma3" {
			embedding /= root // this architecture multiplies by the root again
		}
		norm = spread / (embedding * root)
	}
	b.matrix("token_embd.weight", -1, s.vocab, s.hidden, embedding)
	for layer := range s.layers {
		b.layer(layer)
	}
	b.vector("output_norm.weight", s.hidden, float32(norm), 0.1*float32(norm), nil)
	if !s.tied {
		b.matrix("output.weight", -1, s.vocab, s.hidden, spread/root)
	}
	if s.ropeFactor > 0 {
		b.values("rope_freqs.weight", llama3Factors(s))
	}
}

func (b *builder) layer(layer int) {
	s := b.s
	name := func(part string) string { return fmt.Sprintf("blk.%d.%s", layer, part) }
	q, kv := s.heads*s.headDim, s.kvHeads*s.headDim
	residual := 1 / math.Sqrt(2*float64(s.layers)) // of the values added to the stream
	sandwich := s.arch == "gemma3"                 // norms behind the blocks, too
	added := residual
	if sandwich {
		added = 1
	}

	norm := b.vector(name("attn_norm.weight"), s.hidden, 1, 0.1, b.outliers)
	in := 1 / euclid(norm)
	b.matrix(name("attn_q.weight"), layer, q, s.hidden, in)
	b.matrix(name("attn_k.weight"), layer, kv, s.hidden, in)
	b.matrix(name("attn_v.weight"), layer, kv, s.hidden, in)
	if s.arch == "qwen2" {
		b.vector(name("attn_q.bias"), q, 0, 0.5, nil)
		b.vector(name("attn_k.bias"), kv, 0, 0.5, nil)
		b.vector(name("attn_v.bias"), kv, 0, 0.1, nil)
	}
	if s.arch == "qwen3" || s.arch == "gemma3" {
		b.vector(name("attn_q_norm.weight"), s.headDim, 1, 0.1, nil)
		b.vector(name("attn_k_norm.weight"), s.headDim, 1, 0.1, nil)
	}
	b.matrix(name("attn_output.weight"), layer, s.hidden, q, added/math.Sqrt(float64(q)))
	if sandwich {
		b.vector(name("post_attention_norm.weight"), s.hidden, float32(residual), 0.1*float32(residual), nil)
	}

	norm = b.vector(name("ffn_norm.weight"), s.hidden, 1, 0.1, b.outliers)
	in = 1 / euclid(norm)
	b.matrix(name("ffn_gate.weight"), layer, s.ffn, s.hidden, in)
	b.matrix(name("ffn_up.weight"), layer, s.ffn, s.hidden, in)
	b.matrix(name("ffn_down.weight"), layer, s.hidden, s.ffn, added/math.Sqrt(float64(s.ffn)))
	if sandwich {
		b.vector(name("post_ffw_norm.weight"), s.hidden, float32(residual), 0.1*float32(residual), nil)
	}
}

// euclid is the length of a vector.
func euclid(v []float32) float64 {
	var sum float64
	for _, x := range v {
		sum += float64(x) * float64(x)
	}
	return math.Sqrt(sum)
}
