package engine

import (
	"errors"
	"slices"
	"sync"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/parity"
)

const (
	// hashGrace is how long looking up the hash of a file that has been seen before
	// may take.
	hashGrace = 50 * time.Millisecond
	// findGrace is how long a machine without a backend's device takes to say so.
	findGrace = 10 * time.Millisecond
)

// errKnown and errAbsent end running ahead: the candidate needs no comparison, or
// there is none.
var (
	errKnown  = errors.New("the candidate is known")
	errAbsent = errors.New("there is no candidate")
)

// early is a reference that begins before the candidate's device has been found.
type early struct {
	found chan sought // closed without one if there is no device

	mu              sync.Mutex
	begun, canceled bool
}

// sought is what a certificate of a backend is looked up with.
type sought struct {
	source         parity.Source
	fault, options string
}

// runAhead lets the reference begin while a GPU is found and its weights are uploaded,
// if the candidate will have to be compared. The CPU has nothing to upload, and would
// only be held up. The caller tells found what became of the search, nil for nothing.
//
// The reference takes less than half of the threads, as many as loading leaves: with
// all of them, which wait for each other, either would take several times as long.
func (g *gate) runAhead(name string) (found func(c *loaded)) {
	tokens := g.options.Expect
	if !slices.Contains(gpuChain, name) || len(tokens) == 0 || g.Override || g.ahead != nil {
		return func(*loaded) {}
	}
	e := &early{found: make(chan sought, 1)}
	pc := g.caseOf(tokens)
	pc.Roomy = true
	g.ahead = parity.RunAhead(func() (backend.Executor, error) {
		if err := g.awaitBeginning(e); err != nil {
			return nil, err
		}
		device, err := firstDevice(referenceBackend)
		if err != nil {
			return nil, err
		}
		return g.loadReference(device, g.threads())
	}, max(g.threads()/2-1, 1), pc, g.Policy)
	return func(c *loaded) {
		if c != nil {
			e.found <- sought{c.source(), g.fault(name), g.keyOptions(name)}
			return
		}
		close(e.found)
		if e.cancel() {
			g.ahead = nil // another backend may have use for it
		}
	}
}

// awaitBeginning returns when the reference should begin, or why it should not.
func (g *gate) awaitBeginning(e *early) error {
	prepared := make(chan error, 1)
	go func() { prepared <- g.prepare() }()
	select {
	case err := <-prepared:
		if err != nil {
			return err
		}
		g.ready.Lock()
		judged := g.Gate
		g.ready.Unlock()
		if judged.Perhaps(g.keyOptions, slices.Concat(gpuChain, cpuChain)...) {
			c, ok := <-e.found
			if !ok {
				return errAbsent
			}
			judged.Key.Options = c.options
			judged.Fault = func(string) string { return c.fault }
			if judged.Known(c.source) {
				return errKnown
			}
			return e.begin()
		}
	case <-time.After(hashGrace):
		// The file is being hashed for the first time, so there is no certificate.
	}
	select {
	case _, ok := <-e.found:
		if !ok {
			return errAbsent
		}
	case <-time.After(findGrace):
	}
	return e.begin()
}

// begin is the last moment to be told that there is no candidate.
func (e *early) begin() error {
	e.mu.Lock()
	defer e.mu.Unlock()
	if e.canceled {
		return errAbsent
	}
	e.begun = true
	return nil
}

// cancel reports whether it came before the reference has begun; if not, what that
// computes is for the next backend of the chain.
func (e *early) cancel() bool {
	e.mu.Lock()
	defer e.mu.Unlock()
	e.canceled = !e.begun
	return e.canceled
}
