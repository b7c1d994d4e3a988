package tokenizer

import "strings"

// PreForArchitecture is the pre-tokenizer that models of an architecture with
// byte-level BPE have, for files that do not name one.
func PreForArchitecture(arch string) string {
	switch arch {
	case "qwen2", "qwen3":
		return "qwen2"
	case "llama":
		return "llama-bpe"
	case "gpt2":
		return "gpt-2"
	}
	return "default"
}

// GuessKinds tells markup from text by its spelling, for files that store no
// kinds: <|name|> and, of at most 20 lower-case letters and underscores, <name>
// and </name>. The result is for tokenizer.ggml.token_type.
func GuessKinds(tokens []string, sentencePiece bool) []int32 {
	kinds := make([]int32, len(tokens))
	for i, s := range tokens {
		kind := Normal
		switch {
		case sentencePiece && isByteToken(s):
			kind = Byte
		case sentencePiece && s == "<unk>":
			kind = Unknown
		case isMarkup(s):
			kind = Control
		}
		kinds[i] = int32(kind)
	}
	return kinds
}

// isByteToken reports whether s is <0xXX>.
func isByteToken(s string) bool {
	return len(s) == 6 && strings.HasPrefix(s, "<0x") && s[5] == '>' &&
		strings.Trim(s[3:5], "0123456789ABCDEF") == ""
}

func isMarkup(s string) bool {
	inner, ok := strings.CutPrefix(s, "<")
	if !ok {
		return false
	}
	if inner, ok = strings.CutSuffix(inner, ">"); !ok || inner == "" {
		return false
	}
	if len(inner) > 2 && inner[0] == '|' && inner[len(inner)-1] == '|' {
		return true
	}
	inner = strings.TrimPrefix(inner, "/")
	return inner != "" && len(inner) <= 20 && strings.Trim(inner, "abcdefghijklmnopqrstuvwxyz_") == ""
}
