package tokenizer

import (
	"encoding/json"
	"fmt"
	"strings"
)

// hfStep is a normalizer or a pre-tokenizer of tokenizer.json.
type hfStep struct {
	Type          string          `json:"type"`
	Normalizers   []hfStep        `json:"normalizers"`
	Pretokenizers []hfStep        `json:"pretokenizers"`
	Pattern       json.RawMessage `json:"pattern"`
	Content       json.RawMessage `json:"content"`
	Behavior      string          `json:"behavior"`
	Invert        bool            `json:"invert"`
	Individual    bool            `json:"individual_digits"`
	AddPrefix     bool            `json:"add_prefix_space"`
	UseRegex      *bool           `json:"use_regex"`
	Scheme        string          `json:"prepend_scheme"`
	Prepend       string          `json:"prepend"`
	Replacement   string          `json:"replacement"`
}

// flat lists the steps of nested sequences.
func (s *hfStep) flat() []hfStep {
	if s == nil {
		return nil
	}
	if s.Type != "Sequence" {
		return []hfStep{*s}
	}
	var list []hfStep
	for _, part := range [][]hfStep{s.Normalizers, s.Pretokenizers} {
		for i := range part {
			list = append(list, part[i].flat()...)
		}
	}
	return list
}

// patternOf returns a pattern, which is a text or a regular expression.
func patternOf(raw json.RawMessage) string {
	var p struct{ String, Regex string }
	if json.Unmarshal(raw, &p) != nil {
		return ""
	}
	return p.String + p.Regex
}

// signature writes a pre-tokenizer in one line, which is compared with those of
// known names.
func signature(steps []hfStep) string {
	parts := make([]string, len(steps))
	for i, s := range steps {
		switch s.Type {
		case "Split":
			parts[i] = "Split " + s.Behavior + " " + patternOf(s.Pattern)
			if s.Invert {
				parts[i] += " inverted"
			}
		case "ByteLevel":
			parts[i] = "ByteLevel"
			if s.UseRegex == nil || *s.UseRegex {
				parts[i] += " regex"
			}
			if s.AddPrefix {
				parts[i] += " prefix"
			}
		case "Digits":
			parts[i] = "Digits"
			if s.Individual {
				parts[i] += " individual"
			}
		case "Punctuation":
			parts[i] = "Punctuation " + s.Behavior
		default:
			parts[i] = s.Type
		}
	}
	return strings.Join(parts, "; ")
}

// Patterns as the models' tokenizer.json have them.
const (
	llama3Pattern = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	qwen2Pattern  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	tekkenPattern = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	gpt4oPattern  = `[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+(?i:'s|'t|'re|'ve|'m|'ll|'d)?|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	deepSeek3Part = `[!"#$%&'()*+,\-./:;<=>?@\[\\\]^_` + "`" + `{|}~][A-Za-z]+|[^` + "\r\n" + `\p{L}\p{P}\p{S}]?[\p{L}\p{M}]+| ?[\p{P}\p{S}]+[` + "\r\n" + `]*|\s*[` + "\r\n" + `]+|\s+(?!\S)|\s+`
)

// hfPre is a known pre-tokenizer: with and without composing text (NFC) first,
// and with the rule that a piece which is a token is not merged.
type hfPre struct{ plain, nfc, ignoreMerges string }

// hfPres maps signatures to names of pretokenizers.
var hfPres = map[string]hfPre{
	"ByteLevel regex":                                         {plain: "gpt-2"},
	"Digits individual; ByteLevel regex":                      {plain: "starcoder"},
	"Split Isolated " + llama3Pattern + "; ByteLevel":         {plain: "dbrx", ignoreMerges: "llama-bpe"},
	"Split Isolated " + qwen2Pattern + "; ByteLevel":          {plain: "stablelm2", nfc: "qwen2"},
	"Split Removed " + llama3Pattern + " inverted; ByteLevel": {plain: "dbrx", ignoreMerges: "llama-bpe"},
	"Split Removed " + qwen2Pattern + " inverted; ByteLevel":  {plain: "stablelm2", nfc: "qwen2"},
	"Split Isolated " + tekkenPattern + "; ByteLevel":         {ignoreMerges: "tekken"},
	"Split Isolated " + gpt4oPattern + "; ByteLevel":          {plain: "gpt-4o"},
	`Split Isolated \p{N}{1,3}; Split Isolated [一-龥぀-ゟ゠-ヿ]+; Split Isolated ` + deepSeek3Part + "; ByteLevel": {plain: "deepseek-v3"},
}

// preName finds the name of a byte-level pre-tokenizer.
func preName(normalizer, pre *hfStep, ignoreMerges bool) (string, error) {
	nfc := false
	for _, s := range normalizer.flat() {
		if s.Type != "NFC" {
			return "", fmt.Errorf("%w: tokenizer.json: normalizer %s", ErrUnsupported, s.Type)
		}
		nfc = true
	}
	sig := signature(pre.flat())
	known := hfPres[sig]
	name := known.plain
	switch {
	case nfc && ignoreMerges:
		name = ""
	case nfc:
		name = known.nfc
	case ignoreMerges:
		name = known.ignoreMerges
	}
	if name == "" {
		return "", fmt.Errorf("%w: tokenizer.json: no known pre-tokenizer splits text like this: %s (NFC %t, ignore_merges %t)",
			ErrUnsupported, sig, nfc, ignoreMerges)
	}
	return name, nil
}

// spacePrefix reads how SentencePiece BPE treats spaces: all become ▁, and a
// text may get one in front.
func spacePrefix(normalizer, pre *hfStep) (prefix bool, err error) {
	replaced := false
	for _, s := range normalizer.flat() {
		switch {
		case s.Type == "Prepend" && s.Prepend == "▁":
			prefix = true
		case s.Type == "Replace" && patternOf(s.Pattern) == " " && string(s.Content) == `"▁"`:
			replaced = true
		default:
			return false, fmt.Errorf("%w: tokenizer.json: normalizer %s", ErrUnsupported, s.Type)
		}
	}
	for _, s := range pre.flat() {
		switch {
		case s.Type == "Metaspace" && (s.Replacement == "▁" || s.Replacement == ""):
			replaced = true
			prefix = prefix || s.Scheme == "first" || s.Scheme == "always" || s.Scheme == "" && s.AddPrefix
		case s.Type == "Split" && patternOf(s.Pattern) == " " && s.Behavior == "MergedWithPrevious":
			// Gemma's, which finds nothing: all spaces have been replaced.
		default:
			return false, fmt.Errorf("%w: tokenizer.json: pre-tokenizer %s", ErrUnsupported, signature([]hfStep{s}))
		}
	}
	if !replaced {
		return false, fmt.Errorf("%w: tokenizer.json: spaces are not replaced by ▁", ErrUnsupported)
	}
	return prefix, nil
}
