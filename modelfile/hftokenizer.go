package modelfile

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"path/filepath"
	"strings"

	"github.com/apr-engine/apr/format/gguf"
	"github.com/apr-engine/apr/tokenizer"
)

// addTokenizer reads the folder's tokenizer and returns what is wrong with it.
func (s *source) addTokenizer(dir string, c *hfConfig) []FolderProblem {
	bad := func(err error) []FolderProblem { return []FolderProblem{{File: tokenizerFile, Err: err}} }
	text, err := readText(filepath.Join(dir, tokenizerFile))
	if err != nil {
		return bad(err)
	}
	if text == nil {
		return bad(fmt.Errorf("no tokenizer.json: %w; other tokenizer files are not read", fs.ErrNotExist))
	}
	config, err := readText(filepath.Join(dir, tokenizerSetup))
	if err != nil {
		return bad(err)
	}
	rows := 0
	for _, it := range s.items {
		if it.Name == "token_embd.weight" {
			rows = it.Rows()
		}
	}
	spec, err := tokenizer.FromHF(text, config, rows)
	if err != nil {
		return bad(err)
	}
	if rows > 0 && rows != len(spec.Tokens) {
		return bad(fmt.Errorf("%w: tokenizer.json has %d tokens, the embedding matrix %d rows", ErrConfig, len(spec.Tokens), rows))
	}
	for id, raw := range map[*int32]json.RawMessage{&spec.BOS: c.BOS, &spec.EOS: c.EOS, &spec.PAD: c.PAD} {
		if *id == tokenizer.None {
			*id = firstID(raw, len(spec.Tokens))
		}
	}
	if err := setTokenizer(s.md, spec); err != nil {
		return bad(err)
	}
	if err := setTemplate(s.md, dir, config); err != nil {
		return bad(err)
	}
	return nil
}

// firstID reads a token id or the first of a list.
func firstID(raw json.RawMessage, limit int) int32 {
	var list []int32
	var one int32
	if json.Unmarshal(raw, &one) == nil && len(raw) > 0 && string(raw) != "null" {
		list = []int32{one}
	} else if json.Unmarshal(raw, &list) != nil {
		return tokenizer.None
	}
	if len(list) == 0 || list[0] < 0 || int(list[0]) >= limit {
		return tokenizer.None
	}
	return list[0]
}

// setTokenizer writes a tokenizer's GGUF keys.
func setTokenizer(md *gguf.Metadata, s tokenizer.Spec) error {
	kinds := make([]int32, len(s.Kinds))
	for i, k := range s.Kinds {
		kinds[i] = int32(k)
	}
	var errs []error
	set := func(key string, v any) { errs = append(errs, md.Set("tokenizer.ggml."+key, v)) }
	set("model", s.Model)
	if s.Pre != "" {
		set("pre", s.Pre)
	}
	set("tokens", s.Tokens)
	if s.Scores != nil {
		set("scores", s.Scores)
	}
	set("token_type", kinds)
	if s.Merges != nil {
		set("merges", s.Merges)
	}
	id := func(key string, id int32) {
		if id != tokenizer.None {
			set(key, uint32(id))
		}
	}
	id("bos_token_id", s.BOS)
	id("eos_token_id", s.EOS)
	id("unknown_token_id", s.UNK)
	id("padding_token_id", s.PAD)
	set("add_bos_token", s.AddBOS)
	if s.AddEOS {
		set("add_eos_token", true)
	}
	if s.Model == "llama" {
		set("add_space_prefix", s.AddSpacePrefix)
	}
	return errors.Join(errs...)
}

// setTemplate finds the chat template: in a file of its own, or within
// tokenizer_config.json as a text or as one of several with names.
func setTemplate(md *gguf.Metadata, dir string, config []byte) error {
	text, err := readText(filepath.Join(dir, "chat_template.jinja"))
	if err != nil {
		return err
	}
	template := string(text)
	var c struct {
		Template json.RawMessage `json:"chat_template"`
	}
	if template == "" && config != nil && json.Unmarshal(config, &c) == nil && len(c.Template) > 0 {
		var named []struct{ Name, Template string }
		if json.Unmarshal(c.Template, &template) != nil && json.Unmarshal(c.Template, &named) == nil {
			for _, t := range named {
				if t.Name == "default" {
					template = t.Template
				}
			}
		}
	}
	if template == "" {
		return nil
	}
	return md.Set("tokenizer.chat_template", template)
}

// siblingTokenizer takes the tokenizer of an .apr file without one from a file
// beside it: <stem>.tokenizer.json or tokenizer.json. It returns why there is none.
func (f *File) siblingTokenizer(dir, path string) error {
	stem := strings.TrimSuffix(filepath.Base(path), ".apr")
	names := []string{stem + ".tokenizer.json", "tokenizer.json"}
	for _, name := range names {
		text, err := readText(filepath.Join(dir, name))
		if err != nil {
			return err
		}
		if text == nil {
			continue
		}
		config, err := readText(filepath.Join(dir, "tokenizer_config.json"))
		if err != nil {
			return err
		}
		rows := 0
		if t, ok := f.Tensor("token_embd.weight"); ok {
			rows = t.Rows()
		}
		spec, err := tokenizer.FromHF(text, config, rows)
		if err != nil {
			return fmt.Errorf("%s: %w", filepath.Join(dir, name), err)
		}
		return setTokenizer(f.Metadata, spec)
	}
	return fmt.Errorf("no tokenizer is embedded, and neither %s nor %s is beside the file", names[0], names[1])
}
