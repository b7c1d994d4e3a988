package parity

import (
	"cmp"
	"context"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/apr-engine/apr/backend"
)

// Shadow follows a generation: the reference computes the same tokens in batches
// and judges the candidate's logits. It does so in the background where there
// are idle CPUs, with a reference executor of its own. Where there are none it
// takes turns with the generation, a batch at a time: two executors that compete
// for the same CPUs would hold each other up at every barrier.
type Shadow struct {
	p      *probe
	how    Following
	source Source
	size   int // capacity

	started bool       // the reference holds the history
	turn    time.Time  // taking turns: when the last batch was judged
	mu      sync.Mutex // guards pending, bytes, spare and closed
	pending []followed // not judged yet
	bytes   int        // of the rows of pending
	spare   [][]float32
	closed  bool

	signal chan struct{} // a token has come
	room   chan struct{} // the reference has caught up a little
	done   chan struct{}
	stop   context.CancelFunc
	broken atomic.Pointer[Verdict]
	judged atomic.Int64
	behind atomic.Bool
	once   sync.Once
}

// Following says how a generation is followed.
type Following struct {
	// Turns takes turns with the generation, for machines without idle CPUs.
	Turns bool
	// Budget is the share of the generation's time that waiting for the reference
	// may add; rows are dropped rather than waited for. 0 waits as long as it takes
	// and drops nothing. Taking turns drops nothing either.
	Budget float64
	// Lag bounds the logits that wait for the reference, in bytes; 0 for 128 MiB.
	Lag int
}

// followed is one token with the candidate's logits after it.
type followed struct {
	token int32
	row   []float32 // nil if it was dropped
}

const (
	// followBatch is the most tokens that the reference takes at once: enough to
	// read the weights once for many, few enough to notice a violation soon.
	followBatch = 32
	// turnBatch is the same for a reference that takes turns with the generation,
	// turnLeast and turnPause what is enough on a machine so slow that people
	// would wait for text.
	turnBatch = 64
	turnLeast = 16
	turnPause = time.Second
	// maxLag is the usual Lag.
	maxLag = 128 << 20
	// gather is how long the first token of a batch waits for company: a step for
	// one token costs the reference nearly as much as one for many.
	gather = 200 * time.Millisecond
)

// Follow starts to follow a generation whose sequence holds history. capacity
// is the most tokens it will have.
func Follow(ctx context.Context, reference, candidate Source, c Case, history []int32, capacity int, policy Policy, how Following) *Shadow {
	ctx, stop := context.WithCancel(ctx)
	p := newProbe(ctx, reference, candidate, c, policy)
	p.tokens = slices.Clone(history)
	s := &Shadow{
		p: p, how: how, source: reference, size: capacity, turn: time.Now(),
		signal: make(chan struct{}, 1), room: make(chan struct{}, 1), done: make(chan struct{}), stop: stop,
	}
	s.judged.Store(int64(len(history)))
	if !how.Turns {
		go s.run()
	}
	return s
}

// Token hands over a token that the candidate has computed and the logits after
// it. Without a budget it waits if the reference is far behind.
func (s *Shadow) Token(token int32, row []float32) {
	if s.how.Turns {
		if !s.add(token, row) {
			s.catchUp()
			s.add(token, row)
		}
		if n := len(s.pending); n >= turnBatch || n >= turnLeast && time.Since(s.turn) >= turnPause {
			s.catchUp()
		}
		return
	}
	for !s.add(token, row) {
		if s.how.Budget > 0 {
			s.behind.Store(true)
			row = nil
			continue
		}
		select {
		case <-s.room:
		case <-s.done:
			return
		}
	}
	notify(s.signal)
}

// add queues a token with a copy of its row; false if that would be one too many.
func (s *Shadow) add(token int32, row []float32) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if row != nil {
		size := 4 * len(row)
		if s.bytes > 0 && s.bytes+size > cmp.Or(s.how.Lag, maxLag) {
			return false
		}
		s.bytes += size
		var memory []float32
		if n := len(s.spare); n > 0 {
			memory, s.spare = s.spare[n-1], s.spare[:n-1]
		}
		row = append(memory[:0], row...)
	}
	s.pending = append(s.pending, followed{token, row})
	return true
}

// reuse gives the memory of judged rows back.
func (s *Shadow) reuse(batch []followed) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, f := range batch {
		if f.row != nil && len(s.spare) < turnBatch {
			s.spare = append(s.spare, f.row)
		}
	}
}

