package apr

import (
	"errors"
	"io"
	"log/slog"
	"math"
	"slices"
	"strings"
	"time"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type runOptions struct {
	backendFlags
	samplingFlags
	templateFlag
	model    string
	source   textSource
	system   string
	raw      bool
	tokenIDs string
	ctx      int
	json     bool
}

func newRun() *cobra.Command {
	o := runOptions{samplingFlags: defaultSampling()}
	cmd := &cobra.Command{
		Use:     "run MODEL [PROMPT] [flags]",
		GroupID: groupGenerate,
		Short:   "Answer one prompt",
		Long: `Answer one prompt and print the answer as it is produced.

The prompt is the argument, --prompt, --input FILE, or standard input (an
argument of - also means standard input; one line end at the end is dropped).
The model's chat template is applied unless --raw is given or the model has
none. With --raw the text is continued as it stands; markup such as <|im_start|>
counts as such. --token-ids gives the prompt as token ids and nothing is added.

The backend is compared with the reference, cpu-exact, before it serves; one that is
wrong is replaced by the next, or refused if it was asked for by name. On a GPU that
was not asked for by name the first token waits for the prompt's comparison alone,
the second for the rest.
An answer that becomes longer than what was compared waits until that is. From
token 256 on the reference follows the answer, with --verify shadow from the first;
then text is shown when the reference has computed it too. See docs/parity.md.

A model that is too large for a GPU can have its last N layers there and the others
on the CPU: --gpu-layers N. See docs/executors.md.

Only the answer goes to stdout, followed by one line end. With --json it is one
object; inference_time_ms covers prompt and answer, without what went into comparing
(validate_ms), into backends that were rejected (rejected_ms) and into loading the next;
tok_per_sec is generated tokens over that time, setup_ms is the time to load the model, first_token_ms that
from the program's beginning to the first token, and start says where it went: to
find the device, to load the backend, and in the gate to wait for the reference, for
the backend and for the comparison; later_ms is what of that came after it.`,
		Example: `  apr run models/tiny-coder-28m-q4_k_m.gguf --prompt 'What is 2+2?'
  echo 'Reverse the word stone.' | apr run models/tiny-coder-28m-q4_k_m.gguf
  apr run models/tiny-coder-28m-q4_k_m.gguf --raw -n 64 'package main' --json`,
		Args:              modelArg(1, "MODEL [PROMPT]"),
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model, o.source.args = args[0], args[1:]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVarP(&o.source.flagValue, "prompt", "p", "", "the prompt")
	f.StringVarP(&o.source.file, "input", "i", "", "file with the prompt; - for standard input")
	o.source.what, o.source.flag, o.source.fileFlag = "prompt", "prompt", "input"
	f.StringVar(&o.system, "system", "", "system message for the chat template")
	f.BoolVar(&o.raw, "raw", false, "continue the text as it is, without the chat template")
	f.StringVar(&o.tokenIDs, "token-ids", "", "the prompt as token ids, separated by commas; no template")
	f.Var(intValue{&o.ctx, 0, maxCount}, "ctx", "context length in tokens; 0 for the model's")
	f.BoolVar(&o.json, "json", false, "print one JSON object instead of the text")
	o.templateFlag.register(f)
	o.samplingFlags.register(f)
	o.backendFlags.register(f)
	o.backendFlags.registerVerify(f)
	o.backendFlags.announce = true
	return cmd
}

// prompt is what the command line asks to generate from, before the model is known.
type prompt struct {
	text string
	ids  []int32 // instead of text
}

// readPrompt finds the prompt and refuses contradictions.
func (o *runOptions) readPrompt(cmd *cobra.Command) (p prompt, err error) {
	if o.raw && (o.system != "" || o.templateFlag.name != "") {
		return p, usageError(cmd, "--system and --chat-template are for the chat template, which --raw turns off")
	}
	if cmd.Flags().Changed("token-ids") {
		if cmd.Flags().Changed("prompt") || cmd.Flags().Changed("input") || len(o.source.args) > 0 || o.system != "" || o.templateFlag.name != "" {
			return p, usageError(cmd, "--token-ids is the whole prompt; leave out the text, --system and --chat-template")
		}
		if p.ids, err = parseIDs(o.tokenIDs); err != nil {
			return p, usageError(cmd, "--token-ids: %w", err)
		}
		if len(p.ids) == 0 {
			return p, usageError(cmd, "--token-ids is empty")
		}
		return p, nil
	}
	if p.text, err = o.source.read(cmd, true); err != nil {
		return p, err
	}
	if p.text == "" {
		return p, usageError(cmd, "the prompt is empty")
	}
	return p, nil
}

// tokens turns the prompt into the model's tokens.
func (o *runOptions) tokens(m *engine.Model, p prompt) ([]int32, error) {
	switch {
	case p.ids != nil:
		return p.ids, checkIDs(m, p.ids)
	case o.raw:
		return m.TextPrompt(p.text), nil
	}
	if err := o.templateFlag.apply(m); err != nil {
		return nil, err
	}
	ids, err := m.ChatPrompt(conversation(o.system, chat.Message{Role: "user", Content: p.text}))
	if errors.Is(err, chat.ErrNoTemplate) && o.system == "" {
		return m.TextPrompt(p.text), nil
	}
	return ids, err
}

// conversation puts a system message, if there is one, before others, which
// stay as they are.
func conversation(system string, messages ...chat.Message) []chat.Message {
	if system == "" {
		return messages
	}
	return slices.Concat([]chat.Message{{Role: "system", Content: system}}, messages)
}

func (o *runOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	backend, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	p, err := o.readPrompt(cmd)
	if err != nil {
		return err
	}
	start := time.Now()
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	ids, capacity, window, err := o.fit(m, p, log)
	if err != nil {
		m.Close()
		return err
	}
	backend.Expect, backend.Context = ids, capacity
	e, err := open(m, backend, start, log)
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := e.newSession(capacity)
	if err != nil {
		return err
	}
	defer s.Close()

	out := stdout(cmd)
	ctx, stopOn := cancelOnError(cmd.Context())
	request := engine.Request{
		Prompt: ids, MaxTokens: o.maxTokens, Sampling: o.Sampling, Stop: o.stop, IgnoreEOS: o.ignoreEOS, Continue: o.raw,
	}
	if !o.json {
		request.Emit = func(text string) {
			_, err := io.WriteString(out, text)
			stopOn(err)
		}
	}
	res, err := s.Generate(ctx, request)
	log.Info("generated", "prompt_tokens", res.PromptTokens, "tokens", len(res.TokenIDs),
		"prompt_tok_per_sec", math.Round(perSecond(res.Computed, res.PrefillTime)),
		"tok_per_sec", math.Round(perSecond(len(res.TokenIDs), res.DecodeTime)),
		"finish_reason", res.FinishReason, "kernels", strings.Join(e.Variants(), " "))
	if out.err != nil {
		return out.err
	}
	if !o.json {
		if err == nil || res.Text != "" { // what has been printed ends with its line
			io.WriteString(out, "\n")
		}
		return errors.Join(err, out.err)
	}
	if err != nil {
		return err
	}
	return out.json(newRunResult(e, res, window))
}

// fit tokenises the prompt and finds the context: window is the most tokens
// prompt and answer may have together, capacity what is needed of it.
func (o *runOptions) fit(m *engine.Model, p prompt, log *slog.Logger) (ids []int32, capacity, window int, err error) {
	if ids, err = o.tokens(m, p); err != nil {
		return nil, 0, 0, err
	}
	window = contextLength(m, o.ctx, m.Program.Context, log)
	if err = checkPrompt(len(ids), window); err != nil {
		return nil, 0, 0, err
	}
	return ids, min(window, len(ids)+o.maxTokens), window, nil
}

// runResult is the JSON object of apr run.
type runResult struct {
	Text            string           `json:"text"`
	TokensGenerated int              `json:"tokens_generated"`
	GeneratedTokens int              `json:"generated_tokens"` // the same; both names are in use
	TokenIDs        []int32          `json:"token_ids"`
	TokPerSec       float64          `json:"tok_per_sec"`
	InferenceTimeMS float64          `json:"inference_time_ms"`
	UsedGPU         bool             `json:"used_gpu"`
	Backend         engine.Selection `json:"backend"`
	FinishReason    string           `json:"finish_reason"`
	PromptTokens    int              `json:"prompt_tokens"`
	ContextLength   int              `json:"context_length"`
	ValidateMS      float64          `json:"validate_ms"`
	RejectedMS      float64          `json:"rejected_ms"`
	SetupMS         float64          `json:"setup_ms"`
	// FirstTokenMS is from the beginning of the program.
	FirstTokenMS float64     `json:"first_token_ms"`
	Start        startResult `json:"start"`
}

// startResult says where the time before the first token went; see engine.StartTimes.
type startResult struct {
	FindMS      float64 `json:"find_ms"`
	LoadMS      float64 `json:"load_ms"`
	GateMS      float64 `json:"gate_ms"`
	ReferenceMS float64 `json:"reference_ms"`
	WaitMS      float64 `json:"reference_wait_ms"`
	CandidateMS float64 `json:"candidate_ms"`
	CompareMS   float64 `json:"compare_ms"`
	PrefillMS   float64 `json:"prefill_ms"`
	// LaterMS is what of the comparison came between the first token and the second.
	LaterMS float64 `json:"later_ms"`
}

// programStart is when the program began, as far as it can tell.
var programStart = time.Now()

func newRunResult(e *opened, res engine.Result, window int) runResult {
	total := res.PrefillTime + res.MoveTime + res.DecodeTime
	validate, rejected := e.GateTimes()
	ids := res.TokenIDs
	if ids == nil {
		ids = []int32{}
	}
	t := e.StartTimes()
	return runResult{
		FirstTokenMS: milliseconds(time.Since(programStart) - res.DecodeTime - res.MoveTime - res.AsideTime),
		Start: startResult{
			milliseconds(t.Find), milliseconds(t.Load), milliseconds(t.Gate), milliseconds(t.Reference),
			milliseconds(t.Wait), milliseconds(t.Candidate), milliseconds(t.Compare), milliseconds(res.PrefillTime), milliseconds(t.Later),
		},
		Text: res.Text, TokensGenerated: len(ids), GeneratedTokens: len(ids), TokenIDs: ids,
		TokPerSec: perSecond(len(ids), total), InferenceTimeMS: milliseconds(total),
		UsedGPU: slices.Contains(gpuBackends, e.Selection().Ran), Backend: e.Selection(),
		FinishReason: res.FinishReason, PromptTokens: res.PromptTokens, ContextLength: window,
		ValidateMS: milliseconds(validate), RejectedMS: milliseconds(rejected), SetupMS: milliseconds(e.setup),
	}
}
