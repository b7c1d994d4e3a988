package apr

import (
	"context"
	"fmt"
	"log/slog"
	"os"
	"time"

	"github.com/apr-engine/apr/engine"
)

// opened is a model on a backend.
type opened struct {
	*engine.Engine
	setup time.Duration // to load the model and open the backend
}

func (o *opened) Close() {
	o.Engine.Close()
	o.Engine.Model.Close()
}

// open opens a backend for a loaded model, which it closes on failure.
func open(m *engine.Model, o engine.Options, start time.Time, log *slog.Logger) (*opened, error) {
	e, err := engine.Open(m, o)
	if err != nil {
		m.Close()
		return nil, err
	}
	log.Info("backend", "requested", e.Selection().Requested, "first", e.Selection().Ran, "threads", o.Threads, "kv", e.KV())
	return &opened{e, time.Since(start)}, nil
}

// loadModel loads a model and logs what it is.
func loadModel(path string, log *slog.Logger) (*engine.Model, error) {
	start := time.Now()
	m, err := engine.LoadModel(path)
	if err != nil {
		return nil, err
	}
	for _, w := range m.File.Warnings {
		log.Warn(w, "file", path)
	}
	log.Info("model", "file", path, "architecture", m.Program.Arch, "tensors", len(m.File.Tensors),
		"bytes", m.File.Size(), "context", m.Program.Context, "tokenizer", m.Tokenizer.Name(), "ms", milliseconds(time.Since(start)))
	return m, nil
}

// contextLength returns the number of tokens to work with: what was asked for,
// or if that is 0 the standard, as far as the model was trained.
func contextLength(m *engine.Model, asked, standard int, log *slog.Logger) int {
	trained := m.Program.Context
	if asked == 0 {
		return min(standard, trained)
	}
	if asked > trained {
		log.Warn("the context is longer than the model was trained for", "ctx", asked, "trained", trained)
	}
	return asked
}

// newSession makes a session unless its cache would not fit in memory at all.
func (o *opened) newSession(capacity int) (*engine.Session, error) {
	need, have := float64(o.Model.CacheBytes(o.KV()))*float64(capacity), memory()
	if have > 0 && need > have {
		return nil, fmt.Errorf("%w: a context of %d tokens takes %s, the machine has %s; see --ctx",
			engine.ErrInput, capacity, byteSize(int64(min(need, 1e18))), byteSize(int64(have)))
	}
	return o.NewSession(capacity)
}

// memory is the machine's memory in bytes, 0 where that is not known.
func memory() float64 {
	text, err := os.ReadFile("/proc/meminfo")
	if err != nil {
		return 0
	}
	var kib float64
	if _, err := fmt.Sscanf(string(text), "MemTotal: %f kB", &kib); err != nil {
		return 0
	}
	return 1024 * kib
}

// checkPrompt refuses a prompt that the context cannot hold, before anything
// is computed.
func checkPrompt(tokens, context int) error {
	if tokens == 0 {
		return fmt.Errorf("%w: the prompt is empty", engine.ErrInput)
	}
	if tokens > context {
		return fmt.Errorf("%w: the prompt has %d tokens, the context holds %d; shorten it or see --ctx", engine.ErrInput, tokens, context)
	}
	return nil
}

func milliseconds(d time.Duration) float64 { return float64(d.Microseconds()) / 1000 }

// perSecond is a rate, 0 when nothing happened.
func perSecond(n int, d time.Duration) float64 {
	if n == 0 || d <= 0 {
		return 0
	}
	return float64(n) / d.Seconds()
}

// cancelOnError returns a context that ends when the function returned with it
// is called with an error.
func cancelOnError(ctx context.Context) (context.Context, func(error)) {
	ctx, cancel := context.WithCancel(ctx)
	return ctx, func(err error) {
		if err != nil {
			cancel()
		}
	}
}
