package parity

import (
	"context"
	"fmt"
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
	p       *probe
	inline  bool
	pending []followed // inline: not judged yet
	started bool       // inline: the reference holds the history
	source  Source
	size    int // capacity

	queue  chan followed
	done   chan struct{}
	stop   context.CancelFunc
	broken atomic.Pointer[Verdict]
	once   sync.Once
}

// followed is one token with the candidate's logits after it.
type followed struct {
	token int32
	row   []float32
}

const (
	// followBatch is the most tokens that the reference takes at once: enough to
	// read the weights once for many, few enough to notice a violation soon.
	followBatch = 32
	// inlineBatch is the same for a reference that takes turns with the generation:
	// a violation is found at most so many tokens late.
	inlineBatch = 64
	// maxLag bounds the logits waiting for the reference, in bytes. A generation
	// that is further ahead waits.
	maxLag = 128 << 20
)

// Follow starts to follow a generation whose sequence holds history. capacity
// is the most tokens it will have. inline is for machines without idle CPUs.
func Follow(ctx context.Context, reference, candidate Source, c Case, history []int32, capacity int, policy Policy, inline bool) *Shadow {
	ctx, stop := context.WithCancel(ctx)
	p := newProbe(ctx, reference, candidate, c, policy)
	p.tokens = slices.Clone(history)
	p.keptFrom = capacity // nothing is kept
	lag := min(max(maxLag/(4*max(c.Vocab, 1)), followBatch), 8192)
	s := &Shadow{p: p, inline: inline, source: reference, size: capacity, done: make(chan struct{}), stop: stop}
	if !inline {
		s.queue = make(chan followed, lag)
		go s.run()
	}
	return s
}

// Token hands over a token that the candidate has computed and the logits after
// it. It waits if the reference is far behind.
func (s *Shadow) Token(token int32, row []float32) {
	if s.inline {
		s.pending = append(s.pending, followed{token, slices.Clone(row)})
		if len(s.pending) >= inlineBatch {
			s.catchUp()
		}
		return
	}
	select {
	case s.queue <- followed{token, slices.Clone(row)}:
	case <-s.done:
	}
}

// Broken returns the verdict against the candidate as soon as there is one, and
// nil before.
func (s *Shadow) Broken() *Verdict { return s.broken.Load() }

// Wait lets the reference catch up and returns the verdict on the whole.
func (s *Shadow) Wait() Verdict {
	s.once.Do(func() {
		if !s.inline {
			close(s.queue)
			return
		}
		s.catchUp()
		if s.Broken() == nil {
			s.p.finish(s.p.ctx.Err())
		}
		s.stop()
		s.p.ref.close()
		close(s.done)
	})
	<-s.done
	return *s.p.v
}

// catchUp judges what is pending, in the caller's time.
func (s *Shadow) catchUp() {
	if s.Broken() != nil || s.p.ctx.Err() != nil {
		return
	}
	err := s.start()
	for err == nil && len(s.pending) > 0 {
		n := min(len(s.pending), inlineBatch)
		err = s.judge(s.pending[:n])
		s.pending = slices.Delete(s.pending, 0, n)
	}
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
	if err := s.p.replay(&s.p.ref, s.p.tokens); err != nil {
		return s.p.referenceFailed(err)
	}
	return nil
}

// Stop ends following without a verdict on what has not been judged yet.
func (s *Shadow) Stop() Verdict {
	s.stop()
	return s.Wait()
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
		}
		if !more {
			return s.p.ctx.Err()
		}
	}
}

// next waits for a token and takes what else is there. A short pause lets a
// batch gather: a step for one token costs the reference nearly as much as one
// for many.
func (s *Shadow) next() (batch []followed, more bool) {
	timer := time.NewTimer(gather)
	defer timer.Stop()
	for len(batch) < followBatch {
		select {
		case f, ok := <-s.queue:
			if !ok {
				return batch, false
			}
			batch = append(batch, f)
		case <-s.p.ctx.Done():
			return batch, false
		case <-timer.C:
			if len(batch) > 0 {
				return batch, true
			}
			timer.Reset(gather)
		}
	}
	return batch, true
}

// gather is how long the first token of a batch waits for company.
const gather = 200 * time.Millisecond

func (s *Shadow) judge(batch []followed) error {
	p := s.p
	from := len(p.tokens)
	for _, f := range batch {
		p.tokens = append(p.tokens, f.token)
	}
	for at := 0; at < len(batch); {
		end := min(at+p.c.MaxBatch, len(batch))
		if err := p.ref.step(p.ctx, p.tokens[from+at:from+end], backend.All); err != nil {
			return p.referenceFailed(err)
		}
		for i := at; i < end; i++ {
			if err := p.judge(Followed, from+i, p.ref.logits.Row(i-at), batch[i].row); err != nil {
				return err
			}
		}
		// The positions themselves are of no use once they are judged sound.
		if w := worstViolation(p.v.Positions); w != nil {
			return &outcome{status: Mismatch, reason: fmt.Sprintf("%s at position %d", w.Text, w.Position)}
		}
		p.v.Positions = p.v.Positions[:0]
		at = end
	}
	return nil
}
