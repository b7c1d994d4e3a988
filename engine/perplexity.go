package engine

import (
	"context"
	"fmt"
	"math"
	"slices"

	"github.com/apr-engine/apr/tokenizer"
)

// PerplexityOptions say how a text is cut into windows.
type PerplexityOptions struct {
	// Context is the window's length in tokens.
	Context int
	// Stride, if positive, moves a sliding window by so many tokens, each token
	// of which is scored once with at least Context-Stride tokens before it. If 0
	// the windows do not overlap and the second half of each is scored, as in
	// llama.cpp's llama-perplexity.
	Stride int
	// Chunks ends after so many windows; 0 for the whole text.
	Chunks int
	// Progress, if set, is called after each window.
	Progress func(done, total int, perplexity float64)
}

// PerplexityResult is how well a model predicts a text.
type PerplexityResult struct {
	Perplexity float64 `json:"perplexity"`
	StdErr     float64 `json:"stderr"` // of Perplexity
	NLL        float64 `json:"nll"`    // mean negative log-likelihood, nats a token
	Tokens     int     `json:"tokens"` // in the text
	Scored     int     `json:"scored"` // of them predicted
	Chunks     int     `json:"chunks"` // windows evaluated
	Context    int     `json:"context"`
	Stride     int     `json:"stride"`
}

// window is a run of tokens and the first position whose prediction of its
// successor is scored.
type window struct{ start, end, first int }

// Perplexity measures the model on a text.
func (e *Engine) Perplexity(ctx context.Context, text string, o PerplexityOptions) (PerplexityResult, error) {
	tokens := e.Model.Tokenizer.Encode(text, tokenizer.EncodeOptions{AddSpecial: true})
	res := PerplexityResult{Tokens: len(tokens), Context: o.Context, Stride: o.Stride}
	windows, err := o.windows(len(tokens))
	if err != nil {
		return res, err
	}
	s, err := e.NewSession(min(o.Context, len(tokens)))
	if err != nil {
		return res, err
	}
	defer s.Close()
	var sum, squares float64
	var chunk []int32
	for _, w := range windows {
		chunk = append(chunk[:0], tokens[w.start:w.end]...)
		if o.Stride == 0 && e.Model.Tokenizer.AddsBOS() {
			chunk[0] = e.Model.Tokenizer.BOS() // as llama-perplexity does in every window
		}
		// The last token predicts what is in the next window, so it is left out.
		err := s.Logits(ctx, chunk[:len(chunk)-1], w.first, func(p int, row []float32) error {
			nll := negativeLogLikelihood(row, chunk[p+1])
			sum += nll
			squares += nll * nll
			res.Scored++
			return nil
		})
		if err != nil {
			return res, err
		}
		res.Chunks++
		res.finish(sum, squares)
		if o.Progress != nil {
			o.Progress(res.Chunks, len(windows), res.Perplexity)
		}
	}
	return res, nil
}

// windows cuts n tokens.
func (o PerplexityOptions) windows(n int) ([]window, error) {
	switch {
	case o.Context < 4:
		return nil, fmt.Errorf("%w: a context of %d tokens is too short for perplexity, want at least 4", ErrInput, o.Context)
	case o.Stride < 0 || o.Stride >= o.Context:
		return nil, fmt.Errorf("%w: a stride of %d, want 0 to %d", ErrInput, o.Stride, o.Context-1)
	case o.Stride == 0 && n < o.Context:
		return nil, fmt.Errorf("%w: the text has %d tokens, a context of %d needs at least as many (see --ctx)", ErrInput, n, o.Context)
	case n < 2:
		return nil, fmt.Errorf("%w: the text has %d tokens, perplexity needs at least 2", ErrInput, n)
	}
	var list []window
	if o.Stride == 0 {
		for start := 0; start+o.Context <= n; start += o.Context {
			list = append(list, window{start, start + o.Context, o.Context / 2})
		}
	} else {
		scored := 1 // tokens before this are scored; nothing predicts the first
		for start := 0; scored < n; start += o.Stride {
			end := min(start+o.Context, n)
			if end > scored {
				list = append(list, window{start, end, scored - 1 - start})
				scored = end
			}
		}
	}
	if o.Chunks > 0 && o.Chunks < len(list) {
		list = list[:o.Chunks]
	}
	return list, nil
}

// finish sets the averages. The standard error is that of the mean, carried
// through the exponential to first order.
func (r *PerplexityResult) finish(sum, squares float64) {
	n := float64(r.Scored)
	r.NLL = sum / n
	r.Perplexity = math.Exp(r.NLL)
	if variance := squares/n - r.NLL*r.NLL; variance > 0 && r.Scored > 1 {
		r.StdErr = math.Sqrt(variance/(n-1)) * r.Perplexity
	}
}

// negativeLogLikelihood is −log softmax(logits)[id] in float64.
func negativeLogLikelihood(logits []float32, id int32) float64 {
	top := float64(slices.Max(logits))
	sum := 0.0
	for _, l := range logits {
		sum += math.Exp(float64(l) - top)
	}
	return math.Log(sum) + top - float64(logits[id])
}
