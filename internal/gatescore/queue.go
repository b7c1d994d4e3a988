package main

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/apr-engine/apr/parity"
	"github.com/apr-engine/apr/parity/fault"
)

// unknown is the mark of a fault that could not be judged.
const unknown = "?"

// queue judges several models at a time. Each has three stages, of which the sound
// runs of all models come first and the faults that begin late, which take longest,
// last: if time is up, what is missing is what costs most for the least.
type queue struct {
	ctx     context.Context
	faults  []fault.Fault
	threads int
	done    func(m *modelScore, what string, took time.Duration) // called by one worker at a time

	mu   sync.Mutex
	free sync.Cond
	jobs []*job
	todo []task
}

// job is one model.
type job struct {
	subject
	*modelScore
	device int // among those that are alike
	sc     *scoring
	marks  []string
	took   map[string]time.Duration
	busy   bool
	left   int // stages
}

// task is a stage of a job.
type task struct {
	*job
	what string
	run  func(*job) error
}

func newQueue(ctx context.Context, faults []fault.Fault, threads int) *queue {
	q := &queue{ctx: ctx, faults: faults, threads: threads}
	q.free.L = &q.mu
	return q
}

func (q *queue) add(s subject, m *modelScore, device int) {
	j := &job{subject: s, modelScore: m, device: device, took: map[string]time.Duration{}, marks: slices.Repeat([]string{" "}, len(q.faults))}
	q.jobs = append(q.jobs, j)
}

// run works on all jobs with so many workers, and closes the models.
func (q *queue) run(workers int) {
	for _, stage := range []struct {
		what string
		run  func(*job) error
	}{
		{"sound", q.sound},
		{"faults", func(j *job) error { return q.inject(j, false) }},
		{"late", func(j *job) error { return q.inject(j, true) }},
	} {
		for _, j := range q.jobs {
			q.todo = append(q.todo, task{j, stage.what, stage.run})
			j.left++
		}
	}
	var wait sync.WaitGroup
	for range workers {
		wait.Go(q.work)
	}
	wait.Wait()
}

// next takes the first task whose model nobody works on; ok is false if none is left.
func (q *queue) next() (t task, ok bool) {
	q.mu.Lock()
	defer q.mu.Unlock()
	for len(q.todo) > 0 {
		for i, t := range q.todo {
			if !t.busy {
				t.busy = true
				q.todo = slices.Delete(q.todo, i, i+1)
				return t, true
			}
		}
		q.free.Wait()
	}
	return t, false
}

func (q *queue) work() {
	for {
		t, ok := q.next()
		if !ok {
			return
		}
		start := time.Now()
		err := q.ctx.Err()
		if err == nil {
			err = t.open(q)
		}
		if err == nil {
			err = t.run(t.job)
		}
		took := time.Since(start)
		q.mu.Lock()
		t.busy, t.Seconds = false, t.Seconds+took.Seconds()
		t.Slowest, t.Marks = slowest(t.took), strings.Join(t.marks, "")
		if err != nil && q.ctx.Err() == nil {
			t.Failed = strings.TrimPrefix(t.Failed+"; "+strings.ReplaceAll(err.Error(), "\n", "; "), "; ")
		}
		if t.left--; t.left == 0 && t.sc != nil {
			t.sc.end()
			t.subject.model.Close()
		}
		q.done(t.modelScore, t.what, took)
		q.free.Broadcast()
		q.mu.Unlock()
	}
}

// open loads the reference when the job is first worked on.
func (j *job) open(q *queue) (err error) {
	if j.sc == nil {
		j.sc, err = newScoring(q.ctx, j.subject, q.threads, j.device)
	}
	return err
}

// sound shows what it has after every way to run, for a score that is cut short.
func (q *queue) sound(j *job) error {
	var m modelScore
	return j.sc.soundRuns(&m, j.SoundWanted, func() {
		q.mu.Lock()
		defer q.mu.Unlock()
		j.Sound, j.Broken = slices.Clone(m.Sound), slices.Clone(m.Broken)
	})
}

// inject puts the faults to the model: those that begin late, or all others. A sound
// probe at the end shows that the executor that the faults have surrounded still works.
func (q *queue) inject(j *job, late bool) error {
	var failures []error
	for i, f := range q.faults {
		if f.Late != late {
			continue
		}
		if err := q.ctx.Err(); err != nil {
			return err
		}
		start := time.Now()
		o, err := j.sc.fault(f, parity.Standard())
		j.took[f.Name] = time.Since(start)
		switch {
		case err == nil:
			j.marks[i] = o.mark()
		case q.ctx.Err() == nil:
			j.marks[i] = unknown
			failures = append(failures, err)
		}
	}
	return errors.Join(append(failures, j.sc.alive())...)
}

// slowest names the five that took longest.
func slowest(took map[string]time.Duration) string {
	names := slices.SortedFunc(maps.Keys(took), func(a, b string) int { return cmp.Compare(took[b], took[a]) })
	var parts []string
	for _, n := range names[:min(5, len(names))] {
		parts = append(parts, fmt.Sprintf("%s %.2f s", n, took[n].Seconds()))
	}
	return strings.Join(parts, ", ")
}
