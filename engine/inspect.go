package engine

import (
	"slices"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/tensor"
)

// Info describes a model file without running it.
type Info struct {
	Files        []string       `json:"files"`
	Format       string         `json:"format"` // "GGUF v3"
	Bytes        int64          `json:"bytes"`  // of all files
	Architecture string         `json:"architecture"`
	Name         string         `json:"name"`
	Parameters   int64          `json:"parameters"` // elements of all tensors
	Tensors      int            `json:"tensors"`
	Types        []TypeInfo     `json:"types"`
	Tokenizer    string         `json:"tokenizer"`
	Vocabulary   int            `json:"vocabulary"` // tokens
	Context      int            `json:"context"`    // tokens the model was trained for
	CacheBytes   int64          `json:"kv_bytes_per_token"`
	Runnable     bool           `json:"runnable"`
	Problem      string         `json:"problem,omitempty"` // why it is not
	Metadata     *gguf.Metadata `json:"-"`
}

// TypeInfo sums up the tensors of one storage type.
type TypeInfo struct {
	Type    string `json:"type"`
	Tensors int    `json:"tensors"`
	Bytes   int64  `json:"bytes"`
}

// TensorInfo describes one tensor of a file.
type TensorInfo struct {
	Name   string `json:"name"`
	Type   string `json:"type"`
	Shape  []int  `json:"shape"` // slowest-varying first: rows, columns
	Bytes  int64  `json:"bytes"`
	Offset int64  `json:"offset"` // from the start of File
	File   string `json:"file"`
}

// Inspect reads what a file says about itself. A file that can be read but not
// run is no error: Problem says why.
func Inspect(path string) (*Info, error) {
	m, err := openModel(path)
	if err != nil {
		return nil, err
	}
	defer m.Close()
	f := m.File
	info := &Info{
		Files: f.Paths(), Format: f.Format, Bytes: f.Size(),
		Tensors: len(f.Tensors), Types: typeSums(f), Metadata: f.Metadata,
	}
	info.Architecture, _ = f.Metadata.String("general.architecture")
	info.Name, _ = f.Metadata.String("general.name")
	for _, t := range f.Tensors {
		info.Parameters += int64(t.Elements())
	}
	if tokens, ok := f.Metadata.Value("tokenizer.ggml.tokens"); ok {
		info.Vocabulary = tokens.Len()
	}
	if n, ok := f.Metadata.Uint(info.Architecture + ".context_length"); ok {
		info.Context = int(min(n, 1<<31))
	}
	if err := m.build(); err != nil {
		info.Problem = err.Error()
	} else {
		info.Runnable = true
		info.CacheBytes = m.CacheBytes(tensor.F16)
	}
	if m.Tokenizer == nil {
		m.loadTokenizer() // the reason why it fails is in Problem already
	}
	if m.Tokenizer != nil {
		info.Tokenizer = m.Tokenizer.Name()
	}
	return info, nil
}

// CacheBytes is the memory of keys and values of one token, in a cache of the
// given element type.
func (m *Model) CacheBytes(element tensor.DType) (n int64) {
	for _, c := range m.Program.Caches {
		n += 2 * int64(c.Heads) * int64(c.HeadDim) * int64(element.BlockBytes()) / int64(element.BlockLen())
	}
	return n
}

// typeSums groups tensors by type, the largest share first.
func typeSums(f *modelfile.File) []TypeInfo {
	var list []TypeInfo
	for _, t := range f.Tensors {
		i := slices.IndexFunc(list, func(x TypeInfo) bool { return x.Type == t.Type.String() })
		if i < 0 {
			i = len(list)
			list = append(list, TypeInfo{Type: t.Type.String()})
		}
		list[i].Tensors++
		list[i].Bytes += int64(len(t.Data))
	}
	slices.SortStableFunc(list, func(a, b TypeInfo) int { return int(b.Bytes>>8 - a.Bytes>>8) })
	return list
}
