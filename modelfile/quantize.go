// Package modelfile works on whole model files: it reads one, changes how its
// tensors are stored, and writes another. It runs no model.
package modelfile

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"

	"github.com/apr-engine/apr/quant"
	"github.com/apr-engine/apr/tensor"
)

// ErrSameFile means that input and output are one file. Writing over the file
// being read is never allowed, Force or not.
var ErrSameFile = errors.New("input and output are the same file")

// Options of Quantize and Convert; the zero value is usable.
type Options struct {
	// Force replaces an output file that exists, once the new one is complete.
	Force bool
	// Threads is how many rows are worked on at once; 0 means one a CPU.
	Threads int
	// Format is the container to write: FormatGGUF, FormatApr, FormatSafetensors;
	// empty for what the output's name says (GGUF if it says nothing).
	Format string
	// Recipe, if set, is how to store the tensors (quant.FindRecipe); otherwise
	// they keep their types.
	Recipe string
	// Progress, if set, is called from the caller's goroutine as data is written.
	Progress func(Progress)
}

// Progress says how far a conversion is.
type Progress struct {
	Tensor        string       // being written
	From, To      tensor.DType // its types in input and output
	Index, Count  int          // of the tensor, from 0
	Done, Total   int64        // elements, over all tensors
	BytesWritten  int64        // of tensor data
	BytesInSource int64        // of tensor data read so far
}

// Quantize stores the tensors of a model by the named recipe and writes them to
// out: it is Convert with a recipe.
func Quantize(ctx context.Context, in, out, recipe string, opts Options) error {
	opts.Recipe = recipe
	_, err := Convert(ctx, in, out, opts)
	return err
}

// checkOutput refuses to write over the input, or without force over any file.
func checkOutput(sources []string, out string, force bool) error {
	info, err := os.Stat(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	for _, path := range sources {
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

// checkFolder refuses to write over a folder that holds the input, or files that a
// model folder does not have, or without force over any that is not empty.
func checkFolder(sources []string, out string, force bool) error {
	info, err := os.Stat(out)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	if !info.IsDir() {
		return fmt.Errorf("write %s: %w, and is a file, want a folder", out, fs.ErrExist)
	}
	list, err := os.ReadDir(out)
	if err != nil || len(list) == 0 {
		return err
	}
	for _, path := range sources {
		dir, err := os.Stat(filepath.Dir(path))
		if err != nil {
			return err
		}
		if os.SameFile(info, dir) {
			return fmt.Errorf("%w: %s holds %s", ErrSameFile, out, filepath.Base(path))
		}
	}
	for _, e := range list {
		if !ofFolder.MatchString(e.Name()) || !e.Type().IsRegular() {
			return fmt.Errorf("write %s: %w and holds %s, which is no part of a model: it is not replaced", out, fs.ErrExist, e.Name())
		}
	}
	if !force {
		return fmt.Errorf("write %s: %w; remove it or ask for it to be replaced", out, fs.ErrExist)
	}
	return nil
}

// ofFolder are the names of files that may be replaced with a model folder.
var ofFolder = regexp.MustCompile(`^((generation_|tokenizer_)?config\.json|tokenizer\.(json|model)|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt|chat_template\.jinja|model(-\d+-of-\d+)?\.safetensors(\.index\.json)?)$`)

// describe reads what the recipes need to know of the model. What is absent
// stays zero and its rule does not apply: a file need not be a known model.
func describe(s *source) quant.TensorRef {
	md := s.md
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
	ref.Tied = s.tied
	return ref
}
