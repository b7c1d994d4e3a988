package apr

import (
	"context"
	"fmt"
	"log/slog"
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
	log.Info("backend", "requested", e.Selection().Requested, "first", e.Selection().Ran, "threads", o.Threads, "kv_f32", o.KVF32)
	return &opened{e, time.Since(start)}, nil
}

// loadModel loads a model and logs what it is.
func loadModel(path string, log *slog.Logger) (*engine.Model, error) {
	start := time.Now()
	m, err := engine.LoadModel(path)
	if err != nil {
		return nil, err
	}
	log.Info("model", "file", path, "architecture", m.Program.Arch, "tensors", len(m.File.Tensors),
		"bytes", m.File.Size(), "context", m.Program.Context, "tokenizer", m.Tokenizer.Name(), "ms", milliseconds(time.Since(start)))
	return m, nil
}

// context returns the number of tokens to work with: what was asked for, or the
// default if that is 0, and never more than the model was trained for.
func contextLength(m *engine.Model, asked, standard int) (int, error) {
	trained := m.Program.Context
	if asked > trained {
		return 0, fmt.Errorf("%w: --ctx %d: the model was trained for a context of %d tokens", engine.ErrInput, asked, trained)
	}
	if asked == 0 {
		return min(standard, trained), nil
	}
	return asked, nil
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
