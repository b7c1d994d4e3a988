package engine

import (
	"context"
	"math"
	"strings"
	"time"

	"github.com/apr-engine/apr/backend"
	"github.com/apr-engine/apr/tokenizer"
)

// Request is one generation.
type Request struct {
	Prompt    []int32 // the whole conversation; the cached prefix is reused
	MaxTokens int     // negative for as many as the context holds
	Sampling  Sampling
	Stop      []string // generation ends before any of these texts
	IgnoreEOS bool     // end-of-generation tokens are ordinary tokens
	// Continue says that the answer continues the prompt's text, so that a space
	// at its start belongs to it (SentencePiece writes one before every word).
	Continue bool
	// Emit receives text as it is produced, whole UTF-8 characters only.
	Emit func(text string)
}

// Finish reasons, as in the OpenAI API.
const (
	FinishStop   = "stop"
	FinishLength = "length"
)

// Result is what a generation produced.
type Result struct {
	Text         string
	TokenIDs     []int32 // without the token that ended generation
	FinishReason string
	PromptTokens int // in the prompt
	Computed     int // of them computed, the rest was cached
	// PrefillTime is until the first token could be chosen, DecodeTime from there to the
	// end, without the next two and without judging.
	PrefillTime, DecodeTime time.Duration
	// AsideTime went into judging and changing backends after the first token, MoveTime
	// into computing the tokens so far once more on one that took over.
	AsideTime, MoveTime time.Duration
}

// Generate extends the session by the request's prompt and the model's answer.
// On cancellation it returns what was produced with the context's error.
func (s *Session) Generate(ctx context.Context, r Request) (Result, error) {
	res := Result{PromptTokens: len(r.Prompt), FinishReason: FinishLength}
	if err := r.Sampling.Check(); err != nil {
		return res, err
	}
	if err := s.checkPrompt(r.Prompt); err != nil {
		return res, err
	}
	// With every token judged before it is shown, the context needs no comparison
	// of its own.
	s.followed = s.e.options.Gate.Verify == VerifyShadow
	defer func() { s.followed = false }()
	// The first token rests on the prompt alone: what is left of an earlier comparison
	// comes before it, what is left of this one after it.
	s.first = !s.e.certified.Pending()
	defer func() { s.first = false }()
	defer s.e.accept() // of an answer that needed no more
	// Comparing the backend with the reference is not part of the answer's time.
	if err := s.open(ctx, r.Prompt); err != nil {
		return res, err
	}
	start, aside := s.e.now(), s.e.aside
	logits, computed, err := s.Prefill(ctx, r.Prompt)
	if err != nil {
		return res, err
	}
	s.first = false
	res.Computed, res.PrefillTime = computed, s.e.now().Sub(start)-(s.e.aside-aside)

	start, aside = s.e.now(), s.e.aside
	moving := s.moving
	capacity := s.Capacity()
	if r.MaxTokens >= 0 {
		capacity = min(capacity, len(r.Prompt)+r.MaxTokens)
	}
	shown := &holder{emit: r.Emit}
	r.Emit = shown.text
	out := newTextFilter(s.e.Model.Tokenizer, r)
	chooser := newSampler(r.Sampling)
	var shadow *follower
	for r.MaxTokens < 0 || len(res.TokenIDs) < r.MaxTokens {
		if shadow, err = s.follow(ctx, shadow, len(res.TokenIDs), capacity); err != nil {
			break
		}
		s.followed = shadow.covers()
		if err = shadow.token(logits); err != nil {
			break
		}
		id := chooser.sample(logits, s.tokens)
		if !r.IgnoreEOS && s.e.Model.Tokenizer.IsEOG(id) {
			res.FinishReason = FinishStop
			break
		}
		res.TokenIDs = append(res.TokenIDs, id)
		shown.held = shadow.holds()
		shown.position = len(s.tokens) - 1
		if out.push(id) {
			res.FinishReason = FinishStop
			break
		}
		shown.release(shadow.judged())
		if len(res.TokenIDs) == r.MaxTokens || len(s.tokens) == s.Capacity() {
			break
		}
		if err = ctx.Err(); err != nil {
			break
		}
		var l *backend.Logits
		if l, err = s.Extend(ctx, []int32{id}, backend.Last); err != nil {
			break
		}
		logits = l.Row(0)
	}
	err = shadow.finish(err)
	out.close()
	judged := math.MaxInt
	if err != nil {
		judged = shadow.judged()
	}
	shown.release(judged)
	if err != nil && judged < math.MaxInt {
		// Token i was chosen from the logits at position len(r.Prompt)-1+i.
		res.TokenIDs = res.TokenIDs[:min(len(res.TokenIDs), max(0, judged-len(r.Prompt)+1))]
	}
	res.Text = shown.sent.String()
	res.AsideTime, res.MoveTime = s.e.aside-aside, s.moving-moving
	res.DecodeTime = s.e.now().Sub(start) - res.AsideTime - res.MoveTime
	return res, err
}

// holder keeps text back until the reference has judged the logits that its
// tokens were chosen from.
type holder struct {
	emit     func(string)
	held     bool // what comes now has to wait
	position int  // whose logits what comes now was chosen from
	queue    []heldText
	sent     strings.Builder
}

type heldText struct {
	text     string
	position int
}

// text takes what a generation produces.
func (h *holder) text(t string) {
	h.queue = append(h.queue, heldText{t, h.position})
	if !h.held {
		h.release(math.MaxInt)
	}
}

// release shows what was chosen from the positions before judged.
func (h *holder) release(judged int) {
	for len(h.queue) > 0 && h.queue[0].position < judged {
		t := h.queue[0].text
		h.queue = h.queue[1:]
		h.sent.WriteString(t)
		if h.emit != nil {
			h.emit(t)
		}
	}
}

// textFilter turns tokens into text, holds back what may be the start of a
// stop text, and ends at one.
type textFilter struct {
	stream *tokenizer.Stream
	stops  []string
	emit   func(string)
	held   string
	done   bool
}

func newTextFilter(t *tokenizer.Tokenizer, r Request) *textFilter {
	o := tokenizer.DecodeOptions{SkipSpecial: true, KeepSpace: r.Continue}
	f := &textFilter{stream: t.NewStream(o), emit: r.Emit}
	for _, s := range r.Stop {
		if s != "" {
			f.stops = append(f.stops, s)
		}
	}
	return f
}

// push adds a token and reports whether a stop text was met.
func (f *textFilter) push(id int32) (stopped bool) {
	f.add(f.stream.Push(id))
	return f.done
}

// close emits what is left.
func (f *textFilter) close() {
	if !f.done {
		f.add(f.stream.Flush())
		if !f.done {
			f.send(f.held)
		}
	}
}

func (f *textFilter) add(text string) {
	f.held += text
	end := -1
	for _, s := range f.stops {
		if i := strings.Index(f.held, s); i >= 0 && (end < 0 || i < end) {
			end = i
		}
	}
	if end >= 0 {
		f.send(f.held[:end])
		f.held, f.done = "", true
		return
	}
	keep := f.partial()
	f.send(f.held[:len(f.held)-keep])
	f.held = f.held[len(f.held)-keep:]
}

// partial is the length of the longest end of the held text that begins a stop text.
func (f *textFilter) partial() int {
	longest := 0
	for _, s := range f.stops {
		for n := min(len(s)-1, len(f.held)); n > longest; n-- {
			if strings.HasSuffix(f.held, s[:n]) {
				longest = n
				break
			}
		}
	}
	return longest
}

func (f *textFilter) send(text string) {
	if text != "" {
		f.emit(text)
	}
}
