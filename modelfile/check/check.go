// Package check finds out what is wrong with a model file: structure, extents,
// numbers, completeness for the architecture, vocabulary, checksums. It goes on
// after a problem as far as it can, so that one look shows them all.
package check

import (
	"context"
	"fmt"
	"slices"
	"strings"

	"github.com/apr-engine/apr/internal/mmapfile"
	"github.com/apr-engine/apr/modelfile/annotate"
	"github.com/apr-engine/apr/modelfile/scan"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/tensor"
)

// Severity says what a finding means for the user.
type Severity int

// Severities. Notes are worth knowing and no fault; warnings are suspicious;
// with errors the model is damaged or cannot run.
const (
	Note Severity = iota
	Warning
	Error
)

// String returns the name, in lower case.
func (s Severity) String() string { return [...]string{"note", "warning", "error"}[s] }

// MarshalText makes JSON show the name.
func (s Severity) MarshalText() ([]byte, error) { return []byte(s.String()), nil }

// Finding is one thing that was found.
type Finding struct {
	Kind     string   `json:"kind"` // one of Kinds
	Severity Severity `json:"severity"`
	Tensor   string   `json:"tensor,omitempty"`
	Text     string   `json:"text"`
}

// Report is what a check found.
type Report struct {
	Path    string `json:"path"`
	Format  string `json:"format"`
	Bytes   int64  `json:"bytes"`
	Tensors int    `json:"tensors"`
	// Architecture is empty if the file does not say or cannot be read that far.
	Architecture string `json:"architecture,omitempty"`
	// Findings are in order of severity, the worst first, then of discovery.
	Findings []Finding `json:"findings"`
}

// Count is the number of findings of a severity.
func (r *Report) Count(s Severity) (n int) {
	for _, f := range r.Findings {
		if f.Severity == s {
			n++
		}
	}
	return n
}

// Passed reports whether there are no errors, and if strict no warnings.
func (r *Report) Passed(strict bool) bool {
	return r.Count(Error) == 0 && (!strict || r.Count(Warning) == 0)
}

func (r *Report) add(kind string, s Severity, tensor, format string, args ...any) {
	r.Findings = append(r.Findings, Finding{kind, s, tensor, fmt.Sprintf(format, args...)})
}

// File checks the model file at path, all shards of a set, or the Hugging Face
// folder there with its config.json and tokenizer. threads 0 means one
// for each processor. What is wrong with the content is in the report; the error
// is for files that cannot be reached, or are no model at all
// (annotate.ErrUnknown), and for a context that ended.
func File(ctx context.Context, path string, threads int) (*Report, error) {
	r := &Report{Path: path}
	m, openErr := source.Open(path)
	files := []string{path}
	if openErr == nil {
		defer m.Close()
		files = m.Files
	}
	var tensors []tensor.Tensor
	for _, p := range files {
		f, err := mmapfile.Open(p)
		if err != nil {
			return nil, err
		}
		defer f.Close()
		found, err := r.structure(p, f.Bytes())
		if err != nil {
			return nil, fmt.Errorf("%s: %w", p, err)
		}
		tensors = append(tensors, found...)
	}
	if openErr == nil {
		tensors = m.Tensors
		dir, isFolder := folderOf(path)
		if isFolder {
			if err := r.folder(dir); err != nil {
				return nil, err
			}
		} else {
			r.unusual(m)
			r.Architecture = m.Architecture()
			r.completeness(m)
		}
	} else {
		// What 'apr run' would say. It may be more than the findings above, since
		// the reader is stricter than the walk through the structure.
		r.add(KindStructure, Error, "", "the model cannot be opened: %s", strings.TrimPrefix(openErr.Error(), path+": "))
	}
	if err := r.numbers(ctx, tensors, threads); err != nil {
		return nil, err
	}
	slices.SortStableFunc(r.Findings, func(a, b Finding) int { return int(b.Severity - a.Severity) })
	return r, nil
}

// unusual passes the reader's warnings on, save those about checksums and trailing
// bytes, which the walk through the structure has found.
func (r *Report) unusual(m *source.Model) {
	for _, w := range m.Warnings {
		if !strings.Contains(w, "checksum") && !strings.Contains(w, "bytes follow") {
			r.add(KindUnusual, Note, "", "%s", w)
		}
	}
}

// structure checks one file's structure and extents. It returns the tensors whose
// bytes are there and can be decoded.
func (r *Report) structure(path string, data []byte) ([]tensor.Tensor, error) {
	m, err := annotate.New(data)
	if err != nil {
		return nil, err
	}
	r.Format = m.Format
	r.Bytes += int64(len(data))
	r.Tensors += len(m.Tensors)
	if m.Fault != nil {
		r.add(KindStructure, Error, "", "%s: %v", path, m.Fault)
	}
	for _, c := range m.Checksums {
		r.checksum(path, c)
	}
	r.extents(m, len(data))
	var list []tensor.Tensor
	for i := range m.Tensors {
		if t, ok := m.Tensor(&m.Tensors[i]); ok && scan.Readable(t.Type) {
			list = append(list, t)
		}
	}
	return list, nil
}

func (r *Report) checksum(path string, c annotate.Checksum) {
	switch computed := c.Compute(); {
	case computed == c.Stored:
	case c.Stored == 0:
		r.add(KindChecksum, Warning, "", "%s: the %s at byte %d is 0: the writer made none", path, c.What, c.Offset)
	default:
		r.add(KindChecksum, Error, "", "%s: the %s at byte %d is %#08x, the bytes give %#08x: they have changed since", path, c.What, c.Offset, c.Stored, computed)
	}
}

// trailing is how many bytes may follow the last tensor: padding and a checksum.
const trailing = 64 + 4

// extents checks that tensors have bytes of their own inside the file.
func (r *Report) extents(m *annotate.Map, size int) {
	names := map[string]bool{}
	order := make([]*annotate.Tensor, 0, len(m.Tensors))
	end := uint64(0)
	cut := false
	for i := range m.Tensors {
		t := &m.Tensors[i]
		if names[t.Name] {
			r.add(KindDuplicate, Error, t.Name, "the name occurs twice")
		}
		names[t.Name] = true
		switch {
		case t.Size == 0:
			r.add(KindType, Error, t.Name, "type %s and shape %v make no bytes that could be read", t.TypeName, t.Shape)
		case !t.Inside(size):
			cut = true
			r.add(KindExtent, Error, t.Name, "its %d bytes at byte %d go past the end of the file at %d: the file is cut off", t.Size, t.Offset, size)
		default:
			order = append(order, t)
			end = max(end, t.Offset+t.Size)
		}
	}
	if len(order) > 0 && !cut && m.Fault == nil && uint64(size) > end+trailing {
		r.add(KindTrailing, Warning, "", "%d bytes follow the last tensor, which ends at byte %d", uint64(size)-end, end)
	}
	slices.SortStableFunc(order, func(a, b *annotate.Tensor) int {
		if a.Offset < b.Offset {
			return -1
		}
		return 1
	})
	for i := 1; i < len(order); i++ {
		a, b := order[i-1], order[i]
		switch {
		case a.Offset+a.Size <= b.Offset:
		case m.Format == "APR" && a.Offset == b.Offset && a.Size == b.Size:
			r.add(KindSameBytes, Note, b.Name, "shares its bytes with %s: they are stored once", a.Name)
		default:
			r.add(KindOverlap, Error, b.Name, "begins at byte %d, inside %s, which ends at byte %d", b.Offset, a.Name, a.Offset+a.Size)
		}
	}
}
