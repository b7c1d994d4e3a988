package engine_test

import (
	"runtime/debug"
	"sync"
	"testing"

	"github.com/apr-engine/apr/engine"
)

// The times of a start add up: a probe's parts to the gate's time, and there are
// none where nothing was compared.
func TestStartTimes(t *testing.T) {
	for _, off := range []bool{false, true} {
		o := engine.Options{Backend: "cpu", Threads: 1}
		if off {
			o.Gate.Verify = engine.VerifyOff
		}
		e, err := engine.Open(loadSmall(t), o)
		if err != nil {
			t.Fatal(err)
		}
		defer e.Close()
		s, err := e.NewSession(64)
		if err != nil {
			t.Fatal(err)
		}
		defer s.Close()
		if _, _, err := s.Prefill(t.Context(), few(20)); err != nil {
			t.Fatal(err)
		}
		v := e.StartTimes()
		if v.Load <= 0 || v.Gate <= 0 {
			t.Errorf("gate off %v: %+v", off, v)
		}
		parts := v.Wait + v.Candidate + v.Compare
		switch {
		case off && parts != 0:
			t.Errorf("%+v without a comparison", v)
		case !off && (v.Reference <= 0 || v.Candidate <= 0 || parts > v.Gate):
			t.Errorf("parts of %v in %+v", parts, v)
		}
	}
}

// Probes at the same time leave the collector's pace as it was.
func TestProbesAtTheSameTime(t *testing.T) {
	before := debug.SetGCPercent(123)
	defer debug.SetGCPercent(before)
	var wait sync.WaitGroup
	for range 3 {
		m := loadSmall(t)
		wait.Go(func() {
			e, err := engine.Open(m, engine.Options{Backend: "cpu", Threads: 1})
			if err != nil {
				t.Error(err)
				return
			}
			defer e.Close()
			s, err := e.NewSession(64)
			if err != nil {
				t.Error(err)
				return
			}
			defer s.Close()
			if _, _, err := s.Prefill(t.Context(), few(20)); err != nil {
				t.Error(err)
			}
		})
	}
	wait.Wait()
	if got := debug.SetGCPercent(123); got != 123 {
		t.Errorf("the collector's percentage is %d after three probes, it was 123", got)
	}
}
