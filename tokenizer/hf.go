package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// FromHF reads the tokenizer.json of a Hugging Face model folder and, unless it
// is nil, its tokenizer_config.json. vocab is the number of rows of the
// embedding matrix: tokens up to it that have no text become Unused; 0 for none.
//
// Byte-level BPE and the BPE with byte fallback that is converted from
// SentencePiece are read. A tokenizer whose rules cannot be followed exactly is
// refused with ErrUnsupported, which names the rule; a broken file with ErrFormat.
func FromHF(tokenizerJSON, config []byte, vocab int) (Spec, error) {
	var h hfFile
	if err := json.Unmarshal(tokenizerJSON, &h); err != nil {
		return Spec{}, fmt.Errorf("%w: tokenizer.json: %s", ErrFormat, oneLine(err))
	}
	var c hfConfig
	if config != nil {
		if err := json.Unmarshal(config, &c); err != nil {
			return Spec{}, fmt.Errorf("%w: tokenizer_config.json: %s", ErrFormat, oneLine(err))
		}
	}
	s := Spec{BOS: None, EOS: None, EOT: None, EOM: None, UNK: None, SEP: None, PAD: None, FIMPad: None, FIMRep: None, FIMSep: None}
	if h.Model.Type != "BPE" {
		return s, fmt.Errorf("%w: tokenizer.json: model type %q, want BPE", ErrUnsupported, h.Model.Type)
	}
	if h.Model.Prefix != "" || h.Model.Suffix != "" {
		return s, fmt.Errorf("%w: tokenizer.json: continuing_subword_prefix or end_of_word_suffix", ErrUnsupported)
	}
	if err := h.tokens(&s, vocab); err != nil {
		return s, err
	}
	merges, err := h.merges()
	if err != nil {
		return s, err
	}
	if h.Model.ByteFallback {
		err = h.sentencePiece(&s, merges)
	} else {
		err = h.byteLevel(&s, merges)
	}
	if err != nil {
		return s, err
	}
	h.specials(&s, &c)
	return s, nil
}

func oneLine(err error) string { return strings.ReplaceAll(err.Error(), "\n", " ") }

// hfFile is what is read of tokenizer.json.
type hfFile struct {
	Added []struct {
		ID         int    `json:"id"`
		Content    string `json:"content"`
		Special    bool   `json:"special"`
		SingleWord bool   `json:"single_word"`
		LStrip     bool   `json:"lstrip"`
		RStrip     bool   `json:"rstrip"`
	} `json:"added_tokens"`
	Normalizer    *hfStep `json:"normalizer"`
	PreTokenizer  *hfStep `json:"pre_tokenizer"`
	PostProcessor *hfPost `json:"post_processor"`
	Model         struct {
		Type         string          `json:"type"`
		Vocab        map[string]int  `json:"vocab"`
		Merges       json.RawMessage `json:"merges"`
		UNK          *string         `json:"unk_token"`
		Prefix       string          `json:"continuing_subword_prefix"`
		Suffix       string          `json:"end_of_word_suffix"`
		ByteFallback bool            `json:"byte_fallback"`
		IgnoreMerges bool            `json:"ignore_merges"`
	} `json:"model"`
}

// hfPost is a post-processor: what is put round a text.
type hfPost struct {
	Type       string   `json:"type"`
	Processors []hfPost `json:"processors"`
	Single     []struct {
		Special *struct {
			ID string `json:"id"`
		} `json:"SpecialToken"`
		Sequence *struct{} `json:"Sequence"`
	} `json:"single"`
}

// hfConfig is what is read of tokenizer_config.json. A special token is a text
// or an object with its content.
type hfConfig struct {
	BOS    json.RawMessage `json:"bos_token"`
	EOS    json.RawMessage `json:"eos_token"`
	UNK    json.RawMessage `json:"unk_token"`
	PAD    json.RawMessage `json:"pad_token"`
	AddBOS *bool           `json:"add_bos_token"`
	AddEOS *bool           `json:"add_eos_token"`
}

// tokens lists all tokens by id, with their kinds.
func (h *hfFile) tokens(s *Spec, vocab int) error {
	n := vocab
	const limit = 1 << 24 // as New
	see := func(text string, id int) error {
		if id < 0 || id >= limit {
			return fmt.Errorf("%w: tokenizer.json: token %q has id %d", ErrFormat, text, id)
		}
		n = max(n, id+1)
		return nil
	}
	for text, id := range h.Model.Vocab {
		if err := see(text, id); err != nil {
			return err
		}
	}
	for _, a := range h.Added {
		if err := see(a.Content, a.ID); err != nil {
			return err
		}
	}
	// Ids may leave gaps; a false one must not cost memory.
	if have := len(h.Model.Vocab) + len(h.Added); n > vocab && n > 2*have+1024 {
		return fmt.Errorf("%w: tokenizer.json: ids go up to %d with %d tokens", ErrFormat, n-1, have)
	}
	s.Tokens, s.Kinds = make([]string, n), make([]Kind, n)
	for text, id := range h.Model.Vocab {
		if s.Kinds[id] != Undefined {
			return fmt.Errorf("%w: tokenizer.json: tokens %q and %q have the id %d", ErrFormat, s.Tokens[id], text, id)
		}
		s.Tokens[id], s.Kinds[id] = text, Normal
	}
	for _, a := range h.Added {
		s.Tokens[a.ID], s.Kinds[a.ID] = a.Content, UserDefined
		if a.Special {
			s.Kinds[a.ID] = Control
		}
	}
	for i, k := range s.Kinds {
		if k == Undefined {
			s.Tokens[i], s.Kinds[i] = fmt.Sprintf("[PAD%d]", i), Unused
		}
	}
	return nil
}

