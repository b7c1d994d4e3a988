package apr

import (
	"bufio"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strings"
	"time"

	"github.com/apr-engine/apr/chat"
	"github.com/apr-engine/apr/engine"
	"github.com/spf13/cobra"
)

type chatOptions struct {
	backendFlags
	samplingFlags
	templateFlag
	model  string
	system string
	ctx    int
}

func newChat() *cobra.Command {
	o := chatOptions{samplingFlags: defaultSampling()}
	o.Temperature, o.TopP, o.maxTokens = 0.7, 0.9, 512
	cmd := &cobra.Command{
		Use:     "chat MODEL [flags]",
		GroupID: groupGenerate,
		Short:   "Talk with a model",
		Long: `Talk with a model, one line a turn. Keys and values of earlier turns stay in the
cache, so that a turn costs what it adds.

In a pipe each input line is a turn and each answer ends with a line end on
stdout; prompts and notes are shown on a terminal only, on stderr. An interrupt
ends the answer, at the prompt it ends apr.

Commands: /help, /reset (forget the conversation), /exit.`,
		Example: `  apr chat models/tiny-coder-28m-q4_k_m.gguf
  printf 'What is 2+2?\nWhat is 3+4?\n' | apr chat models/tiny-coder-28m-q4_k_m.gguf --temperature 0`,
		Args:              modelArg(0, "MODEL"),
		Annotations:       map[string]string{ownSignals: "an interrupt ends one answer"},
		ValidArgsFunction: completeModel,
		RunE: func(cmd *cobra.Command, args []string) error {
			o.model = args[0]
			return o.run(cmd)
		},
	}
	f := cmd.Flags()
	f.StringVar(&o.system, "system", "", "system message")
	f.Var(intValue{&o.ctx, 0, maxCount}, "ctx", "context length in tokens; 0 for 4096 or the model's if that is less")
	o.templateFlag.register(f)
	o.samplingFlags.register(f)
	o.backendFlags.register(f)
	o.backendFlags.registerVerify(f)
	o.backendFlags.announce = true
	return cmd
}

// standardContext is the context of a conversation unless --ctx says otherwise.
const standardContext = 4096

func (o *chatOptions) run(cmd *cobra.Command) error {
	log := logger(cmd)
	backend, err := o.backendFlags.options(cmd)
	if err != nil {
		return err
	}
	start := time.Now()
	m, err := loadModel(o.model, log)
	if err != nil {
		return err
	}
	err = o.templateFlag.apply(m)
	if err == nil {
		// A template that fails should do so before the user has typed.
		_, err = m.ChatPrompt(conversation(o.system, chat.Message{Role: "user", Content: "hello"}))
	}
	if err != nil {
		m.Close()
		return err
	}
	backend.Context = contextLength(m, o.ctx, standardContext, log)
	e, err := open(m, backend, start, log)
	if err != nil {
		return err
	}
	defer e.Close()
	s, err := e.newSession(backend.Context)
	if err != nil {
		return err
	}
	defer s.Close()
	talk := conversationLoop{
		chatOptions: o, model: m, session: s, out: stdout(cmd), notes: io.Discard,
		terminal: isTerminal(cmd.InOrStdin()),
	}
	if talk.terminal {
		talk.notes = cmd.ErrOrStderr()
	}
	return talk.run(cmd.Context(), cmd.InOrStdin(), func(res engine.Result) {
		log.Info("turn", "prompt_tokens", res.PromptTokens, "computed", res.Computed, "tokens", len(res.TokenIDs),
			"finish_reason", res.FinishReason)
	})
}

// conversationLoop is a conversation in progress.
type conversationLoop struct {
	*chatOptions
	model    *engine.Model
	session  *engine.Session
	out      *output
	notes    io.Writer // prompts and remarks; discarded in a pipe
	terminal bool
	turns    []chat.Message
}

const chatHelp = `/help   this text
/reset  forget the conversation
/exit   leave (also the end of the input)
`

// run reads turns until the input ends. The context is that of the command;
// interrupts are taken only while an answer is produced.
func (t *conversationLoop) run(ctx context.Context, in io.Reader, done func(engine.Result)) error {
	fmt.Fprintln(t.notes, "/help shows the commands, /exit leaves.")
	lines := bufio.NewReader(in)
	for {
		fmt.Fprint(t.notes, "> ")
		line, readErr := lines.ReadString('\n')
		if readErr != nil && readErr != io.EOF {
			return fmt.Errorf("read standard input: %w", readErr)
		}
		switch text := strings.TrimRight(line, "\r\n"); strings.TrimSpace(text) {
		case "":
		case "/exit", "/quit":
			return nil
		case "/help":
			fmt.Fprint(t.notes, chatHelp)
		case "/reset":
			t.turns = nil
			fmt.Fprintln(t.notes, "The conversation is forgotten.")
		default:
			if err := t.turn(ctx, text, done); err != nil {
				if !t.terminal || t.out.err != nil {
					return err
				}
				fmt.Fprintln(t.notes, errorLine(err))
			}
		}
		if readErr == io.EOF {
			fmt.Fprintln(t.notes)
			return nil
		}
	}
}

// turn answers one message. A turn that fails leaves the conversation as it was;
// one that is interrupted keeps what was said.
func (t *conversationLoop) turn(ctx context.Context, text string, done func(engine.Result)) error {
	ctx, stop := signal.NotifyContext(ctx, os.Interrupt)
	defer stop()
	ctx, stopOn := cancelOnError(ctx)
	turns := append(t.turns, chat.Message{Role: "user", Content: text})
	ids, err := t.model.ChatPrompt(conversation(t.system, turns...))
	if err != nil {
		return err
	}
	if len(ids) > t.session.Capacity() {
		return fmt.Errorf("%w: the conversation has %d tokens, the context holds %d; /reset forgets it, --ctx makes room",
			engine.ErrInput, len(ids), t.session.Capacity())
	}
	res, err := t.session.Generate(ctx, engine.Request{
		Prompt: ids, MaxTokens: t.maxTokens, Sampling: t.Sampling, Stop: t.stop, IgnoreEOS: t.ignoreEOS,
		Emit: func(text string) {
			_, err := io.WriteString(t.out, text)
			stopOn(err)
		},
	})
	if t.out.err != nil {
		return t.out.err
	}
	if err != nil && !errors.Is(err, context.Canceled) {
		return err
	}
	t.turns = append(turns, chat.Message{Role: "assistant", Content: res.Text})
	_, err = io.WriteString(t.out, "\n")
	done(res)
	return err
}
