package engine_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/engine"
	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/parity"
)

// watchedReference is the reference, with a count of how often it is loaded.
type watchedReference struct {
	backend.Backend
	loads  atomic.Int32
	loaded chan struct{} // closed at the first
}

type watchedDevice struct {
	backend.Device
	r *watchedReference
}

func watchReference(t *testing.T) *watchedReference {
	t.Helper()
	b, err := backend.Find("cpu-exact")
	if err != nil {
		t.Fatal(err)
	}
	r := &watchedReference{Backend: b, loaded: make(chan struct{})}
	backend.Register(r)
	t.Cleanup(func() { backend.Register(b) })
	return r
}

func (r *watchedReference) Probe() ([]backend.Device, error) {
	devices, err := r.Backend.Probe()
	for i := range devices {
		devices[i] = watchedDevice{devices[i], r}
	}
	return devices, err
}

func (d watchedDevice) Load(p *graph.Program, w graph.Weights, o backend.Options) (backend.Executor, error) {
	if d.r.loads.Add(1) == 1 {
		close(d.r.loaded)
	}
	return d.Device.Load(p, w, o)
}

// started opens the model, computes a prompt and closes everything; it returns what
// served.
func started(t *testing.T, o engine.Options) string {
	t.Helper()
	o.Expect = few(20)
	e, err := engine.Open(loadSmall(t), o)
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := e.Close(); err != nil {
			t.Error(err)
		}
	}()
	s, err := e.NewSession(100)
	if err != nil {
		t.Fatal(err)
	}
	defer s.Close()
	if _, _, err := s.Prefill(t.Context(), o.Expect); err != nil {
		t.Fatal(err)
	}
	if got := e.Selection(); !got.Verified {
		t.Errorf("%+v", got)
	}
	return e.Selection().Ran
}

// Looking for a device takes a driver longer than the reference takes to begin; where
// there is a certificate it does not begin, and all of the search's answers are fine.
func TestReferenceBeginsBeforeTheDeviceIsFound(t *testing.T) {
	search := func(t *testing.T, f func()) {
		fakeCUDA.search = f
		t.Cleanup(func() { fakeCUDA.search = nil })
	}
	store := func(t *testing.T) engine.GateOptions {
		return engine.GateOptions{Store: &parity.Store{Dir: t.TempDir()}}
	}
	t.Run("found", func(t *testing.T) {
		r := watchReference(t)
		fakeCUDA.plug(t, hooks{})
		o := engine.Options{Gate: store(t)}
		search(t, func() {
			select {
			case <-r.loaded:
			case <-time.After(time.Minute):
				t.Error("the reference waits for the device")
			}
		})
		if ran := started(t, o); ran != "cuda" || r.loads.Load() != 1 {
			t.Errorf("%s ran, the reference was loaded %d times", ran, r.loads.Load())
		}
		search(t, func() { time.Sleep(100 * time.Millisecond) })
		if ran := started(t, o); ran != "cuda" || r.loads.Load() != 1 {
			t.Errorf("with a certificate %s ran, the reference was loaded %d times", ran, r.loads.Load())
		}
	})
	t.Run("absent, another is there", func(t *testing.T) {
		r := watchReference(t)
		fakeWGPU.plug(t, hooks{})
		search(t, func() { <-r.loaded })
		if ran := started(t, engine.Options{Gate: store(t)}); ran != "wgpu" || r.loads.Load() != 1 {
			t.Errorf("%s ran, the reference was loaded %d times", ran, r.loads.Load())
		}
	})
	t.Run("absent, the CPU is there", func(t *testing.T) {
		r := watchReference(t)
		o := engine.Options{Gate: store(t)}
		search(t, func() { <-r.loaded })
		if ran := started(t, o); ran != "cpu" || r.loads.Load() != 1 {
			t.Errorf("%s ran, the reference was loaded %d times", ran, r.loads.Load())
		}
		search(t, func() { time.Sleep(100 * time.Millisecond) })
		if ran := started(t, o); ran != "cpu" || r.loads.Load() != 1 {
			t.Errorf("with a certificate %s ran, the reference was loaded %d times", ran, r.loads.Load())
		}
	})
	t.Run("absent at once", func(t *testing.T) {
		r := watchReference(t)
		e, err := engine.Open(loadSmall(t), engine.Options{Expect: few(20), Gate: store(t)})
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		time.Sleep(100 * time.Millisecond)
		if r.loads.Load() != 0 {
			t.Error("the reference was loaded for no candidate")
		}
	})
}
