package tokenizer

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/dlclark/regexp2/v2"
)

// Pattern texts, as published in the models' tokenizer.json or, for older ones,
// in llama.cpp. The scanners are compared with a regex engine on them.
const (
	reClitics  = `(?i:'s|'t|'re|'ve|'m|'ll|'d)`
	reGPT2     = `'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+`
	reLlama3   = reClitics + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reQwen2    = reClitics + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reQwen35   = reClitics + `|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+`
	reSeed     = reClitics + "|[^\r\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1}| ?[^\\s\\p{L}\\p{N}\r\n]+|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
	reBailing  = `'(?i:[sdmt]|ll|ve|re)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]|\s+(?!\S)|\s+`
	reJais2    = reClitics + `|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s{512}(?!\S)|\s{256}(?!\S)|\s{128}(?!\S)|\s{64}(?!\S)|\s{32}(?!\S)|\s{16}(?!\S)|\s{8}(?!\S)|\s{4}(?!\S)|\s{1,2}(?!\S)|\s{1}`
	reEXAONE   = reClitics + `|[^\r\n\p{L}\p{N}]?(?:\p{L}\p{M}*(?: \p{L}\p{M}*)*)+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]?|\s*[\r\n]|\s+(?!\S)|\s+`
	reDeep3    = "[!\"#$%&'()*+,\\-./:;<=>?@\\[\\\\\\]^_`{|}~][A-Za-z]+|[^\r\n\\p{L}\\p{P}\\p{S}]?[\\p{L}\\p{M}]+| ?[\\p{P}\\p{S}]+[\r\n]*|\\s*[\r\n]+|\\s+(?!\\S)|\\s+"
	reUpper    = `[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]`
	reLower    = `[\p{Ll}\p{Lm}\p{Lo}\p{M}]`
	reBloom    = ` ?[^(\s|.,!?…。，、।۔،)]+`
	reDeepCJK  = "[一-龥ࠀ-一가-\ud7ff]+"
	reCJKKana  = `[一-龥぀-ゟ゠-ヿ]+`
	reDeepSeek = `\s?[` + "A-Za-zµÀ-ÖØ-öø-ƺƼ-ƿǄ-ʓʕ-ʯͰ-ͳͶͷͻ-ͽͿΆΈ-ΊΌΎ-ΡΣ-ϵϷ-ҁҊ-ԯԱ-ՖႠ-ჅᎠ-Ᏽᏸ-ᏽᲐ-ᲺᲽ-Ჿᴀ-ᴫᵫ-ᵷᵹ-ᶚḀ-ἕἘ-Ἕἠ-ὅὈ-Ὅὐ-ὗὙὛὝὟ-\u1f7dᾀ-ᾴᾶ-ᾼ\u1fbeῂ-ῄῆ-ῌῐ-\u1fd3ῖ-\u1fdbῠ-Ῥῲ-ῴῶ-ῼℂℇℊ-ℓℕℙ-ℝℤ\u2126ℨ\u212a-ℭℯ-ℴℹℼ-ℿⅅ-ⅉⅎↃↄⰀ-ⱻⱾ-ⳤⳫ-ⳮⳲⳳꙀ-ꙭꚀ-ꚛꜢ-ꝯꝱ-ꞇꞋ-ꞎꭰ-ꮿﬀ-ﬆﬓ-ﬗＡ-Ｚａ-ｚ𐐀-𐑏𐒰-𐓓𐓘-𐓻𐲀-𐲲𐳀-𐳲𑢠-𑣟𞤀-𞥃" + `]+`
)

// reCased is a pattern of the GPT-4o family.
func reCased(upper, lower, clitic, digits, tail string) string {
	return `[^\r\n\p{L}\p{N}]?` + upper + `*` + lower + `+` + clitic + `|[^\r\n\p{L}\p{N}]?` + upper + `+` + lower + `*` + clitic +
		`|` + digits + `| ?[^\s\p{L}\p{N}]+` + tail + `|\s*[\r\n]+|\s+(?!\S)|\s+`
}

