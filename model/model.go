// Package model turns a model file's metadata and tensors into a graph.Program.
// Each architecture registers one function; nothing here knows a backend.
package model

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	"github.com/apr-engine/apr/graph"
)

// Errors by kind, for errors.Is.
var (
	// ErrArch marks an architecture that is not registered.
	ErrArch = errors.New("unsupported architecture")
	// ErrConfig marks metadata that is missing, contradictory or out of range.
	ErrConfig = errors.New("bad model metadata")
)

// Metadata is what an architecture reads of a model file's key/value pairs. The
// second result is false when the key is absent or of another kind.
type Metadata interface {
	String(key string) (string, bool)
	Uint(key string) (uint64, bool)
	Float(key string) (float64, bool)
	Ints(key string) ([]int64, bool)
}

// BuildFunc builds the program of one architecture.
type BuildFunc func(Metadata, graph.Weights) (*graph.Program, error)

var registry = map[string]BuildFunc{}

// Register adds an architecture under its general.architecture name. Call it
// from an init function; a second registration of a name panics.
func Register(arch string, build BuildFunc) {
	if _, dup := registry[arch]; dup {
		panic("model: architecture registered twice: " + arch)
	}
	registry[arch] = build
}

// Architectures lists the registered names, sorted.
func Architectures() []string {
	names := make([]string, 0, len(registry))
	for n := range registry {
		names = append(names, n)
	}
	slices.Sort(names)
	return names
}

// Build returns the program of a model after checking it against the tensors.
func Build(md Metadata, w graph.Weights) (*graph.Program, error) {
	p, err := Assemble(md, w)
	if err != nil {
		return nil, err
	}
	if err := p.CheckWeights(w); err != nil {
		return nil, err
	}
	return p, nil
}

// Assemble returns the program that the metadata describe, without checking that
// its tensors are there and have the right shapes.
func Assemble(md Metadata, w graph.Weights) (*graph.Program, error) {
	arch, ok := md.String("general.architecture")
	if !ok || arch == "" {
		return nil, fmt.Errorf("%w: general.architecture is missing", ErrConfig)
	}
	build, ok := registry[arch]
	if !ok {
		return nil, fmt.Errorf("%w %q (supported: %s)", ErrArch, arch, strings.Join(Architectures(), ", "))
	}
	return build(md, w)
}
