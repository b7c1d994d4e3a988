// Package fault is a catalogue of realistic kernel bugs. A fault changes the
// program, the weights or the executor that one chosen device works with, so
// that any backend, real hardware included, can be made wrong on purpose and
// the parity gate can be watched rejecting it.
package fault

import (
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/graph"
)

// Errors by kind, for errors.Is.
var (
	// ErrUnknown marks a fault name that is not in the catalogue.
	ErrUnknown = errors.New("unknown fault")
	// ErrSpec marks a specification that cannot be read.
	ErrSpec = errors.New("bad fault specification")
	// ErrNotApplicable marks a fault that cannot exist in a model: a missing bias
	// where there is none. It is never ignored, because a fault without effect
	// would look like a gate that lets faults through.
	ErrNotApplicable = errors.New("fault not applicable")
)

// Fault is one bug.
type Fault struct {
	// Name is what APR_FAULT takes, in kebab-case.
	Name string
	// Summary says in one sentence what the bug does.
	Summary string
	// Report names the real report that the fault is modelled on.
	Report string
	// Late faults spare the steps of a short probe: they need a long context, a
	// second batch, or many steps to show.
	Late bool
	// Layer restricts a fault of the program or of a layer's weights to one layer;
	// negative for all layers.
	Layer int

	// change edits a private copy of the program and replaces weights; nil for
	// faults of the executor alone.
	change func(*editor) error
	// wrap makes an executor wrong; nil for faults of program and weights.
	wrap func(executor) backend.Executor
}

// catalogue is every fault in the order of the documentation.
var catalogue = slices.Concat(weightFaults, programFaults, stateFaults, executorFaults)

// All returns the catalogue.
func All() []Fault {
	all := slices.Clone(catalogue)
	for i := range all {
		all[i].Layer = -1
	}
	return all
}

// Names lists the catalogue's names.
func Names() []string {
	names := make([]string, len(catalogue))
	for i, f := range catalogue {
		names[i] = f.Name
	}
	return names
}

// Lookup finds a fault by name; "name@3" restricts it to layer 3.
func Lookup(name string) (Fault, error) {
	base, layer, limited := strings.Cut(name, "@")
	for _, f := range catalogue {
		if f.Name != base {
			continue
		}
		f.Layer = -1
		if limited {
			n, err := strconv.Atoi(layer)
			if err != nil || n < 0 {
				return Fault{}, fmt.Errorf("%w: layer %q of %s is not a number", ErrSpec, layer, base)
			}
			if f.change == nil {
				return Fault{}, fmt.Errorf("%w: %s has no layer", ErrSpec, base)
			}
			f.Layer = n
		}
		return f, nil
	}
	return Fault{}, fmt.Errorf("%w %q (see --list-faults)", ErrUnknown, base)
}

// String is the name as Lookup takes it.
func (f Fault) String() string {
	if f.Layer >= 0 {
		return fmt.Sprintf("%s@%d", f.Name, f.Layer)
	}
	return f.Name
}

// Parse reads the value of APR_FAULT: "<backend>:<fault>[,…]", where a fault
// without a backend belongs to the backend named last. An empty text is no fault.
func Parse(text string) (map[string][]Fault, error) {
	if text == "" {
		return nil, nil
	}
	spec := map[string][]Fault{}
	current := ""
	for _, item := range strings.Split(text, ",") {
		if name, rest, ok := strings.Cut(item, ":"); ok {
			current, item = strings.TrimSpace(name), rest
		}
		if current == "" {
			return nil, fmt.Errorf("%w: APR_FAULT=%q names no backend, want <backend>:<fault>[,…]", ErrSpec, text)
		}
		f, err := Lookup(strings.TrimSpace(item))
		if err != nil {
			return nil, fmt.Errorf("APR_FAULT=%q: %w", text, err)
		}
		spec[current] = append(spec[current], f)
	}
	return spec, nil
}

// Apply returns the program and weights that a device with the fault works
// with; the originals are left alone. The error is ErrNotApplicable if the
// model has nothing for the fault to spoil.
func (f Fault) Apply(p *graph.Program, w graph.Weights) (*graph.Program, graph.Weights, error) {
	if f.change == nil {
		return p, w, nil
	}
	e := newEditor(p, w, f.Layer)
	if err := f.change(e); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f, err)
	}
	if !e.changed {
		return nil, nil, fmt.Errorf("%s: %w: the model has nothing that it spoils", f, ErrNotApplicable)
	}
	if err := e.program.Check(); err != nil {
		return nil, nil, fmt.Errorf("%s: %w", f, err)
	}
	return e.program, e.spoiled(), nil
}

// Wrap returns a device on which the faults are present. Load fails with
// ErrNotApplicable if one of them cannot exist in the model.
func Wrap(d backend.Device, faults ...Fault) backend.Device {
	if len(faults) == 0 {
		return d
	}
	return device{d, faults}
}

type device struct {
	backend.Device
	faults []Fault
}

// Unwrap returns the sound device.
func (d device) Unwrap() backend.Device { return d.Device }

func (d device) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	for _, f := range d.faults {
		var err error
		if p, w, err = f.Apply(p, w); err != nil {
			return nil, err
		}
	}
	exec, err := d.Device.Load(p, w, o)
	if err != nil {
		return nil, err
	}
	for _, f := range d.faults {
		if f.wrap != nil {
			exec = f.wrap(executor{Executor: exec, vocab: p.Vocab})
		}
	}
	return exec, nil
}
