package check

import (
	"errors"

	"github.com/apr-engine/apr/graph"
	"github.com/apr-engine/apr/model"
	"github.com/apr-engine/apr/modelfile/source"
	"github.com/apr-engine/apr/tokenizer"
)

// completeness checks the model against its architecture, and the vocabulary
// against the embeddings.
func (r *Report) completeness(m *source.Model) {
	if m.Metadata.Len() == 0 {
		r.add(KindConfig, Note, "", "a %s file holds no metadata: completeness and vocabulary are not checked", m.Format)
		return
	}
	tokens := r.tokenizer(m)
	if len(m.Tensors) == 0 {
		r.add(KindIncomplete, Warning, "", "the file holds no tensors, only metadata")
		return
	}
	r.weights(m, tokens)
}

// weights checks the tensors against the architecture; tokens is the length of
// the vocabulary, 0 if it is not known.
func (r *Report) weights(m *source.Model, tokens int) {
	p, err := model.Assemble(m.Metadata, m)
	switch {
	case errors.Is(err, model.ErrArch):
		r.add(KindConfig, Warning, "", "%v: completeness is not checked", err)
		return
	case err != nil:
		r.add(KindConfig, Error, "", "%v", err)
		return
	}
	bad := map[string]bool{}
	for _, w := range p.WeightProblems(m, 0) {
		if bad[w.Tensor] {
			continue // tied embeddings are read twice
		}
		bad[w.Tensor] = true
		kind := KindShape
		if w.Missing {
			kind = KindIncomplete
		}
		r.add(kind, Error, w.Tensor, "%s; %s needs it so", w.Text, p.Arch)
	}
	r.unused(m, p)
	if tokens > 0 && tokens != p.Vocab {
		r.add(KindVocabulary, Error, "token_embd.weight", "has %d rows, the vocabulary has %d tokens", p.Vocab, tokens)
	}
}

// tokenizer returns the length of the vocabulary, 0 if there is none.
func (r *Report) tokenizer(m *source.Model) int {
	t, err := tokenizer.FromMetadata(m.Metadata)
	if err != nil {
		r.add(KindTokenizer, Warning, "", "%v", err)
		if tokens, ok := m.Metadata.Value("tokenizer.ggml.tokens"); ok {
			return tokens.Len()
		}
		return 0
	}
	return t.Size()
}

// unused reports tensors that the program does not read.
func (r *Report) unused(m *source.Model, p *graph.Program) {
	used := map[string]bool{"rope_freqs.weight": true} // read when the program is built
	for _, op := range p.Ops {
		for _, name := range op.Weights() {
			used[name] = true
		}
	}
	for _, t := range m.Tensors {
		if !used[t.Name] {
			r.add(KindUnused, Warning, t.Name, "%s does not use it", p.Arch)
		}
	}
}
