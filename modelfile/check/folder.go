package check

import (
	"fmt"
	"os"
	"path/filepath"

	"github.com/apr-engine/apr/format/safetensors"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/modelfile/source"
)

// folderOf returns the Hugging Face folder that a path means: the folder itself or
// that of an index. A single file is checked by itself.
func folderOf(path string) (string, bool) {
	if info, err := os.Stat(path); err == nil && info.IsDir() {
		return path, true
	}
	return filepath.Dir(path), filepath.Base(path) == safetensors.IndexName
}

// folder checks the files beside the weights, and the weights against them.
func (r *Report) folder(dir string) error {
	v, err := modelfile.ViewFolder(dir)
	if err != nil {
		return fmt.Errorf("%s: %w", dir, err)
	}
	defer v.Close()
	for _, w := range v.Warnings {
		r.add(KindUnusual, Note, "", "%s", w)
	}
	for _, p := range v.Problems {
		kind := KindConfig
		if p.File == "tokenizer.json" {
			kind = KindTokenizer
		}
		r.add(kind, Error, p.Tensor, "the folder cannot be imported: %v", p.Err)
	}
	if v.Metadata == nil {
		return nil
	}
	m := source.New(v.Metadata, v.Tensors)
	r.Architecture = m.Architecture()
	if _, has := v.Metadata.Value("tokenizer.ggml.tokens"); !has {
		r.weights(m, 0) // what is wrong with the tokenizer has been said
		return nil
	}
	r.completeness(m)
	return nil
}