// patterns gives each family, under one of its names, its stages of patterns.
var patterns = []struct {
	pre    string
	stages []string
}{
	{"default", []string{`[\p{P}\$\+<=>\^~\|]+`, reGPT2, `\p{N}+`, `[0-9][0-9][0-9]`}},
	{"gpt-2", []string{reGPT2}},
	{"starcoder", []string{`\p{N}`, reGPT2}},
	{"falcon", []string{"[\\p{P}\\$\\+<=>\\^~\\|`]+", reGPT2, `[0-9][0-9][0-9]`}},
	{"llama-bpe", []string{reLlama3}},
	{"qwen2", []string{reQwen2}},
	{"qwen35", []string{reQwen35}},
	{"seed-coder", []string{reSeed}},
	{"bailingmoe", []string{reBailing}},
	{"jais-2", []string{reJais2}},
	{"exaone-moe", []string{reEXAONE}},
	{"deepseek-llm", []string{`[\r\n]`, reDeepSeek, `\s?[!-/:-~！-／：-～‘-‟　-。]+`, `\s+\z`, reDeepCJK, `\p{N}+`}},
	{"deepseek-coder", []string{`[\r\n]`, `\s?\p{L}+`, `\s?\p{P}+`, reDeepCJK, `\p{N}`}},
	{"deepseek-v3", []string{`\p{N}{1,3}`, reCJKKana, reDeep3}},
	{"bloom", []string{reBloom}},
	{"viking", []string{reBloom, `\p{N}`}},
	{"tekken", []string{reCased(reUpper, reLower, "", `\p{N}`, `[\r\n/]*`)}},
	{"gpt-4o", []string{reCased(reUpper, reLower, reClitics+"?", `\p{N}{1,3}`, `[\r\n/]*`)}},
	// \b is spelled out: the engine's \w lacks enclosing marks.
	{"tiny_aya", []string{`\d{1,3}(?=(?:\d{3})*(?![\p{L}\p{M}\p{Nd}\p{Pc}]))`, reCased(reUpper, reLower, reClitics+"?", `\p{N}{1,3}`, `[\r\n/]*`)}},
	{"youtu", []string{`[가-힣ㄱ-ㆎ]+|[！…“”‘’—：；，、-〿︰-﹏]+|[ㄅ-ㄯ]+|[一-龥぀-ゟ゠-ヿ]+`,
		reCased(reUpper, reLower, reClitics+"?", `\p{N}`, `[\r\n/]*`)}},
	{"kimi-k2", []string{`\p{Han}+|` + reCased(`(?:(?!\p{Han})`+reUpper+`)`, `(?:(?!\p{Han})`+reLower+`)`, reClitics+"?", `\p{N}{1,3}`, `[\r\n]*`)}},
	{"superbpe", []string{`\p{N}+`, `(?=(\d{3})+(?!\d))`}},
	{"chameleon", []string{`<sentinel:[0-9]+>`, `(IMGIMG)((A|B|C|D|E|F|G|H|I){1,4})Z`, `([\t\n]|    |  )`, `\p{N}`,
		"[\\p{P}!-/:-@\\[-`{-~]", reGPT2}},
	{"afmoe", []string{`(?<!\p{N})\p{N}{1,2}(?=(?:\p{N}{3})*(?!\p{N}))|\p{N}{3}`,
		"[一-鿿㐀-䶿\uf900-\ufaff぀-ゟ゠-ヿ･-ﾟ⼀-⿟เ-\u0e7f\u0e80-\u0effក-\u17ffက-႟ꩠ-ꩿꧠ-\ua9ff가-\ud7afᄀ-ᇿ]+", reDeep3}},
}

// oracle splits text with a regex engine, stage by stage.
type oracle []*regexp2.Regexp

func newOracle(t testing.TB, stages []string) oracle {
	var o oracle
	for _, text := range stages {
		re, err := regexp2.Compile(text, regexp2.None)
		if err != nil {
			t.Fatalf("%s: %v", text, err)
		}
		o = append(o, re)
	}
	return o
}

func (o oracle) split(t testing.TB, text string) []string {
	pieces := []string{text}
	for _, re := range o {
		var next []string
		for _, p := range pieces {
			at := 0
			m, err := re.FindStringMatch(p)
			for ; m != nil && err == nil; m, err = re.FindNextMatch(m) {
				start, n := m.ByteRange()
				if start > at {
					next = append(next, p[at:start])
				}
				if n > 0 {
					next = append(next, p[start:start+n])
				}
				at = start + n
			}
			if err != nil {
				t.Fatal(err)
			}
			if at < len(p) {
				next = append(next, p[at:])
			}
		}
		pieces = next
	}
	return pieces
}

// scan splits text with our scanners.
func scan(stages []splitter, text string) []string {
	var pieces []string
	for i := 0; i < len(text); {
		end := stages[0](classes(), text, i)
		if end <= i || end > len(text) {
			panic(fmt.Sprintf("segment from %d ends at %d of %d", i, end, len(text)))
		}
		if len(stages) == 1 {
			pieces = append(pieces, text[i:end])
		} else {
			pieces = append(pieces, scan(stages[1:], text[i:end])...)
		}
		i = end
	}
	return pieces
}

