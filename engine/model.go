// Package engine loads a model, opens a backend for it and generates text. It
// is the one place through which every command generates.
package engine

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/modelfile"
	"github.com/apr-engine/apr/tokenizer"
)

// Errors by kind, for errors.Is. Each names what the user can change.
var (
	// ErrLoad marks a readable file that is not a runnable model.
	ErrLoad = errors.New("model cannot be loaded")
	// ErrInput marks a request that does not fit the model.
	ErrInput = errors.New("bad request")
	// ErrInference marks a failure while computing.
	ErrInference = errors.New("inference failed")
	// ErrBackend marks a forced backend that is not available.
	ErrBackend = errors.New("backend not available")
	// ErrRejected marks a backend that the parity gate has refused and that could
	// not be replaced.
	ErrRejected = errors.New("backend rejected")
)

// Model is an open model file with everything derived from its metadata. The
// weights stay mapped in the file. A Model is safe for concurrent reading.
type Model struct {
	Path      string
	File      *modelfile.File
	Program   *graph.Program
	Tokenizer *tokenizer.Tokenizer
	template  *chat.Template // set by UseTemplate

	mu     sync.Mutex
	users  int // executors that may still read the weights
	closed bool
}

// LoadModel opens a model file and builds its program.
func LoadModel(path string) (*Model, error) {
	m, err := openModel(path)
	if err != nil {
		return nil, err
	}
	if err := m.build(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

// LoadVocabulary opens a file for its tokenizer and template alone, so that
// files without tensors work.
func LoadVocabulary(path string) (*Model, error) {
	m, err := openModel(path)
	if err != nil {
		return nil, err
	}
	if err := m.loadTokenizer(); err != nil {
		m.Close()
		return nil, err
	}
	return m, nil
}

func openModel(path string) (*Model, error) {
	f, err := modelfile.Open(path)
	if err != nil {
		return nil, err
	}
	return &Model{Path: path, File: f}, nil
}

func (m *Model) build() error {
	if len(m.File.Tensors) == 0 {
		return fmt.Errorf("%w: %s holds a vocabulary and no tensors", ErrLoad, m.Path)
	}
	p, err := model.Build(m.File.Metadata, m.File)
	if err != nil {
		return fmt.Errorf("%w: %s: %w", ErrLoad, m.Path, err)
	}
	m.Program = p
	if err := m.loadTokenizer(); err != nil {
		return err
	}
	if n := m.Tokenizer.Size(); n != p.Vocab {
		return fmt.Errorf("%w: %s: the vocabulary has %d tokens, token_embd.weight has %d rows", ErrLoad, m.Path, n, p.Vocab)
	}
	return nil
}

func (m *Model) loadTokenizer() error {
	if err := m.File.TokenizerProblem; err != nil {
		return fmt.Errorf("%w: %s: tokenizer: %w", ErrLoad, m.Path, err)
	}
	t, err := tokenizer.FromMetadata(m.File.Metadata)
	if err != nil {
		return fmt.Errorf("%w: %s: tokenizer: %w", ErrLoad, m.Path, err)
	}
	m.Tokenizer = t
	return nil
}

// Close unmaps the file, once the last executor has let go of it: one that runs
// in the background may be in the middle of a step, which cannot be interrupted.
func (m *Model) Close() error {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.closed {
		return nil
	}
	m.closed = true
	if m.users > 0 {
		return nil
	}
	return m.File.Close()
}

// hold keeps the weights mapped until release is called, which may be after
// Close.
func (m *Model) hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.users++
	return sync.OnceFunc(func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		if m.users--; m.users == 0 && m.closed {
			_ = m.File.Close() // whoever closed the model has been answered
		}
	})
}

// IsNotFound reports whether err means that a file does not exist.
func IsNotFound(err error) bool { return errors.Is(err, fs.ErrNotExist) }
