package bench

import (
	"errors"
	"math"
	"testing"
	"time"
)

// lab is a machine without time of its own: steps and readings take what the test says.
type lab struct {
	pairing
	clock   time.Time
	rate    float64 // bytes a second that it reads at the moment
	reading time.Duration
	reads   int
}

func newLab() *lab {
	l := &lab{clock: time.Unix(0, 0), rate: 1e9, reading: 3 * time.Millisecond}
	l.now = func() time.Time { return l.clock }
	l.read = func() float64 {
		l.clock = l.clock.Add(l.reading)
		l.reads++
		return l.rate
	}
	return l
}

// run makes steps that need so many bytes each and reach a share of the machine's rate.
func (l *lab) run(steps int, bytes, share float64) {
	l.begin()
	for range steps {
		l.clock = l.clock.Add(time.Duration(bytes / (l.rate * share) * 1e9))
		l.step(bytes)
	}
	l.end()
}

func TestPairing(t *testing.T) {
	const tenth = 1e8 // bytes, a tenth of a second at the rate in the beginning
	for _, tt := range []struct {
		name  string
		run   func(*lab)
		pairs int
		share float64
	}{
		{"steps longer than a stretch", func(l *lab) { l.run(5, 10*tenth, 0.5) }, 5, 0.5},
		{"short steps", func(l *lab) { l.run(1000, tenth/50, 0.8) }, 13, 0.8}, // 2.5 s; the last 0.1 make a pair too
		{"a short rest is left out", func(l *lab) { l.run(9, tenth/2, 1) }, 2, 1},
		{"a run shorter than a stretch", func(l *lab) { l.run(3, tenth/100, 0.7) }, 1, 0.7},
		{"several runs", func(l *lab) { l.run(1, tenth, 0.7); l.run(1, tenth, 0.7); l.run(1, tenth, 0.7) }, 3, 0.7},
		{"the machine slows down between runs", func(l *lab) {
			for range 4 {
				l.run(4, 2*tenth, 0.9)
				l.rate /= 2
			}
		}, 16, 0.9},
		{"most of the time disturbed by another share", func(l *lab) { l.run(3, 2*tenth, 0.9); l.run(2, 2*tenth, 0.3) }, 5, 0.9},
		{"nothing", func(l *lab) { l.begin(); l.end() }, 0, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			tt.run(l)
			if len(l.pairs) != tt.pairs {
				t.Fatalf("%d pairs, want %d", len(l.pairs), tt.pairs)
			}
			// The clock counts in nanoseconds.
			if got := l.pairs.Share(); !(math.Abs(got-tt.share) <= 1e-6) {
				t.Errorf("share %v, want %v", got, tt.share)
			}
			if want := time.Duration(l.reads) * l.reading; l.time() != want {
				t.Errorf("%d readings took %v, want %v", l.reads, l.time(), want)
			}
		})
	}
}

// A reading stands for the stretches on both sides of it, and the best counts by itself.
func TestPairsReadings(t *testing.T) {
	p := Pairs{{Needed: 6, Before: 10, After: 30}, {Needed: 10, Before: 30, After: 50}, {Needed: 30, Before: 50, After: 70}}
	if got := p.Reading(); got != 40 {
		t.Errorf("median reading %v, want 40", got)
	}
	if got := p.Best(); got != 70 {
		t.Errorf("best reading %v, want 70", got)
	}
	if got := p.Share(); got != 0.3 {
		t.Errorf("share %v, want 0.3", got)
	}
	none := Pairs{}
	if none.Share() != 0 || none.Reading() != 0 || none.Best() != 0 {
		t.Errorf("of nothing: %v, %v, %v", none.Share(), none.Reading(), none.Best())
	}
}

// After each reading steps are made until the workers are back; they are no part of the
// stretch, nor of the time of the run. Steps that take long need none.
func TestSettle(t *testing.T) {
	for _, tt := range []struct {
		name        string
		usual, step time.Duration
		want        int // steps after a reading
	}{
		{"short steps", time.Millisecond, 2 * time.Millisecond, 10},
		{"the last one goes beyond", 15 * time.Millisecond, 15 * time.Millisecond, 2},
		{"longer than usual", time.Millisecond, time.Second, 1},
		{"long steps", settleTime, settleTime, 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			l := newLab()
			l.usual = tt.usual
			steps := 0
			settle := func() {
				err := l.settle(func() error {
					l.clock = l.clock.Add(tt.step)
					steps++
					return nil
				})
				if err != nil {
					t.Fatal(err)
				}
			}
			settle() // nothing has been read
			l.begin()
			for range 2 {
				settle()
				settle() // no reading since
				l.clock = l.clock.Add(stretchTime)
				l.step(1e9 * stretchTime.Seconds() / 2)
			}
			if steps != 2*tt.want {
				t.Errorf("%d steps after two readings, want %d", steps, 2*tt.want)
			}
			if len(l.pairs) != 2 || !(math.Abs(l.pairs.Share()-0.5) <= 1e-6) {
				t.Errorf("pairs %v, want two with a share of 0.5", l.pairs)
			}
			if want := 3*l.reading + time.Duration(steps)*tt.step; l.time() != want {
				t.Errorf("%v was no part of the run, want %v", l.time(), want)
			}
		})
	}
	failed := errors.New("failed")
	l := newLab()
	l.begin()
	if err := l.settle(func() error { return failed }); err != failed {
		t.Errorf("%v, want the step's error", err)
	}
}

// Without a pairing a run is just measured.
func TestNoPairing(t *testing.T) {
	var p *pairing
	p.begin()
	if err := p.settle(func() error { return errors.New("called") }); err != nil {
		t.Error(err)
	}
	p.step(1)
	p.end()
	if p.time() != 0 {
		t.Errorf("%v", p.time())
	}
}

// Readings go through all of the memory, in whole pages, and then begin anew.
func TestStream(t *testing.T) {
	const threads = 3
	s := newStream(threads)
	defer func() {
		if err := s.close(); err != nil {
			t.Error(err)
		}
	}()
	if large := s.large(); !(large >= 0 && large <= 1) {
		t.Errorf("%v in large pages", large)
	}
	part := streamBytes / threads
	last := 0
	for _, tt := range []struct{ bytes, at int }{
		{streamBytes / 2, part / 2 &^ 4095},
		{streamBytes / 4, part/2&^4095 + part/4&^4095},
		{streamBytes / 2, part / 2 &^ 4095}, // no room for so much behind it
		{streamBytes, part &^ 4095},
		{0, part}, // all there is
	} {
		if rate := s.read(float64(tt.bytes)); !(rate > 0 && rate < 1e15) {
			t.Errorf("%d bytes: %v a second", tt.bytes, rate)
		}
		if s.at != tt.at {
			t.Errorf("%d bytes from %d: ends at %d, want %d", tt.bytes, last, s.at, tt.at)
		}
		last = s.at
	}
}