// merges reads both spellings: "left right" and ["left", "right"].
func (h *hfFile) merges() ([][2]string, error) {
	if len(h.Model.Merges) == 0 {
		return nil, fmt.Errorf("%w: tokenizer.json: merges are missing", ErrFormat)
	}
	var pairs [][2]string
	if err := json.Unmarshal(h.Model.Merges, &pairs); err == nil {
		return pairs, nil
	}
	var lines []string
	if err := json.Unmarshal(h.Model.Merges, &lines); err != nil {
		return nil, fmt.Errorf("%w: tokenizer.json: merges: %s", ErrFormat, oneLine(err))
	}
	pairs = make([][2]string, len(lines))
	for i, line := range lines {
		left, right, ok := strings.Cut(line, " ")
		if !ok || left == "" || right == "" || strings.Contains(right, " ") {
			return nil, fmt.Errorf("%w: tokenizer.json: merge %d is %q, want two tokens", ErrFormat, i, line)
		}
		pairs[i] = [2]string{left, right}
	}
	return pairs, nil
}

// byteLevel fills what byte-level BPE has.
func (h *hfFile) byteLevel(s *Spec, merges [][2]string) error {
	s.Model = "gpt2"
	pre, err := preName(h.Normalizer, h.PreTokenizer, h.Model.IgnoreMerges)
	if err != nil {
		return err
	}
	s.Pre = pre
	s.Merges = make([]string, len(merges))
	for i, m := range merges {
		s.Merges[i] = m[0] + " " + m[1]
	}
	return nil
}

// sentencePiece fills what SentencePiece BPE has. Its scores are only an order:
// the first merge that makes a token is the token's rank.
func (h *hfFile) sentencePiece(s *Spec, merges [][2]string) error {
	s.Model = "llama"
	space, err := spacePrefix(h.Normalizer, h.PreTokenizer)
	if err != nil {
		return err
	}
	s.AddSpacePrefix = space
	s.Scores = make([]float32, len(s.Tokens))
	rank := float32(0)
	done := make(map[string]bool, len(merges))
	for _, m := range merges {
		text := m[0] + m[1]
		id, ok := h.Model.Vocab[text]
		if !ok {
			return fmt.Errorf("%w: tokenizer.json: the merge of %q and %q makes no token", ErrFormat, m[0], m[1])
		}
		if !done[text] {
			done[text] = true
			rank--
			s.Scores[id] = rank
		}
	}
	for i, text := range s.Tokens {
		switch {
		case s.Kinds[i] == Normal && isByteToken(text):
			s.Kinds[i] = Byte
		case h.Model.UNK != nil && text == *h.Model.UNK:
			s.Kinds[i] = Unknown
		case s.Kinds[i] == Normal && !done[text]:
			// Single characters are no merges; no rank is as low as theirs.
			s.Scores[i] = rank - 1
		}
	}
	return nil
}

// specials finds the ids of special tokens and what is put round a text.
func (h *hfFile) specials(s *Spec, c *hfConfig) {
	ids := make(map[string]int32, len(h.Added))
	for _, a := range h.Added {
		ids[a.Content] = int32(a.ID)
	}
	find := func(raw json.RawMessage) int32 {
		var text string
		var object struct {
			Content string `json:"content"`
		}
		if json.Unmarshal(raw, &text) != nil && json.Unmarshal(raw, &object) == nil {
			text = object.Content
		}
		if id, ok := ids[text]; ok {
			return id
		}
		if id, ok := h.Model.Vocab[text]; ok && text != "" {
			return int32(id)
		}
		return None
	}
	s.BOS, s.EOS, s.UNK, s.PAD = find(c.BOS), find(c.EOS), find(c.UNK), find(c.PAD)
	if s.UNK == None && h.Model.UNK != nil {
		raw, _ := json.Marshal(*h.Model.UNK) // a string
		s.UNK = find(raw)
	}
	first, last := h.PostProcessor.around()
	s.AddBOS, s.AddEOS = first != "", last != ""
	if s.BOS == None && first != "" {
		if id, ok := ids[first]; ok {
			s.BOS = id
		}
	}
	if c.AddBOS != nil {
		s.AddBOS = *c.AddBOS
	}
	if c.AddEOS != nil {
		s.AddEOS = *c.AddEOS
	}
}

// around returns the special tokens before and after a text, empty for none.
func (p *hfPost) around() (first, last string) {
	if p == nil {
		return "", ""
	}
	for i := range p.Processors {
		a, b := p.Processors[i].around()
		if a != "" {
			first = a
		}
		if b != "" {
			last = b
		}
	}
	if p.Type != "TemplateProcessing" {
		return first, last
	}
	seen := false
	for _, part := range p.Single {
		switch {
		case part.Sequence != nil:
			seen = true
		case part.Special != nil && !seen:
			first = part.Special.ID
		case part.Special != nil:
			last = part.Special.ID
		}
	}
	return first, last
}
