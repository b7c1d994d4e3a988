// Package modelfile works on whole model files: it reads one, changes how its
// tensors are stored, and writes another. It runs no model.
package modelfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"runtime"
	"slices"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// ErrSameFile means that input and output are one file. Writing over the file
// being read is never allowed, Force or not.
var ErrSameFile = errors.New("input and output are the same file")

// quantizationVersion is general.quantization_version: the version of the block
// layouts. Source: GGML_QNT_VERSION in ggml.h.
const quantizationVersion = 2

// Options of Quantize; the zero value is usable.
type Options struct {
	// Force replaces an output file that exists, once the new one is complete.
	Force bool
	// Threads is how many rows are worked on at once; 0 means one a CPU.
	Threads int
	// Progress, if set, is called from Quantize's own goroutine as data is written.
	Progress func(Progress)
}

// Progress says how far Quantize is.
type Progress struct {
	Tensor        string       // being written
	From, To      tensor.DType // its types in input and output
	Index, Count  int          // of the tensor, from 0
	Done, Total   int64        // elements, over all tensors
	BytesWritten  int64        // of tensor data
	BytesInSource int64        // of tensor data read so far
}

// Quantize reads the GGUF model at in (any shard of a split one), stores its
// tensors by the named recipe (quant.FindRecipe) and writes a single file to out.
// Metadata is copied, with file type and quantisation version brought up to
// date. Tensors that are quantised already are dequantised first, which adds
// the errors of both; those that have the wanted type are copied.
//
// Errors: quant.ErrRecipe, ErrSameFile, fs.ErrExist for an output that exists
// without Force, fs.ErrNotExist and gguf.ErrFormat for the input,
// quant.ErrNotFinite for a number that cannot be stored, and the context's when
// it ends. After an error nothing is left behind and an existing output is
// untouched.
func Quantize(ctx context.Context, in, out, recipe string, opts Options) error {
	r, err := quant.FindRecipe(recipe)
	if err != nil {
		return err
	}
	f, err := gguf.Open(in)
	if err != nil {
		return err
	}
	defer f.Close()
	if err := checkOutput(f, out, opts.Force); err != nil {
		return err
	}
	j, err := plan(f, r, opts)
	if err != nil {
		return fmt.Errorf("quantise %s: %w", in, err)
	}
	md := f.Metadata.Clone()
	if err := errors.Join(
		md.Set("general.file_type", r.FileType),
		md.Set("general.quantization_version", uint32(quantizationVersion)),
	); err != nil {
		return err
	}
	for _, key := range []string{"split.no", "split.count", "split.tensors.count"} {
		md.Delete(key)
	}
	w, err := gguf.Create(out, md, j.infos)
	if err != nil {
		return err
	}
	defer w.Abort()
	if err := j.write(ctx, w); err != nil {
		return fmt.Errorf("quantise %s: %w", in, err)
	}
	return w.Close()
}

// checkOutput refuses to write over the input, or without force over any file.
func checkOutput(f *gguf.File, out string, force bool) error {
	info, err := os.Stat(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range f.Paths() {
		source, err := os.Stat(path)
		if err != nil {
			return err
		}
		if os.SameFile(info, source) {
			return fmt.Errorf("%w: %s", ErrSameFile, out)
		}
	}
	if info.IsDir() {
		return fmt.Errorf("write %s: it is a folder, want a file name", out)
	}
	if !force {
		return fmt.Errorf("write %s: %w; remove it or ask for it to be replaced", out, fs.ErrExist)
	}
	return nil
}

// job is a model and what is to become of its tensors.
type job struct {
	tensors []tensor.Tensor
	infos   []gguf.TensorInfo // beside tensors, with the new types
	opts    Options
	at      Progress
}

// plan chooses every tensor's type.
func plan(f *gguf.File, r quant.Recipe, opts Options) (*job, error) {
	if opts.Threads <= 0 {
		opts.Threads = runtime.GOMAXPROCS(0)
	}
	j := &job{tensors: f.Tensors, opts: opts}
	if len(f.Tensors) == 0 {
		return nil, fmt.Errorf("%w: it has no tensors", gguf.ErrFormat)
	}
	shape := describe(f)
	for _, t := range f.Tensors {
		ref := shape
		ref.Name, ref.Type, ref.Shape = t.Name, t.Type, t.Shape
		ref.Layer, _ = quant.LayerOf(t.Name)
		j.infos = append(j.infos, gguf.TensorInfo{Name: t.Name, Type: r.TypeFor(ref), Shape: slices.Clone(t.Shape)})
		j.at.Total += int64(t.Elements())
	}
	j.at.Count = len(f.Tensors)
	return j, nil
}

// describe reads what the recipes need to know of the model. What is absent
// stays zero and its rule does not apply: a file need not be a known model.
func describe(f *gguf.File) quant.TensorRef {
	md := f.Metadata
	arch, _ := md.String("general.architecture")
	number := func(key string) int {
		// Per-layer lists are possible; the first value stands for all.
		if list, ok := md.Ints(arch + "." + key); ok && len(list) > 0 {
			return int(list[0])
		}
		v, _ := md.Int(arch + "." + key)
		return int(v)
	}
	ref := quant.TensorRef{Arch: arch, Layers: number("block_count"), Experts: number("expert_count"), GQA: 1}
	if kv := number("attention.head_count_kv"); kv > 0 {
		ref.GQA = max(1, number("attention.head_count")/kv)
	}
	_, hasOutput := f.Tensor("output.weight")
	ref.Tied = !hasOutput
	return ref
}
