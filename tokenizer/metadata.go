package tokenizer

import "fmt"

// Metadata is the part of a model file's metadata that a tokenizer needs. Each
// method returns the value of a key and whether it exists with that type.
type Metadata interface {
	String(key string) (string, bool)
	Uint(key string) (uint64, bool)
	Bool(key string) (bool, bool)
	Strings(key string) ([]string, bool)
	Ints(key string) ([]int64, bool)
	Floats(key string) ([]float64, bool)
}

// prefix of all keys; the names after it are GGUF's.
const prefix = "tokenizer.ggml."

// FromMetadata builds the tokenizer that a GGUF file describes.
func FromMetadata(m Metadata) (*Tokenizer, error) {
	s, err := specFrom(m)
	if err != nil {
		return nil, err
	}
	return New(s)
}

func specFrom(m Metadata) (Spec, error) {
	s := Spec{EOT: None, EOM: None, UNK: None, SEP: None, PAD: None, FIMPad: None, FIMRep: None, FIMSep: None}
	var ok bool
	if s.Model, ok = m.String(prefix + "model"); !ok {
		return s, fmt.Errorf("%w: %smodel is missing", ErrFormat, prefix)
	}
	s.Pre, _ = m.String(prefix + "pre")
	s.Name, _ = m.String("general.name")
	if s.Tokens, ok = m.Strings(prefix + "tokens"); !ok {
		return s, fmt.Errorf("%w: %stokens is missing", ErrFormat, prefix)
	}
	if err := s.setDefaults(); err != nil {
		return s, err
	}
	if kinds, ok := m.Ints(prefix + "token_type"); ok {
		s.Kinds = make([]Kind, len(kinds))
		for i, k := range kinds {
			if k >= int64(Undefined) && k <= int64(Byte) {
				s.Kinds[i] = Kind(k)
			}
		}
	}
	switch s.Model {
	case "gpt2":
		if s.Merges, ok = m.Strings(prefix + "merges"); !ok {
			return s, fmt.Errorf("%w: %smerges is missing", ErrFormat, prefix)
		}
	case "llama":
		if scores, ok := m.Floats(prefix + "scores"); ok {
			s.Scores = make([]float32, len(scores))
			for i, v := range scores {
				s.Scores[i] = float32(v)
			}
		}
	}
	for key, id := range map[string]*int32{
		"bos_token_id": &s.BOS, "eos_token_id": &s.EOS, "eot_token_id": &s.EOT, "eom_token_id": &s.EOM,
		"unknown_token_id": &s.UNK, "seperator_token_id": &s.SEP, "padding_token_id": &s.PAD,
		"fim_pad_token_id": &s.FIMPad, "fim_rep_token_id": &s.FIMRep, "fim_sep_token_id": &s.FIMSep,
	} {
		// An id outside the vocabulary leaves the default, as in llama.cpp.
		if v, ok := m.Uint(prefix + key); ok && v < uint64(len(s.Tokens)) {
			*id = int32(v)
		}
	}
	for key, flag := range map[string]*bool{
		"add_bos_token": &s.AddBOS, "add_eos_token": &s.AddEOS, "add_space_prefix": &s.AddSpacePrefix,
	} {
		if v, ok := m.Bool(prefix + key); ok {
			*flag = v
		}
	}
	return s, nil
}

// setDefaults sets what holds when the file says nothing.
func (s *Spec) setDefaults() error {
	s.BOS, s.EOS = None, None
	switch s.Model {
	case "llama":
		s.BOS, s.EOS, s.UNK = 1, 2, 0
		s.AddBOS, s.AddSpacePrefix = true, true
	case "gpt2":
		rule, err := findPre(s.Pre)
		if err != nil {
			return err
		}
		s.AddBOS = rule.addBOS
		// 11 is Falcon's <|endoftext|>; in other vocabularies it is a comma.
		if s.Pre == "falcon" {
			s.BOS, s.EOS = 11, 11
		}
	default:
		return fmt.Errorf("%w: %smodel is %q (have gpt2, llama)", ErrUnsupported, prefix, s.Model)
	}
	return nil
}

// findPre returns the rule of a pre-tokenizer name.
func findPre(name string) (preRule, error) {
	if name == "" {
		name = "default"
	}
	r, ok := pretokenizers[name]
	if !ok {
		return r, fmt.Errorf("%w: %spre is %q", ErrUnsupported, prefix, name)
	}
	r.name = name
	return r, nil
}