// alphabet has characters that patterns treat differently, with edge cases:
// case folding (long s, Kelvin), marks, digits of other scripts, spaces of all
// kinds, scripts without spaces, unassigned and private code points.
var alphabet = []string{
	" ", " ", "  ", "   ", "\n", "\r\n", "\r", "\t", "\v", "\u0085", "\u00a0", "\u2003", "\u2028", "\u3000",
	"a", "b", "Z", "É", "é", "ſ", "K", "ß", "ǅ", "ʰ", "Ω", "ω", "П", "р", "İ", "א", "ا", "你", "好", "々", "〇", "あ", "ア", "ｱ", "가", "ㄱ", "ㄅ", "ก", "ក", "က", "अ",
	"'", "'s", "'S", "'ſ", "'re", "'LL", "'l", "’", "’s", "I'm", "'D",
	"0", "1", "12", "123", "1234", "1234567", "٣", "३", "½", "²", "Ⅷ", "〡",
	".", ",", "!", "?", "-", "_", "/", "//", "(", ")", "|", "<", ">", "=", "$", "+", "^", "`", "~", "@", "#", "…", "。", "，", "、", "！", "：", "।", "۔", "،", "“", "—",
	"\u0301", "\u0300e", "e\u0301", "\u0900", "\u20dd", "\u200d", "\ufe0f", "🙂", "👍🏽", "\u0378", "\ue000", "\U0010ffff", "\x00", "\x7f", "\ufeff", "\ufffd",
	"<sentinel:12>", "IMGIMGABCZ", "IMGIMGABCDEZ", "Hello", "WORLD", "camelCase", "ΑΒγδ", "ПриветМир",
}

func randomText(r *rand.Rand, n int) string {
	var b strings.Builder
	for range n {
		if r.IntN(20) == 0 {
			// Any code point, so that no class is missed for ever.
			if c := rune(r.IntN(0x30000)); utf8.ValidRune(c) {
				b.WriteRune(c)
			}
			continue
		}
		b.WriteString(alphabet[r.IntN(len(alphabet))])
	}
	return b.String()
}

// compareScan compares our pieces of text with the oracle's.
func compareScan(t *testing.T, pre string, o oracle, text string) {
	t.Helper()
	got := scan(pretokenizers[pre].stages, text)
	want := o.split(t, text)
	if !slices.Equal(got, want) {
		t.Fatalf("%s %q:\n got %q\nwant %q", pre, text, got, want)
	}
	if strings.Join(got, "") != text {
		t.Fatalf("%s %q: pieces lose text: %q", pre, text, got)
	}
}

func TestScannersAgainstRegex(t *testing.T) {
	rounds := 4000
	if testing.Short() {
		rounds = 400
	}
	for _, p := range patterns {
		t.Run(p.pre, func(t *testing.T) {
			t.Parallel()
			o := newOracle(t, p.stages)
			r := rand.New(rand.NewPCG(1, uint64(len(p.pre))))
			for range rounds {
				compareScan(t, p.pre, o, randomText(r, 1+r.IntN(12)))
			}
			for _, n := range []int{1, 2, 3, 4, 5, 8, 11, 16, 31, 64, 129, 511, 512, 513, 900} {
				for _, end := range []string{"", "a", "\n", "\na", "."} {
					compareScan(t, p.pre, o, "x"+strings.Repeat(" ", n)+end)
					compareScan(t, p.pre, o, strings.Repeat("\t", n)+end)
				}
			}
		})
	}
}

// TestEveryFamilyHasAnOracle makes sure that no scanner goes unchecked: each
// set of stages in the table must belong to a name that is compared.
func TestEveryFamilyHasAnOracle(t *testing.T) {
	checked := map[string]bool{}
	same := func(a, b []splitter) bool { return &a[0] == &b[0] }
	for _, p := range patterns {
		rule, ok := pretokenizers[p.pre]
		if !ok {
			t.Fatalf("%q is not in the table", p.pre)
		}
		for name, other := range pretokenizers {
			if same(rule.stages, other.stages) {
				checked[name] = true
			}
		}
	}
	for name := range pretokenizers {
		if !checked[name] {
			t.Errorf("the scanner of %q is not compared with its pattern", name)
		}
	}
}

func FuzzScanners(f *testing.F) {
	for i, s := range []string{"Hello, world's  end\n\n 123456 ПриветМир 你好。", "'ſ 'RE e\u0301 \u3000x  \r\n/", "<sentinel:1> IMGIMGAZ    \t"} {
		f.Add(uint8(i), s)
	}
	oracles := make([]oracle, len(patterns))
	for i, p := range patterns {
		oracles[i] = newOracle(f, p.stages)
	}
	f.Fuzz(func(t *testing.T, which uint8, text string) {
		k := int(which) % len(patterns)
		if !utf8.ValidString(text) || len(text) > 200 {
			// The engine wants valid text, and on long ones it takes for ever;
			// here the scanners must only stay in bounds.
			scan(pretokenizers[patterns[k].pre].stages, text)
			scan(pretokenizers[patterns[k].pre].stages, repair(text))
			return
		}
		compareScan(t, patterns[k].pre, oracles[k], text)
	})
}
