package tokenizer

// preRule is what a pre-tokenizer name stands for: how text is cut into pieces
// before merging, and the defaults that llama.cpp ties to the name.
type preRule struct {
	name string
	// family is the first of the names that share this rule.
	family string
	// stages cut text one after the other, each the pieces of the one before.
	// The last stage's pieces are merged on their own.
	stages       []splitter
	ignoreMerges bool // a piece that is a token is that token, whatever the merges
	addBOS       bool // unless the file says otherwise
	nfc          bool // the model's own tokenizer composes text (NFC) first
}

func stages(s ...splitter) []splitter { return s }

// one is a rule of a single pattern that matches everywhere, so that no gaps
// need looking for.
func one(m matcher) []splitter { return []splitter{splitter(m)} }

func llama3Family(letters class, digits int, k tail) []splitter {
	return one(llama3{letters, digits, k, spaces}.match)
}

var (
	gpt2Stages = one(matchGPT2)
	// Digits stand alone, then GPT-2.
	digitGPT2Stages = stages(isolate(cNumber, matchNumbers(1)), matchGPT2)
	llama3Stages    = llama3Family(cLetter, 3, tailLines)
	qwen2Stages     = llama3Family(cLetter, 1, tailLines)
	deepseek3Stages = stages(isolate(cNumber, matchNumbers(3)), isolate(wideStart, matchRun(cjkKana)), isolate(anyStart, matchDeepSeek3))
	bloomStages     = stages(isolate(anyStart, matchBLOOM))
	gpt4oStages     = one(cased{digits: 3, tail: tailLinesDir, clitic: true}.match)
)

// pretokenizers lists every value of tokenizer.ggml.pre that llama.cpp and
// ik_llama.cpp know, with one exception (gemma4, which is no byte-level BPE).
//
// The patterns are those published with the models. Where llama.cpp writes an
// approximation beside the published pattern (tekken, gpt-4o, youtu, tiny_aya,
// kimi-k2), the published one is used: it is what the model was trained with.
var pretokenizers = map[string]preRule{}

func init() {
	def := func(r preRule, names ...string) {
		r.family = names[0]
		for _, n := range names {
			pretokenizers[n] = r
		}
	}
	def(preRule{stages: stages(isolate(cPunct|cSymbol, matchPunct("$+<=>^~|")), matchGPT2,
		isolate(cNumber, matchClassRun(cNumber)), isolate(cDigit, matchThreeDigits))}, "default")
	def(preRule{stages: gpt2Stages},
		"gpt-2", "phi-2", "jina-es", "jina-de", "gigachat", "jina-v1-en", "jina-v2-es",
		"jina-v2-de", "jina-v2-code", "roberta-bpe", "a.x-4.0", "mellum", "modern-bert",
		"mpt", "olmo", "jais", "trillion", "granite-docling", "exaone4")
	def(preRule{stages: digitGPT2Stages},
		"starcoder", "refact", "command-r", "cohere2_moe", "smollm", "codeshell",
		"exaone", "minerva-7b", "mellum2")
	def(preRule{stages: stages(isolate(cPunct|cSymbol, matchPunct("$+<=>^~|`")), matchGPT2, isolate(cDigit, matchThreeDigits))}, "falcon")
	def(preRule{stages: llama3Stages, ignoreMerges: true, addBOS: true},
		"llama3", "llama-v3", "llama-bpe", "laguna", "falcon3", "falcon-h1", "pixtral",
		"midm-2.0", "lfm2", "jina-v5-nano")
	def(preRule{stages: llama3Stages}, "dbrx", "smaug-bpe", "chatglm-bpe", "glm4")
	def(preRule{stages: one(llama3{cLetter, 3, tailLines, spacesPow2}.match)}, "jais-2")
	def(preRule{stages: qwen2Stages, nfc: true}, "qwen2", "deepseek-r1-qwen", "f2llmv2")
	def(preRule{stages: qwen2Stages},
		"stablelm2", "megrez", "kormo", "openpangu", "hunyuan", "solar-open", "grok-2",
		"bailingmoe", "bailingmoe2", "llada-moe")
	def(preRule{stages: llama3Family(cLetter|cMark, 1, tailLines), nfc: true}, "qwen35")
	def(preRule{stages: llama3Family(cLetter, 1, tailNone)}, "seed-coder")
	def(preRule{stages: one(matchEXAONEMoE)}, "exaone-moe")
	def(preRule{stages: stages(isolate(cNewline, matchOneOf("\r\n")), isolate(cSpace|cLetter, matchSpacedRun(deepseekLetters)),
		isolate(anyStart, matchSpacedRun(deepseekPunct)), splitTrailingSpace, isolate(wideStart, matchRun(deepseekCJK)),
		isolate(cNumber, matchClassRun(cNumber)))}, "deepseek-llm")
	def(preRule{stages: stages(isolate(cNewline, matchOneOf("\r\n")), isolate(cSpace|cLetter, matchSpacedClassRun(cLetter)),
		isolate(cSpace|cPunct, matchSpacedClassRun(cPunct)), isolate(wideStart, matchRun(deepseekCJK)),
		isolate(cNumber, matchNumbers(1)))}, "deepseek-coder")
	def(preRule{stages: deepseek3Stages}, "deepseek-v3", "hunyuan-dense", "joyai-llm")
	def(preRule{stages: stages(splitDigitsFromRight, isolate(wideStart, matchRun(afmoeScripts)), isolate(anyStart, matchDeepSeek3))}, "afmoe")
	def(preRule{stages: bloomStages}, "poro-chat", "bloom", "gpt3-finnish")
	def(preRule{stages: stages(isolate(anyStart, matchBLOOM), isolate(cNumber, matchNumbers(1)))}, "viking")
	def(preRule{stages: one(cased{digits: 1, tail: tailLinesDir}.match), ignoreMerges: true, addBOS: true}, "tekken")
	def(preRule{stages: gpt4oStages}, "gpt-4o", "llama4", "kanana2", "minimax-m2")
	def(preRule{stages: stages(splitDigitsAtBoundary, cased{digits: 3, tail: tailLinesDir, clitic: true}.match)}, "tiny_aya")
	def(preRule{stages: stages(isolate(wideStart, matchYoutu), cased{digits: 1, tail: tailLinesDir, clitic: true}.match), ignoreMerges: true}, "youtu")
	def(preRule{stages: one(cased{digits: 3, tail: tailLines, clitic: true, han: true}.match)}, "kimi-k2")
	def(preRule{stages: stages(isolate(cNumber, matchClassRun(cNumber)), splitSuperBPE)}, "superbpe")
	def(preRule{stages: stages(isolate(cSymbol, matchSentinel), isolate(cLetter, matchImage), isolate(cSpace, matchChameleonSpace),
		isolate(cNumber, matchNumbers(1)), isolate(cPunct|cSymbol, matchOnePunct), matchGPT2), addBOS: true}, "chameleon")
}

// matchOnePunct is Chameleon's [\p{P}!-/:-@\[-`{-~], one character.
func matchOnePunct(t *classTable, s string, i int) int {
	c, n := t.at(s, i)
	if c&cPunct != 0 || n == 1 && c&cSymbol != 0 {
		return i + n
	}
	return i
}
