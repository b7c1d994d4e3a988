package modelfile

import (
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"github.com/apr-engine/apr/format/apr"
	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/tensor"
)

// ErrSource marks a file that is no model file this package can open.
var ErrSource = errors.New("not a model file")

// File is an open model file of any container, in GGUF's terms: its metadata
// keys and tensor names. It is safe for concurrent reading.
type File struct {
	// Format names the container with its version, such as "GGUF v3".
	Format   string
	Metadata *gguf.Metadata
	// Tensors lists the tensors in file order. Their Data alias the mapped file,
	// save for types that only .apr has, which are converted when opened.
	Tensors []tensor.Tensor
	// Warnings says what is unusual about the file and was accepted.
	Warnings []string
	// TokenizerProblem says why an .apr file has no tokenizer; nil if it has.
	TokenizerProblem error

	index    map[string]int
	place    func(name string) (gguf.Place, bool)
	paths    []string
	size     int64
	prefetch func() error
	closer   io.Closer
	// own holds tensors of .apr's own types as they are in the file.
	own map[string]apr.Tensor
	// tied says that the output matrix, if any, was left out because it is the
	// embedding matrix.
	tied bool
}

// Open opens a model file by what its first bytes say: GGUF (any shard of a set)
// or .apr. Errors: fs.ErrNotExist, gguf.ErrFormat, apr.ErrFormat.
func Open(path string) (*File, error) {
	if IsFolder(path) {
		return nil, fmt.Errorf("%w: %s is a Hugging Face folder, which is not run as it is; import it: apr import %s -o model.apr", ErrSource, path, path)
	}
	head, err := firstBytes(path)
	if err != nil {
		return nil, err
	}
	if strings.HasPrefix(string(head), "APR") {
		return openApr(path)
	}
	if looksLikeSafetensors(head) && strings.HasSuffix(path, ".safetensors") {
		return nil, fmt.Errorf("%w: %s is a safetensors file, which cannot be run; import its folder: apr import %s -o model.apr", ErrSource, path, filepath.Dir(path))
	}
	return openGGUF(path)
}

// IsFolder reports whether a path is a Hugging Face folder: one with a config.json or
// with safetensors files.
func IsFolder(path string) bool {
	if info, err := os.Stat(path); err != nil || !info.IsDir() {
		return false
	}
	for _, pattern := range []string{configFile, "*.safetensors"} {
		if found, err := fs.Glob(os.DirFS(path), pattern); err == nil && len(found) > 0 {
			return true
		}
	}
	return false
}

// firstBytes reads up to 16 bytes. What cannot be opened gives the same errors
// as opening it as a model would.
func firstBytes(path string) ([]byte, error) {
	info, err := os.Stat(path)
	if err != nil || !info.Mode().IsRegular() {
		m, err := mmapfile.Open(path)
		if err != nil {
			return nil, err
		}
		defer m.Close()
		return append([]byte(nil), m.Bytes()[:min(16, len(m.Bytes()))]...), nil
	}
	f, err := os.Open(path)
	if err != nil {
		if _, mapErr := mmapfile.Open(path); mapErr != nil {
			return nil, mapErr
		}
		return nil, err
	}
	defer f.Close()
	head := make([]byte, 16)
	n, err := io.ReadFull(f, head)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, err
	}
	return head[:n], nil
}

// looksLikeSafetensors: the header's length, below 16 MiB of it, then an object.
func looksLikeSafetensors(head []byte) bool {
	return len(head) > 8 && head[8] == '{' && head[4] == 0 && head[5] == 0 && head[6] == 0 && head[7] == 0
}

func openGGUF(path string) (*File, error) {
	g, err := gguf.Open(path)
	if err != nil {
		return nil, err
	}
	f := &File{
		Format: fmt.Sprintf("GGUF v%d", g.Version), Metadata: g.Metadata, Tensors: g.Tensors,
		place: g.Place, paths: g.Paths(), size: g.Size(), prefetch: g.Prefetch, closer: g,
	}
	f.buildIndex()
	return f, nil
}

func (f *File) buildIndex() {
	f.index = make(map[string]int, len(f.Tensors))
	for i, t := range f.Tensors {
		f.index[t.Name] = i
	}
}

// Tensor returns the tensor with the given name.
func (f *File) Tensor(name string) (tensor.Tensor, bool) {
	i, ok := f.index[name]
	if !ok {
		return tensor.Tensor{}, false
	}
	return f.Tensors[i], true
}

// Place returns where a tensor's bytes lie, for listings and messages.
func (f *File) Place(name string) (gguf.Place, bool) { return f.place(name) }

// StoredType names the type that a tensor has in the file, which for .apr's own
// types is not that of Tensors.
func (f *File) StoredType(name string) string {
	if t, ok := f.own[name]; ok {
		return t.Type.String()
	}
	t, _ := f.Tensor(name)
	return t.Type.String()
}

// Paths returns the files, in shard order.
func (f *File) Paths() []string { return f.paths }

// Size is the size of all files together, in bytes.
func (f *File) Size() int64 { return f.size }

// Prefetch asks the system to start reading the files. It is a hint.
func (f *File) Prefetch() error { return f.prefetch() }

// Close unmaps the files. Tensor data must not be used afterwards; metadata may.
func (f *File) Close() error {
	for i := range f.Tensors {
		f.Tensors[i].Data = nil // a late use is a panic instead of a fault
	}
	return f.closer.Close()
}

// arch is the architecture's GGUF name, empty if the file has none.
func (f *File) arch() string {
	a, _ := f.Metadata.String("general.architecture")
	return a
}