func notify(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// Broken returns the verdict against the candidate as soon as there is one, and
// nil before.
func (s *Shadow) Broken() *Verdict { return s.broken.Load() }

// Judged is how many positions, from the first on, have been judged sound or
// were there before following began.
func (s *Shadow) Judged() int { return int(s.judged.Load()) }

// Behind reports whether rows have been dropped because the reference is too
// slow for the budget: from then on positions are judged with gaps and late.
func (s *Shadow) Behind() bool { return s.behind.Load() }

// Wait lets the reference catch up, for at most the given time (0 for as long as
// it takes), and returns the verdict. complete says that every token was judged;
// if not, the verdict is about those that were, or there is none.
func (s *Shadow) Wait(limit time.Duration) (v Verdict, complete bool) {
	s.once.Do(func() {
		if s.how.Turns {
			s.catchUp()
			if s.Broken() == nil {
				s.p.finish(s.p.ctx.Err())
			}
			s.stop()
			s.p.ref.close()
			close(s.done)
			return
		}
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		notify(s.signal)
	})
	var expired <-chan time.Time
	if limit > 0 {
		timer := time.NewTimer(limit)
		defer timer.Stop()
		expired = timer.C
	}
	select {
	case <-s.done:
		return *s.p.v, !s.Behind()
	case <-expired:
		s.stop()
	}
	if v := s.Broken(); v != nil {
		return *v, true
	}
	return Verdict{Status: NotMeasured, Reason: "the reference did not catch up"}, false
}

// Done is closed when the reference executor is not used any more.
func (s *Shadow) Done() <-chan struct{} { return s.done }

// Stop ends following without a verdict on what has not been judged yet.
func (s *Shadow) Stop() Verdict {
	s.stop()
	v, _ := s.Wait(0)
	return v
}

// catchUp judges what is pending, in the caller's time.
func (s *Shadow) catchUp() {
	if s.Broken() != nil || s.p.ctx.Err() != nil {
		return
	}
	err := s.start()
	for err == nil && len(s.pending) > 0 {
		n := min(len(s.pending), turnBatch)
		err = s.judge(s.pending[:n])
		s.reuse(s.pending[:n])
		for _, f := range s.pending[:n] {
			s.bytes -= 4 * len(f.row)
		}
		s.pending = slices.Delete(s.pending, 0, n)
	}
	s.turn = time.Now()
	if err != nil && s.p.ctx.Err() == nil {
		s.p.finish(err)
		s.broken.Store(s.p.v)
	}
}

// start brings the reference to where the generation was when it was first followed.
func (s *Shadow) start() error {
	if s.started {
		return nil
	}
	s.started = true
	if err := s.p.ref.open(s.p.ctx, s.source, s.size); err != nil {
		return s.p.referenceFailed(err)
	}
	if err := s.p.replay(&s.p.ref, referenceBatch, s.p.tokens); err != nil {
		return s.p.referenceFailed(err)
	}
	return nil
}

func (s *Shadow) run() {
	defer close(s.done)
	defer s.stop()
	defer s.p.ref.close()
	err := s.follow()
	s.p.finish(err)
	if s.p.v.Status != Validated && s.p.ctx.Err() == nil {
		s.broken.Store(s.p.v)
	}
}

func (s *Shadow) follow() error {
	if err := s.start(); err != nil {
		return err
	}
	for {
		batch, more := s.next()
		if len(batch) > 0 {
			if err := s.judge(batch); err != nil {
				return err
			}
			s.reuse(batch)
		}
		if !more {
			return s.p.ctx.Err()
		}
	}
}

// next waits for a token and takes what else comes soon.
func (s *Shadow) next() (batch []followed, more bool) {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	enough := followBatch
	for {
		batch, closed := s.take(enough)
		switch {
		case len(batch) > 0:
			return batch, true
		case closed:
			return nil, false
		}
		select {
		case <-s.signal:
		case <-timer.C:
			enough = 1
		case <-s.p.ctx.Done():
			return nil, false
		}
	}
}

// take removes a batch from what is pending if there are enough for one or no
// more will come.
func (s *Shadow) take(enough int) (batch []followed, closed bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if len(s.pending) < enough && !s.closed {
		return nil, false
	}
	n := min(len(s.pending), followBatch)
	batch = slices.Clone(s.pending[:n])
	s.pending = slices.Delete(s.pending, 0, n)
	for _, f := range batch {
		s.bytes -= 4 * len(f.row)
	}
	notify(s.room)
	return batch, s.closed
}

func (s *Shadow) judge(batch []followed) error {
	p := s.p
	from := len(p.tokens)
	want := backend.None
	for _, f := range batch {
		p.tokens = append(p.tokens, f.token)
		if f.row != nil {
			want = backend.All
		}
	}
	for at := 0; at < len(batch); {
		end := min(at+p.c.MaxBatch, len(batch))
		if err := p.ref.step(p.ctx, p.tokens[from+at:from+end], want); err != nil {
			return p.referenceFailed(err)
		}
		if err := s.judgeRows(batch[at:end], from+at); err != nil {
			return err
		}
		// The positions themselves are of no use once they are judged sound.
		p.v.Positions = p.v.Positions[:0]
		at = end
	}
	return nil
}

// judgeRows compares the rows of a batch that were not dropped with those of the
// reference's last step.
func (s *Shadow) judgeRows(batch []followed, from int) error {
	for at := 0; at < len(batch); {
		if batch[at].row == nil {
			at++
			continue
		}
		end := at
		for end < len(batch) && batch[end].row != nil {
			end++
		}
		first := at
		err := s.p.judge(Followed, from+first, end-first, func(i int) (reference, candidate []float32) {
			return s.p.ref.logits.Row(first + i), batch[first+i].row
		})
		if err != nil {
			s.sound()
			return err
		}
		at = end
	}
	if !s.Behind() {
		s.judged.Store(int64(from + len(batch)))
	}
	return nil
}

// sound counts the positions before a violation.
func (s *Shadow) sound() {
	for _, p := range s.p.v.Positions {
		if p.Violation != nil {
			return
		}
		if !s.Behind() {
			s.judged.Store(max(s.judged.Load(), int64(p.Index+1)))
		}
	}
}
