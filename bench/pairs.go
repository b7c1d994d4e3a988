package bench

import "time"

// A Pair is a stretch of a generation test beside the readings of memory just before and
// just after it. Machines whose memory others use too change their rate by tens of per
// cent within seconds: a limit that was measured once says little of what could have been
// reached later.
type Pair struct {
	Needed        float64 // bytes of weights and cache that the stretch had to read, a second
	Before, After float64 // bytes read a second
}

func (p Pair) reading() float64 { return (p.Before + p.After) / 2 }

func (p Pair) share() float64 { return p.Needed / p.reading() }

// Pairs are those of all runs of a test.
type Pairs []Pair

// Share is the median of what was needed as a share of what was read.
func (p Pairs) Share() float64 { return p.median(Pair.share) }

// Reading is the median of the readings.
func (p Pairs) Reading() float64 { return p.median(Pair.reading) }

// Best is the best reading.
func (p Pairs) Best() float64 {
	best := 0.0
	for _, x := range p {
		best = max(best, x.Before, x.After)
	}
	return best
}

// median of a number of each pair, 0 if there are none.
func (p Pairs) median(number func(Pair) float64) float64 {
	if len(p) == 0 {
		return 0
	}
	var x []float64
	for _, one := range p {
		x = append(x, number(one))
	}
	_, _, median := statistics(x)
	return median
}

const (
	// readingTime is about how long a reading takes, stretchTime the least time from one
	// to the next within a run: readings then take few per cent of the time, and what they
	// push out of caches is read again within one token.
	readingTime = 4 * time.Millisecond
	stretchTime = 200 * time.Millisecond

	// settleTime is how long steps are made without being timed after a reading: its
	// threads are not the workers, which slept meanwhile and take some 10 ms until each has
	// a processor of its own again.
	settleTime = 20 * time.Millisecond
)

// pairing divides runs into stretches. A nil one does nothing.
type pairing struct {
	now   func() time.Time
	read  func() float64 // bytes a second
	pairs Pairs
	spent time.Duration // reading and settling, which are no part of a run
	// usual is about how long a step takes.
	usual time.Duration

	before float64 // the reading before the present stretch
	start  time.Time
	needed float64 // bytes, by the present stretch
	none   bool    // no stretch of this run has ended
	away   bool    // the workers: no step has been made since the last reading
}

// begin is called when a run begins.
func (p *pairing) begin() {
	if p == nil {
		return
	}
	p.before, p.none = p.reading(), true
}

// step is called after a step that needed so many bytes.
func (p *pairing) step(needed float64) {
	if p == nil {
		return
	}
	p.needed += needed
	if p.now().Sub(p.start) >= stretchTime {
		p.pair()
	}
}

// end is called when a run has ended. A short rest is left out, but for a run that is no
// longer.
func (p *pairing) end() {
	if p != nil && p.needed > 0 && (p.none || p.now().Sub(p.start) >= stretchTime/2) {
		p.pair()
	}
}

// pair ends the present stretch.
func (p *pairing) pair() {
	rate := p.needed / p.now().Sub(p.start).Seconds()
	after := p.reading()
	p.pairs = append(p.pairs, Pair{Needed: rate, Before: p.before, After: after})
	p.before, p.none = after, false
}

// settle repeats a step that has to come next and is not to be timed, if there has been a
// reading, until the workers are back at work; the stretch begins after that. Where one
// step takes that long it is left out: it would make a run of few steps much longer, and
// the reading would be an old one.
func (p *pairing) settle(step func() error) error {
	if p == nil || !p.away {
		return nil
	}
	p.away = false
	if p.usual >= settleTime {
		return nil
	}
	start := p.start
	for p.now().Sub(start) < settleTime {
		if err := step(); err != nil {
			return err
		}
	}
	p.start = p.now()
	p.spent += p.start.Sub(start)
	return nil
}

// reading reads memory; the next stretch begins after it.
func (p *pairing) reading() float64 {
	start := p.now()
	rate := p.read()
	p.start, p.needed, p.away = p.now(), 0, true
	p.spent += p.start.Sub(start)
	return rate
}

// time is what readings, and settling after them, have taken so far.
func (p *pairing) time() time.Duration {
	if p == nil {
		return 0
	}
	return p.spent
}
